"""Pooled features that stay in their files: rows are read from memory maps where they are looked at.

Shapes: N rows, one vector of width D each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from mmtool.api import Tokens

CHUNK_BYTES = 1 << 22
"""Of one input's rows that are read at once where all of them are passed over."""


class Gatherer(Protocol):
    """Where rows come from: the mapped files of a features folder."""

    def gather(self, numbers: Tensor, present: Tensor) -> Tensor:
        """Rows with these numbers as a new tensor `[n, D]`, float32; zeros where a row is not `present [n]`."""


class Mapped(Tokens):
    """Some rows of a store by their numbers; what asks for `values` gets all of them in memory, as float32."""

    __slots__ = ("_numbers", "_present", "_store", "_width")
    _store: Gatherer
    _numbers: Tensor
    _present: Tensor
    _width: int

    def __init__(self, store: Gatherer, numbers: Tensor, present: Tensor, width: int) -> None:
        """`numbers [N]` in the store and `present [N]`, False where a row is missing or hidden; `width`: D."""
        for name, value in (("_store", store), ("_numbers", numbers), ("_present", present), ("_width", width)):
            object.__setattr__(self, name, value)

    @property
    def dim(self) -> int:
        return self._width

    @property
    def lengths(self) -> Tensor:
        return self._present.long()

    @property
    def present(self) -> Tensor:
        return self._present

    @property
    def values(self) -> Tensor:
        return self._store.gather(self._numbers, self._present).unsqueeze(1)  # [N, 1, D]

    @property
    def mask(self) -> Tensor:
        return self._present.unsqueeze(1)  # [N, 1]

    @property
    def bytes(self) -> int:
        """Of its values in memory."""
        return 4 * len(self._numbers) * self._width

    def padded(self) -> Tokens:
        return Tokens(self.values, self.mask)

    def mean(self) -> Tensor:
        return self._store.gather(self._numbers, self._present)

    def rows(self) -> list[Tensor]:
        return self.padded().rows()

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of every dimension over the rows that are there, `[D]` each, float64; in one pass.

        The sums are of differences from the first rows' mean, so that they are no large numbers where the deviation is small.
        """
        there = self.take(self._present.nonzero().flatten())
        count = max(len(there._numbers), 1)
        about, total = torch.zeros(self._width), torch.zeros(self._width, dtype=torch.float64)
        squares = torch.zeros_like(total)
        for at in stretches({"": there}):
            x = there.take(torch.arange(at.start, at.stop)).mean()
            if at.start == 0:
                about = x.mean(0)
            x.sub_(about)
            total += x.sum(0)
            squares += x.square_().sum(0)
        mean = total / count
        return about + mean, (squares / count - mean.square()).clamp(min=0).sqrt()

    def take(self, at: Tensor) -> Mapped:
        return Mapped(self._store, self._numbers[at], self._present[at], self._width)

    def hidden(self) -> Mapped:
        return Mapped(self._store, self._numbers, torch.zeros_like(self._present), self._width)


def is_mapped(inputs: Mapping[str, Tokens]) -> bool:
    """Is there an input that stays in its files?"""
    return any(isinstance(t, Mapped) for t in inputs.values())


def stretches(inputs: Mapping[str, Tokens]) -> list[range]:
    """Rows after one another, as many as `CHUNK_BYTES` of the widest input hold."""
    count = len(next(iter(inputs.values())).lengths)
    rows = max(1, CHUNK_BYTES // (4 * max(t.dim for t in inputs.values())))
    return [range(at, min(at + rows, count)) for at in range(0, count, rows)]
