"""Features and encoded targets of the rows that take part: in memory, or features that stay in their files, being many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mmtool.api import Task, Tokens
from mmtool.features.reader import Features
from mmtool.network import take
from mmtool.ragged import is_ragged

IN_MEMORY = 1 << 26
"""Bytes of pooled features that are loaded; more stay in their files, and are passed over in stretches."""
BLOCK = 1 << 14
"""Targets that are encoded at once."""


@dataclass(frozen=True)
class Answers:
    """One target of N rows: `y [N, U]` with `lengths [N]`; `known [N]` is False where a row has none."""

    y: Tensor
    lengths: Tensor
    known: Tensor

    def at(self, index: Tensor) -> Answers:
        """Some of the rows."""
        return Answers(self.y[index], self.lengths[index], self.known[index])

    def loss(self, task: Task, outputs: Tensor) -> Tensor:
        """Outputs `[N, K]` -> losses `[N]`, 0 where there is no target."""
        return task.loss(outputs, self.y, self.lengths).masked_fill(~self.known, 0)


@dataclass(frozen=True)
class Data:
    """N rows with one target: every input's tokens `[N, T, D]`, targets `y [N, U]` with `lengths [N]`."""

    inputs: dict[str, Tokens]
    y: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def rows(self, at: Sequence[int] | Tensor) -> Data:
        """Some of the rows."""
        index = torch.as_tensor(at, dtype=torch.int64)
        return Data(take(self.inputs, index), self.y[index], self.lengths[index])

    def loss(self, task: Task, outputs: Tensor) -> Tensor:
        """Outputs `[N, K]` -> losses `[N]`."""
        return task.loss(outputs, self.y, self.lengths)


@dataclass(frozen=True)
class Table:
    """N rows with the answers of every target column. An input may be absent here that is read as cells."""

    inputs: dict[str, Tokens]
    answers: dict[str, Answers]

    def __len__(self) -> int:
        return len(next(iter(self.answers.values())).y)

    def of(self, column: str, at: Sequence[int] | Tensor) -> tuple[Data, list[int]]:
        """Those of the rows that have this target, and their numbers."""
        index = torch.as_tensor(at, dtype=torch.int64)
        answers = self.answers[column]
        index = index[answers.known[index]]
        return Data(take(self.inputs, index), answers.y[index], answers.lengths[index]), index.tolist()


@dataclass(frozen=True)
class Part:
    """Rows of a table to fit, and rows held out to choose by."""

    table: Table
    fit: list[int]
    held: list[int]


def inputs_of(features: Features, names: Sequence[str], rows: Sequence[int],
              takes: Literal["pooled", "tokens"]) -> dict[str, Tokens]:
    """Each input's features of some rows as a fusion takes them, float32: one vector, or all the tokens that were kept."""
    every = [n for n in names if takes == "tokens" and not features.header["inputs"][n]["pooled"]]
    found: dict[str, Tokens] = {n: features.ragged(n, rows) for n in every}
    return dict(sorted({**found, **pooled(features, [n for n in names if n not in every], rows)}.items()))


def as_one(inputs: Mapping[str, Tokens]) -> dict[str, Tokens]:
    """Every input as one token: the mean of those it has."""
    return {name: Tokens.pooled(t.mean(), t.present) if is_ragged({name: t}) else t for name, t in inputs.items()}


def pooled(features: Features, names: Sequence[str], rows: Sequence[int]) -> dict[str, Tokens]:
    """Each input's features of some rows as one vector, float32: where tokens were kept, their mean.

    More than IN_MEMORY of vectors stay in their files.
    """
    out: dict[str, Tokens] = {}
    width = sum(features.header["inputs"][name]["dim"] for name in names)
    for name in sorted(names):
        if features.header["inputs"][name]["pooled"]:
            mapped = features.mapped(name, rows)
            out[name] = mapped.padded() if 4 * width * len(rows) <= IN_MEMORY else mapped
        else:
            tokens = features.ragged(name, rows)
            out[name] = Tokens.pooled(tokens.mean().float(), tokens.present)
    return out


def answers_of(tasks: Mapping[str, Task], cells: Mapping[str, Sequence[str | None]]) -> dict[str, Answers]:
    """For each target column its cells (None: no target) encoded by the fitted task."""
    out = {}
    for column, task in tasks.items():
        blank = torch.zeros_like(task.encode(next(cell for cell in cells[column] if cell is not None)))
        parts = [_encoded(task, cells[column][at : at + BLOCK], blank) for at in range(0, len(cells[column]), BLOCK)]
        width = max(part.y.shape[1] for part in parts)
        out[column] = Answers(torch.cat([nn.functional.pad(part.y, (0, width - part.y.shape[1])) for part in parts]),
                              torch.cat([part.lengths for part in parts]), torch.cat([part.known for part in parts]))
    return out


def _encoded(task: Task, cells: Sequence[str | None], blank: Tensor) -> Answers:
    """Some cells; those that are alike are encoded once. `blank`: what stands where there is no target."""
    known: dict[str | None, Tensor] = {None: blank}
    for cell in cells:
        if cell not in known:
            assert cell is not None
            known[cell] = task.encode(cell)
    number = {cell: i for i, cell in enumerate(known)}
    at = torch.tensor([number[cell] for cell in cells])
    return Answers(nn.utils.rnn.pad_sequence(list(known.values()), batch_first=True)[at],
                   torch.tensor([len(y) for y in known.values()])[at], at > 0)
