"""Checks of `forward`: the shape of what comes out, the same bits twice and in any order, and rows by themselves."""

from __future__ import annotations

import torch

from mmtool.api import Tokens
from mmtool.testing.compare import FLOAT32_TOLERANCE, same_bits
from mmtool.testing.fusions.subject import Case, FusionSubject, Inputs, fuse, same, sample, take, worst
from mmtool.testing.verdicts import fail


def gives_tokens(subject: FusionSubject) -> None:
    """Tokens `[B, T, dim]` (pooled: T = 1) with a mask; a row is there where an input is (a tower: where its input is)."""
    for case in subject.cases:
        given, towers = sample(case.dims), case.fusion.returns == "towers"
        if towers and sorted(case.outputs) != sorted(case.dims):
            fail(f"forward must return a tower for each input, {sorted(case.dims)}; it returned {sorted(case.outputs)}")
        anywhere = torch.stack([t.present for t in given.values()]).any(0)  # [B]
        for name, tokens in case.outputs.items():
            _check(case, tokens, case.dims[name] if towers else case.fusion.dim)
            there = given[name].present if towers else anywhere
            if not torch.equal(tokens.present, there):
                row = int((tokens.present != there).nonzero()[0])
                fail(f"a row must be {'there' if there[row] else 'missing'} (its mask row) where "
                     f"{f'its input {name!r}' if towers else 'any input'} is {'' if there[row] else 'not '}there; "
                     "for one vector a row, return Tokens.pooled(x, present)")


def _check(case: Case, tokens: Tokens, dim: int) -> None:
    values, mask = tokens.values, tokens.mask
    rows = len(next(iter(sample(case.dims).values())).mask)
    width = "1" if case.fusion.returns == "pooled" else "T"
    if values.ndim != 3 or len(values) != rows or values.shape[2] != dim or (width == "1" and values.shape[1] != 1):
        fail(f"values must be [B, {width}, D], here [{rows}, {width}, {dim}], they are {list(values.shape)}; "
             + ("a tower keeps its input's width" if case.fusion.returns == "towers" else "set self.dim to D"))
    if values.dtype != torch.float32:
        fail(f"values must be float32, as the inputs are, they are {values.dtype}")
    if mask.dtype != torch.bool or mask.shape != values.shape[:2]:
        fail(f"mask must be torch.bool {list(values.shape[:2])}, it is {mask.dtype} {list(mask.shape)}")
    if not torch.equal(mask, torch.arange(mask.shape[1]) < mask.sum(1, keepdim=True)):
        fail("mask must be True on a prefix of each row: the tokens first, the padding after them")


def repeats_its_bits(subject: FusionSubject) -> None:
    """The same tokens twice give the same bits, whatever the random state, and are not changed by it."""
    for case in subject.cases:
        given = sample(case.dims)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(987)
            again = fuse(case.fusion, given)
        if not all(same_bits(t.values, given[name].values) and torch.equal(t.mask, given[name].mask)
                   for name, t in sample(case.dims).items()):
            fail("forward changed its inputs in place; work on a copy")
        if not same(case.outputs, again):
            fail("forward gave other bits for the same tokens; leave out dropout and sampling where self.training is "
                 "False, and keep no state between calls")


def order_changes_nothing(subject: FusionSubject) -> None:
    """The order of names in `dims` and in the inputs decides nothing: layouts follow sorted names."""
    for case in subject.cases:
        turned = subject.fitted(dict(reversed(case.dims.items())))
        one, other = case.fusion.state_dict(), turned.state_dict()
        if list(one) != list(other) or not all(same_bits(one[name], other[name]) for name in one):
            fail("with the same inputs in another order of `dims`, the weights differ; make them in the order of "
                 "sorted(dims), or of self.dims after super().__init__(dims)")
        if not same(case.outputs, fuse(turned, dict(reversed(sample(case.dims).items())))):
            fail("with the inputs in another order, the result differs; go through them in the order of self.dims")


def batching_changes_nothing(subject: FusionSubject) -> None:
    """A row alone and in a batch gives the same, to 1e-5 of its largest magnitude, in float32."""
    for case in subject.cases:
        given = sample(case.dims)
        for row in range(len(next(iter(given.values())).mask)):
            alone = fuse(case.fusion, _trimmed(take(given, row)))
            if (far := worst(take(case.outputs, row), alone)) > FLOAT32_TOLERANCE:
                inputs = [name for name, t in given.items() if t.present[row]]
                fail(f"a row with {', '.join(inputs) or 'no input'} differs by {far:.1e} of its magnitude alone and in a "
                     f"batch (allowed: {FLOAT32_TOLERANCE:.0e}); take no statistic over the batch, and use the masks")


def _trimmed(inputs: Inputs) -> Inputs:
    """A single row without its padding; a missing input keeps one position."""
    return {name: Tokens(t.values[:, : max(1, int(t.lengths))], t.mask[:, : max(1, int(t.lengths))])
            for name, t in inputs.items()}


def takes_what_it_states(subject: FusionSubject) -> None:
    """With `takes` pooled, tokens count by their mean alone; with tokens, by more: only then are they kept for it."""
    far = 0.0
    for case in subject.cases:
        given = sample(case.dims)
        once = {name: Tokens.pooled(t.mean(), t.present) for name, t in given.items()}
        far = max(far, worst(_means(case.outputs), _means(fuse(case.fusion, once))))
    if subject.cls.takes == "pooled" and far > FLOAT32_TOLERANCE:
        fail(f"the mean of an input's tokens gives another result ({far:.1e} of a row's magnitude) than the tokens; pool "
             'with Tokens.mean(), or state `takes = "tokens"`')
    if subject.cls.takes == "tokens" and far <= FLOAT32_TOLERANCE:
        fail("the mean of an input's tokens gives the same result as the tokens; state `takes = \"pooled\"`, so that no more "
             "is kept and read than it uses")


def _means(outputs: Inputs) -> Inputs:
    return {name: Tokens.pooled(t.mean(), t.present) for name, t in outputs.items()}
