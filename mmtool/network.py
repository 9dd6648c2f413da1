"""From every input's tokens to the outputs of the tasks: standardise, fuse, a dense layer or none, predict.

Shapes: B rows, T_i tokens of width D_i for input i, K outputs of a task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn

from mmtool.api import Fusion, Task, Tokens
from mmtool.mapped import Mapped, is_mapped, stretches
from mmtool.ragged import Ragged, chunks, is_ragged, padded

MOST_SUBSETS_OF = 5
"""Subsets are measured one by one for up to this many inputs."""


class Standardise(nn.Module):
    """(x - mean) / scale, learned from training rows; a dimension that never varies is left at 0."""

    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def fit(self, tokens: Tokens) -> None:
        """Take mean and scale from tokens `[B, T, D]`."""
        if not bool(tokens.present.any()):
            return
        if isinstance(tokens, Ragged | Mapped):
            mean, scale = tokens.moments()
        else:
            x = tokens.values[tokens.mask].double()  # [n, D]
            mean, scale = x.mean(0), x.std(0, correction=0)
        self.mean, self.scale = mean.float(), torch.where(scale > 1e-8, scale, 1.0).float()

    def forward(self, tokens: Tokens) -> Tokens:
        return Tokens((tokens.values - self.mean) / self.scale, tokens.mask)


class Front(nn.Module):
    """Scales and a fusion: tokens of every input -> what a head sees. Also what `fuse` applies by itself."""

    def __init__(self, dims: Mapping[str, int], fusion: Fusion) -> None:
        super().__init__()
        self.names = sorted(dims)
        self.scales = nn.ModuleList(Standardise(dims[name]) for name in self.names)
        self.fusion = fusion

    def fit_scales(self, inputs: Mapping[str, Tokens]) -> None:
        """Standardise the given inputs by these rows from now on."""
        for name, scale in zip(self.names, self.scales, strict=True):
            assert isinstance(scale, Standardise)
            if name in inputs:
                scale.fit(inputs[name])

    def fit(self, inputs: Mapping[str, Tokens]) -> None:
        """Standardise by these rows from now on, and let a fusion that learns without labels learn from them."""
        self.fit_scales(inputs)
        if self.fusion.needs_fit():
            self.fusion.fit(self._scaled(inputs))

    def _scaled(self, inputs: Mapping[str, Tokens]) -> dict[str, Tokens]:
        return {name: scale(inputs[name]) for name, scale in zip(self.names, self.scales, strict=True)}

    def forward(self, inputs: Mapping[str, Tokens]) -> dict[str, Tokens]:
        """`fused`, or an entry an input; of inputs that are ragged or mapped in stretches that bound the memory."""
        if is_ragged(inputs):
            return _join([self(padded(take(inputs, part))) for part in chunks(inputs)])
        if is_mapped(inputs):
            return _join([self(padded(take(inputs, part))) for part in stretches(inputs)])
        fused = self.fusion(self._scaled(inputs))
        return fused if isinstance(fused, dict) else {"fused": fused}


class Network(nn.Module):
    """All that is learned between features and outputs: one front, and a head for each target."""

    def __init__(self, front: Front, tasks: Mapping[str, Task], hidden: Sequence[int] = (), dropout: float = 0.0) -> None:
        """`tasks`: a fitted task for each target column; `hidden`: widths of dense layers before the heads."""
        super().__init__()
        self.front, self.columns = front, sorted(tasks)
        self.dropout = nn.Dropout(dropout)
        towers = front.fusion.returns == "towers"
        dims = {name: front.fusion.dims[name] for name in front.names} if towers else {"fused": front.fusion.dim}
        self.dense = nn.ModuleList(_dense(dims[name], hidden, dropout) for name in sorted(dims))
        self.tasks = nn.ModuleList(tasks[column] for column in self.columns)
        for task in tasks.values():
            task.build({name: hidden[-1] if hidden else width for name, width in dims.items()})

    @property
    def names(self) -> list[str]:
        """The inputs, sorted."""
        return self.front.names

    @property
    def has_towers(self) -> bool:
        """Does every input have heads of its own?"""
        return self.front.fusion.returns == "towers"

    def fuse(self, inputs: Mapping[str, Tokens]) -> dict[str, Tokens]:
        """What the heads see: `fused`, or an entry an input."""
        fused = self.front(inputs)
        return {name: Tokens(layers(self.dropout(fused[name].values)), fused[name].mask)
                for name, layers in zip(sorted(fused), self.dense, strict=True)}

    def forward(self, inputs: Mapping[str, Tokens]) -> dict[str, dict[str, Tensor]]:
        """Tokens of every input -> for each target column, each head's raw outputs `[B, K]`."""
        seen = self.fuse(inputs)
        return {head.column: head.task.outputs(seen) for head in self.heads()}

    def heads(self) -> list[Head]:
        """One for each target, sorted by column."""
        return [Head(self, column) for column in self.columns]


@dataclass(frozen=True)
class Head:
    """A network as one of its targets sees it."""

    network: Network
    column: str

    @property
    def task(self) -> Task:
        """The fitted task."""
        task = self.network.tasks[self.network.columns.index(self.column)]
        assert isinstance(task, Task)
        return task

    @property
    def names(self) -> list[str]:
        """The inputs, sorted."""
        return self.network.names

    def __call__(self, inputs: Mapping[str, Tokens]) -> Tensor:
        """Tokens of every input -> outputs `[B, K]`, of towers combined; of mapped inputs in stretches."""
        if is_mapped(inputs):
            return torch.cat([self(padded(take(inputs, part))) for part in stretches(inputs)])
        seen = self.network.fuse(inputs)
        outputs = self.task.outputs(seen)
        if not self.network.has_towers:
            return outputs["fused"]
        present = {name: tokens.present for name, tokens in seen.items()}
        fusion = self.network.front.fusion
        if fusion.combines == "outputs":
            return fusion.combine(outputs, present)
        scores = {name: self.task.to_scores(out) for name, out in outputs.items()}
        return self.task.from_scores(fusion.combine(scores, present))


def _dense(dim: int, hidden: Sequence[int], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, width in zip((dim, *hidden), hidden, strict=False):
        layers += [nn.Linear(before, width), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers)


def _join(parts: Sequence[Mapping[str, Tokens]]) -> dict[str, Tokens]:
    if len(parts) == 1:
        return dict(parts[0])
    if all(t.mask.shape[1] == 1 for part in parts for t in part.values()):
        return {name: Tokens(torch.cat([part[name].values for part in parts]), torch.cat([part[name].mask for part in parts]))
                for name in parts[0]}
    return {name: Tokens.from_rows([row for part in parts for row in part[name].rows()], first.dim)
            for name, first in parts[0].items()}


def take(inputs: Mapping[str, Tokens], rows: Sequence[int] | Tensor) -> dict[str, Tokens]:
    """Some rows of every input."""
    at = torch.as_tensor(rows, dtype=torch.int64)
    return {name: t.take(at) for name, t in inputs.items()}


def only(inputs: Mapping[str, Tokens], subset: Sequence[str]) -> dict[str, Tokens]:
    """The same rows with every input outside `subset` missing."""
    return {name: t if name in subset else t.hidden() for name, t in inputs.items()}


def having(inputs: Mapping[str, Tokens], subset: Sequence[str]) -> Tensor:
    """Numbers of the rows that have every input of `subset`."""
    return torch.stack([inputs[name].present for name in subset]).all(0).nonzero().flatten()


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Every non-empty subset, the whole first; for more than five inputs the whole and the single ones."""
    ordered = sorted(names)
    sizes = range(len(ordered), 0, -1) if len(ordered) <= MOST_SUBSETS_OF else (len(ordered), 1)
    return [combination for size in sizes for combination in combinations(ordered, size)]


def key_of(subset: Sequence[str]) -> str:
    """A subset's name in headers and reports: `image+text`."""
    return "+".join(sorted(subset))
