"""Checks of what is not there: masked values, padding, and inputs that are missing."""

from __future__ import annotations

import torch
from torch import Tensor

from mmtool.api import Tokens
from mmtool.testing.compare import FLOAT32_TOLERANCE
from mmtool.testing.fusions.subject import FusionSubject, Inputs, fuse, sample, worst
from mmtool.testing.verdicts import fail

GARBAGE = (1e30, -1e30, float("nan"))


def stays_finite_where_missing(subject: FusionSubject) -> None:
    """Without some or all inputs every value is finite, under a False mask too: heads and losses see it."""
    for case in subject.cases:
        there = torch.stack([t.present for t in sample(case.dims).values()])  # [M, B]
        for tokens in case.outputs.values():
            bad = (~tokens.values.isfinite()).flatten(1).any(1)  # [B]
            if bool(bad.any()):
                row = int(bad.nonzero()[0])
                count = int(there[:, row].sum())
                fail(f"a row with {count} of {len(case.dims)} inputs gave NaN or infinity; clamp the count of inputs to 1, "
                     "fill a softmax's masked scores with torch.finfo(dtype).min, not -inf, and use Tokens.mean(), which "
                     "is zero where an input is missing")


def ignores_masked_values(subject: FusionSubject) -> None:
    """What stands in `values` after a row's tokens does not matter, be it NaN."""
    for case in subject.cases:
        for garbage in GARBAGE:
            dirty = {name: Tokens(t.values.masked_fill((~t.mask & t.present.unsqueeze(1)).unsqueeze(-1), garbage), t.mask)
                     for name, t in sample(case.dims).items()}
            if (far := worst(case.outputs, fuse(case.fusion, dirty))) > FLOAT32_TOLERANCE:
                fail(f"padding leaks: {garbage} under a False mask changes a row by {far:.1e} of its magnitude; pool with "
                     "Tokens.mean(), or masked_fill before anything adds up (0 * NaN is NaN)")


def ignores_more_padding(subject: FusionSubject) -> None:
    """More positions under a False mask change nothing."""
    for case in subject.cases:
        more = {name: Tokens(_wider(t.values), _wider(t.mask)) for name, t in sample(case.dims).items()}
        if (far := worst(case.outputs, fuse(case.fusion, more))) > FLOAT32_TOLERANCE:
            fail(f"two more padded positions change a row by {far:.1e} of its magnitude; count tokens from the mask, "
                 "not from the shape of values")


def _wider(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_zeros(len(x), 2, *x.shape[2:])], 1)


def ignores_what_a_missing_input_holds(subject: FusionSubject) -> None:
    """A missing input changes the result by its absence alone: what its values hold does not matter, be it NaN."""
    for case in subject.cases:
        for garbage in GARBAGE:
            if (far := worst(case.outputs, fuse(case.fusion, _with_garbage(case.dims, garbage)))) > FLOAT32_TOLERANCE:
                fail(f"a missing input speaks: {garbage} in its values changes a row by {far:.1e} of its magnitude; use "
                     "Tokens.mean() or masked_fill before any layer")


def _with_garbage(dims: dict[str, int], garbage: float) -> Inputs:
    return {name: Tokens(t.values.masked_fill(~t.present.view(-1, 1, 1), garbage), t.mask)
            for name, t in sample(dims).items()}
