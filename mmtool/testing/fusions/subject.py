"""What the checks of a fusion look at: fusions of one and of three inputs, rows with some missing, and what comes out.

Shapes: B rows, M inputs, T_i tokens of width D_i.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch

from mmtool.api import Fusion, Tokens
from mmtool.testing.compare import difference, same_tokens
from mmtool.testing.subject import Subject
from mmtool.testing.verdicts import fail

ONE = {"title": 4}
EQUAL = {"title": 4, "photo.left": 4, "clip-2": 4}
SEVERAL = {"title": 5, "photo.left": 3, "clip-2": 4}
"""Names as slugs of columns are: unsorted, with dots and hyphens."""
ALL_DIMS = (ONE, EQUAL, SEVERAL)
TRAINING_ROWS = 42

Inputs = dict[str, Tokens]


def sample(dims: Mapping[str, int], *, missing: bool = True) -> Inputs:
    """One to three tokens a row: two rows with every input, and with `missing` each without, each alone, none; made afresh."""
    generator = torch.Generator().manual_seed(0)
    names, patterns = sorted(dims), [set(dims)] * 2
    if missing:
        patterns += [set(dims) - {n} for n in names] + [{n} for n in names] + [set()]
    made = {}
    for name in names:
        counts = torch.randint(1, 4, (len(patterns),), generator=generator).tolist()
        counts[0], counts[1] = 3, 1  # so that something is padded
        rows = [torch.randn(n, dims[name], generator=generator) for n in counts]
        made[name] = Tokens.from_rows([row if name in there else None for row, there in zip(rows, patterns, strict=True)])
    return {name: made[name] for name in dims}


def training(dims: Mapping[str, int]) -> Inputs:
    """Rows to learn from, with something that inputs share, and some missing; made afresh."""
    generator = torch.Generator().manual_seed(1)
    shared = torch.randn(TRAINING_ROWS, 2, generator=generator)
    made = {}
    for number, name in enumerate(sorted(dims)):
        x = shared @ torch.randn(2, dims[name], generator=generator)
        x = x + 0.5 * torch.randn(TRAINING_ROWS, dims[name], generator=generator)
        rows = [torch.stack([row] * (1 + at % 3)) for at, row in enumerate(x)]
        made[name] = Tokens.from_rows([None if at % 7 == number else row for at, row in enumerate(rows)])
    return {name: made[name] for name in dims}


@dataclass(frozen=True)
class Case:
    """A fusion of some inputs, and what it makes of the sample's rows."""

    dims: dict[str, int]
    fusion: Fusion
    outputs: Inputs


class FusionSubject(Subject):
    """One fusion under test."""

    kind = "fusion"
    base = Fusion
    first = "dims"
    instead = "a fusion is built from dims and options alone, and a model's file brings its weights"

    def new(self, dims: Mapping[str, int] = SEVERAL, *, seed: int = 0) -> Fusion:
        """A fresh one in eval mode."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fusion: Fusion = self.cls(dict(dims), **self.options)
        return fusion.eval()

    def fitted(self, dims: Mapping[str, int] = SEVERAL, rows: Inputs | None = None) -> Fusion:
        """A fresh one that has learned from rows, by default the training rows, where it learns in `fit`."""
        fusion = self.new(dims)
        if self.cls.needs_fit():
            fusion.fit(training(dims) if rows is None else rows)
        return fusion

    @cached_property
    def cases(self) -> list[Case]:
        """One input, three of one width, three of several widths."""
        return [Case(dims, fusion := self.fitted(dims), fuse(fusion, sample(dims))) for dims in ALL_DIMS]

    @property
    def module(self) -> Fusion:
        """The fusion of three inputs of several widths."""
        return self.new()

    def use(self) -> None:
        """Build it and fuse the sample's rows."""
        self.cases  # noqa: B018  cached


def fuse(fusion: Fusion, inputs: Inputs) -> Inputs:
    """What comes out as a dict: `fused`, or an entry a tower. No gradients."""
    with torch.inference_mode():
        return named(fusion, fusion(inputs))


def named(fusion: Fusion, out: object) -> Inputs:
    """Tokens as `{"fused": tokens}`, towers as they are; fails for anything else."""
    if fusion.returns == "towers":
        if not isinstance(out, dict) or not all(isinstance(t, Tokens) for t in out.values()):
            fail(f'forward must return {{input: Tokens}}, as returns = "towers" says, it returned {type(out).__name__}')
        return out
    if not isinstance(out, Tokens):
        fail(f"forward must return Tokens(values, mask), it returned {type(out).__name__}")
    return {"fused": out}


def take(inputs: Mapping[str, Tokens], row: int) -> Inputs:
    """One row of every input."""
    return {name: Tokens(t.values[row : row + 1], t.mask[row : row + 1]) for name, t in inputs.items()}


def same(a: Inputs, b: Inputs) -> bool:
    """The same bits in everything that is no padding."""
    return sorted(a) == sorted(b) and all(same_tokens(a[name], b[name]) for name in a)


def worst(a: Inputs, b: Inputs) -> float:
    """Largest difference of two results over their rows, relative to each row's largest magnitude."""
    return max(difference(x, y) for name in a for x, y in zip(a[name].rows(), b[name].rows(), strict=True))
