"""Checks of `fit`, of fusions that learn from rows without labels."""

from __future__ import annotations

import torch

from mmtool.api import Tokens
from mmtool.testing.compare import same_bits
from mmtool.testing.fusions.subject import SEVERAL, FusionSubject, fuse, sample, training, worst
from mmtool.testing.verdicts import fail, skip

REORDERED = 1e-3
"""How far a result may move, relative to a row's largest magnitude, when rows that were learned from change places."""


def fits_the_same_twice(subject: FusionSubject) -> None:
    """The same rows give the same bits, whatever the random state, and are left as they are."""
    _or_skip(subject)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(987)
        one, given = subject.new(), training(SEVERAL)
        before = {name: tensor.shape for name, tensor in one.state_dict().items()}
        one.fit(given)
        other = subject.fitted()
    if not all(same_bits(t.values, given[name].values) for name, t in training(SEVERAL).items()):
        fail("fit changed its inputs in place; work on a copy")
    state = other.state_dict()
    for name, tensor in one.state_dict().items():
        if name not in before or tensor.shape != before[name]:
            fail(f"fit gave {name!r} another shape; register it in __init__ in the shape that it will have, and fill it")
        if not same_bits(tensor, state[name]):
            fail(f"fitted twice on the same rows, {name!r} differs; seed what is random")


def fits_rows_in_any_order(subject: FusionSubject) -> None:
    """The order of the rows changes the result by rounding alone."""
    _or_skip(subject)
    turned = {name: Tokens(t.values.flip(0), t.mask.flip(0)) for name, t in training(SEVERAL).items()}
    given = sample(SEVERAL)
    if (far := worst(fuse(subject.fitted(), given), fuse(subject.fitted(rows=turned), given))) > REORDERED:
        fail(f"with the rows in another order, a result differs by {far:.1e} of its magnitude; fix what rounding could "
             "decide, such as the sign of an eigenvector")


def fits_what_is_there(subject: FusionSubject) -> None:
    """What a missing input or padding holds is not learned from; nothing but one row, or no input, gives no NaN."""
    _or_skip(subject)
    given, rows = sample(SEVERAL), training(SEVERAL)
    dirty = {n: Tokens(t.values.masked_fill(~t.mask.unsqueeze(-1), float("nan")), t.mask) for n, t in rows.items()}
    if worst(fuse(subject.fitted(), given), fuse(subject.fitted(rows=dirty), given)) > REORDERED:
        fail("fit learns from what is not there: NaN under a False mask changes the result; use Tokens.mean(), and leave "
             "out the rows where an input is missing")
    absent = {name: Tokens(t.values, t.mask & (name != min(rows))) for name, t in rows.items()}
    one = {name: Tokens(t.values[:1], t.mask[:1]) for name, t in rows.items()}
    same = {name: Tokens(torch.ones_like(t.values), t.mask) for name, t in rows.items()}
    for what, few in (("where one input is never there", absent), ("on a single row", one), ("on constant rows", same)):
        if not all(bool(t.values.isfinite().all()) for t in fuse(subject.fitted(rows=few), given).values()):
            fail(f"fitted {what}, it gives NaN or infinity; a variance may be 0, and a count, too")


def _or_skip(subject: FusionSubject) -> None:
    if not subject.cls.needs_fit():
        skip("it needs no fit")
