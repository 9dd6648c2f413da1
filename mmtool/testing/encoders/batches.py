"""Checks of `forward`: the shape of its tokens, the same bits twice, and that a row does not see its neighbours."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import torch

from mmtool import encoding
from mmtool.testing.compare import FLOAT32_TOLERANCE, difference, same_tokens
from mmtool.testing.encoders.subject import EncoderSubject, forward
from mmtool.testing.verdicts import fail, skip

BFLOAT16_TOLERANCE = 2e-2


def gives_tokens(subject: EncoderSubject) -> None:
    """`forward` gives floating values `[B, T, dim]` and a bool mask `[B, T]`, True on a prefix, some in each row."""
    for batch, tokens in zip(subject.batches, subject.outputs, strict=True):
        values, mask, dim = tokens.values, tokens.mask, subject.encoder.dim
        if values.ndim != 3 or values.shape[0] != len(batch) or values.shape[2] != dim:
            fail(f"values must be [B, T, dim], here [{len(batch)}, T, {dim}], they are {list(values.shape)}; set "
                 "self.dim to the width of the tokens, and give one pooled vector a row with Tokens.pooled(x)")
        if not values.is_floating_point():
            fail(f"values must be floating point, they are {values.dtype}")
        if mask.dtype != torch.bool or mask.shape != values.shape[:2]:
            fail(f"mask must be torch.bool {list(values.shape[:2])}, it is {mask.dtype} {list(mask.shape)}")
        prefix = torch.arange(mask.shape[1], device=mask.device) < mask.sum(1, keepdim=True)  # [B, T]
        if not bool((mask == prefix).all()):
            fail("mask must be True on a prefix of each row: the tokens first, the padding after them")
        if not bool(mask.any(1).all()):
            fail("a row got no token, as if its cell were missing; let prepare raise CellError for what is too short")
        if not bool(values[mask].isfinite().all()):
            fail("values hold NaN or infinity; mind silence, pictures of one colour, and short cells")


def repeats_its_bits(subject: EncoderSubject) -> None:
    """The same batch twice gives the same bits, whatever the random state, and is not changed by it."""
    for batch, tokens in zip(subject.batches, subject.outputs, strict=True):
        x, lengths = encoding.pad([subject.prepared[i] for i in batch])
        before = x.clone()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(987)
            again = forward(subject.encoder, x, lengths)
        if not torch.equal(before, x):
            fail("forward changed its input x in place; work on a copy")
        if not same_tokens(tokens, again):
            fail("forward gave other bits for the same batch; leave out dropout and sampling where self.training is "
                 "False, and keep no state between calls")


def bears_two_threads(subject: EncoderSubject) -> None:
    """Batches that run at the same time, in two threads, give the bits that each gives alone."""
    alone = [[i] for batch in subject.batches for i in batch][:4]
    jobs = [encoding.pad([subject.prepared[i] for i in batch]) for batch in [*alone, *subject.batches]]
    expected = [forward(subject.encoder, *job) for job in jobs]
    order = [*range(len(jobs))] * (1 + 16 // len(jobs))
    often, threads = sys.getswitchinterval(), torch.get_num_threads()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
            found = list(pool.map(lambda n: forward(subject.encoder, *jobs[n]), order))
    finally:
        sys.setswitchinterval(often)
    if not all(same_tokens(expected[n], tokens) for n, tokens in zip(order, found, strict=True)):
        fail("forward gave other bits for a batch while another ran in a second thread; keep nothing of a call in self, "
             "in hooks or in globals")


def batching_changes_nothing(subject: EncoderSubject) -> None:
    """A row alone and in a batch gives the same tokens, to 1e-5 of its largest magnitude, in float32."""
    _compare_alone(subject, subject.batches, FLOAT32_TOLERANCE)


def batching_changes_nothing_in_bfloat16(subject: EncoderSubject) -> None:
    """The same under bfloat16 autocast, to 2e-2."""
    if subject.encoder.weights_sha256 is not None:
        skip("its weights are outside torch, where autocast does not reach")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _compare_alone(subject, [batch[:4] for batch in subject.batches], BFLOAT16_TOLERANCE)  # slow on most CPUs


def _compare_alone(subject: EncoderSubject, batches: list[list[int]], tolerance: float) -> None:
    several = [batch for batch in batches if len(batch) > 1]
    if not several:
        skip("no two sample cells have the same prepared length; give some in `sample_cells`")
    for batch in several:
        for i, row in zip(batch, subject.run(batch).rows(), strict=True):
            name = f"a row of prepared length {len(subject.prepared[i])}"
            alone = subject.run([i]).rows()[0]
            if alone.shape != row.shape:
                fail(f"{name} has {len(alone)} tokens alone and {len(row)} in a batch; count tokens from `lengths`, "
                     "not from x")
            worst = difference(alone, row)
            if worst > tolerance:
                fail(f"{name} differs by {worst:.1e} of its magnitude alone and in a batch (allowed: {tolerance:.0e}); "
                     'mask the padding with `lengths`, take no statistic over the batch, or state `padding = "none"`')


def bears_a_row_of_zeros(subject: EncoderSubject) -> None:
    """Zeros, which the host puts where a cell of equal length cannot be used, change nothing for the other rows."""
    for batch, tokens in zip(subject.batches, subject.outputs, strict=True):
        cells = [subject.prepared[i] for i in batch]
        if len({len(x) for x in cells}) > 1:
            skip("only cells of equal length are batched with zeros in the place of an unusable one")
        both = forward(subject.encoder, *encoding.pad([*cells, torch.zeros_like(cells[0])]))
        for row, beside in zip(tokens.rows(), both.rows(), strict=False):
            if (worst := difference(row, beside)) > FLOAT32_TOLERANCE:
                fail(f"beside a cell of zeros, a row differs by {worst:.1e} of its magnitude; take no statistic over "
                     "the batch")


def ignores_padding(subject: EncoderSubject) -> None:
    """What stands in the padded part of x does not matter."""
    if subject.encoder.padding == "none":
        skip('padding = "none": the host pads nothing')
    x, lengths = encoding.pad(subject.prepared)
    if bool((lengths == lengths[0]).all()):
        skip("every prepared cell has the same length, so nothing is padded")
    longest = subject.prepared[int(lengths.argmax())]  # [L, ...]: real steps, so that the garbage stays in range
    for row, n in zip(x, lengths.tolist(), strict=True):
        row[n:] = longest[n:]
    dirty = forward(subject.encoder, x, lengths).rows()
    for n, a, b in zip(lengths.tolist(), subject.outputs[0].rows(), dirty, strict=True):
        worst = difference(a, b)
        if worst > FLOAT32_TOLERANCE:
            fail(f"padding leaks: other values after a row of prepared length {n} change its tokens by {worst:.1e} of "
                 'their magnitude; mask x with `lengths` before anything mixes steps, or state `padding = "none"`')
