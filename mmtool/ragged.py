"""Tokens of many rows that are padded batch by batch, when they are looked at, not all to the longest of them.

Shapes: N rows, T_i tokens of row i, D width of a token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from mmtool.api import Tokens

CHUNK_TOKENS = 1 << 14
"""Tokens of all inputs, padding among them, that go through a network at once where nothing is trained."""


class Store(Protocol):
    """Where rows come from: memory, or the mapped files of a features folder."""

    def __getitem__(self, row: int) -> Tensor:
        """The tokens of a row, `[T_i, D]`."""


class Ragged(Tokens):
    """Some rows of a store, by their numbers; what asks for `values` or `mask` gets all of them padded, as float32."""

    __slots__ = ("_lengths", "_numbers", "_store", "_width")
    _store: Store
    _numbers: Tensor
    _lengths: Tensor
    _width: int

    def __init__(self, store: Store, numbers: Tensor, lengths: Tensor, width: int) -> None:
        """`numbers [N]` in the store and `lengths [N]`, 0 where a row is missing or hidden; `width`: D."""
        for name, value in (("_store", store), ("_numbers", numbers), ("_lengths", lengths), ("_width", width)):
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, rows: Sequence[Tensor | None], width: int) -> Ragged:
        """Rows `[T_i, D]` in memory; None: missing."""
        kept = [torch.zeros(0, width) if row is None else row for row in rows]
        return cls(kept, torch.arange(len(kept)), torch.tensor([len(row) for row in kept], dtype=torch.int64), width)

    @property
    def dim(self) -> int:
        return self._width

    @property
    def lengths(self) -> Tensor:
        return self._lengths

    @property
    def present(self) -> Tensor:
        return self._lengths > 0

    @property
    def values(self) -> Tensor:
        return self.padded().values

    @property
    def mask(self) -> Tensor:
        return self.padded().mask

    def padded(self) -> Tokens:
        return Tokens.from_rows([row if len(row) else None for row in self.rows()], self._width)

    def mean(self) -> Tensor:
        return torch.cat([Tokens.from_rows([row], self._width).mean() for row in self._each()])  # a row's bits are its own

    def rows(self) -> list[Tensor]:
        return list(self._each())

    def _each(self) -> Iterator[Tensor]:
        for number, length in zip(self._numbers.tolist(), self._lengths.tolist(), strict=True):
            yield self._store[number][:length].float()

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of every dimension over all tokens, `[D]` each, float64; in two passes, a row at a time."""
        count = int(self._lengths.sum())
        mean = torch.zeros(self._width, dtype=torch.float64)
        for row in self._each():
            mean += row.double().sum(0)
        mean /= max(count, 1)
        squares = torch.zeros_like(mean)
        for row in self._each():
            squares += (row.double() - mean).square().sum(0)
        return mean, (squares / max(count, 1)).sqrt()

    def take(self, at: Tensor) -> Ragged:
        return Ragged(self._store, self._numbers[at], self._lengths[at], self._width)

    def hidden(self) -> Ragged:
        return Ragged(self._store, self._numbers, torch.zeros_like(self._lengths), self._width)


def padded(inputs: Mapping[str, Tokens]) -> dict[str, Tokens]:
    """Every input with its values at hand."""
    return {name: t.padded() for name, t in inputs.items()}


def is_ragged(inputs: Mapping[str, Tokens]) -> bool:
    """Is there an input that is padded when it is looked at?"""
    return any(isinstance(t, Ragged) for t in inputs.values())


def chunks(inputs: Mapping[str, Tokens], rows: int = CHUNK_TOKENS) -> list[range]:
    """Stretches of `rows` rows; where an input is ragged, of as many as have `CHUNK_TOKENS` together when padded, or of one."""
    count = len(next(iter(inputs.values())).lengths)
    if not is_ragged(inputs):
        return [range(at, min(at + rows, count)) for at in range(0, count, rows)]
    found, start = [], 0
    longest = [0] * len(inputs)
    for at, own in enumerate(zip(*(t.lengths.tolist() for t in inputs.values()), strict=True)):
        longest = [max(pair) for pair in zip(longest, own, strict=True)]
        if at > start and (at + 1 - start) * sum(longest) > CHUNK_TOKENS:
            found.append(range(start, at))
            start, longest = at, list(own)
    return [*found, range(start, count)]
