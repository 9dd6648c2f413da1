"""From every input's tokens to the outputs of a task: standardise, fuse, predict.

Shapes: B rows, T_i tokens of width D_i for input i, K outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from mmtool.api import Fusion, Task, Tokens

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
        x = tokens.values[tokens.mask].double()  # [n, D]
        if len(x):
            scale = x.std(0, correction=0)
            self.mean, self.scale = x.mean(0).float(), torch.where(scale > 1e-8, scale, 1.0).float()

    def forward(self, tokens: Tokens) -> Tokens:
        return Tokens((tokens.values - self.mean) / self.scale, tokens.mask)


class Network(nn.Module):
    """All that is learned between features and outputs."""

    def __init__(self, dims: dict[str, int], fusion: Fusion, task: Task, dropout: float = 0.0) -> None:
        super().__init__()
        self.names = sorted(dims)
        self.scales = nn.ModuleList(Standardise(dims[name]) for name in self.names)
        self.fusion, self.task = fusion, task
        self.dropout = nn.Dropout(dropout)
        task.build(dims if fusion.returns == "towers" else {"fused": fusion.dim})

    def fit_scales(self, inputs: Mapping[str, Tokens]) -> None:
        """Standardise by these rows from now on."""
        for name, scale in zip(self.names, self.scales, strict=True):
            assert isinstance(scale, Standardise)
            scale.fit(inputs[name])

    def fuse(self, inputs: Mapping[str, Tokens]) -> dict[str, Tokens]:
        """What the heads see: `fused`, or an entry an input."""
        fused = self.fusion({name: scale(inputs[name]) for name, scale in zip(self.names, self.scales, strict=True)})
        return fused if isinstance(fused, dict) else {"fused": fused}

    def towers(self, inputs: Mapping[str, Tokens]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Each head's outputs `[B, K]`, and whether what it sees is there `[B]`."""
        fused = self.fuse(inputs)
        dropped = {name: Tokens(self.dropout(t.values), t.mask) for name, t in fused.items()}
        return self.task.outputs(dropped), {name: t.present for name, t in fused.items()}

    def forward(self, inputs: Mapping[str, Tokens]) -> Tensor:
        """Tokens of every input -> outputs `[B, K]`."""
        outputs, present = self.towers(inputs)
        if self.fusion.returns != "towers":
            return outputs["fused"]
        scores = {name: self.task.to_scores(out) for name, out in outputs.items()}
        return self.task.from_scores(self.fusion.combine(scores, present))


def take(inputs: Mapping[str, Tokens], rows: Sequence[int] | Tensor) -> dict[str, Tokens]:
    """Some rows of every input."""
    at = torch.as_tensor(rows, dtype=torch.int64)
    return {name: Tokens(t.values[at], t.mask[at]) for name, t in inputs.items()}


def only(inputs: Mapping[str, Tokens], subset: Sequence[str]) -> dict[str, Tokens]:
    """The same rows with every input outside `subset` missing."""
    return {name: t if name in subset else Tokens(t.values, torch.zeros_like(t.mask)) for name, t in inputs.items()}


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
