"""Checks that a fusion survives being saved, run in less precision, and moved to a GPU."""

from __future__ import annotations

import torch

from mmtool.api import Tokens
from mmtool.testing.fusions.subject import FusionSubject, fuse, same, sample, worst
from mmtool.testing.state import CUDA_TOLERANCE, on_cuda, through_bytes
from mmtool.testing.verdicts import fail, skip


def survives_save_and_load(subject: FusionSubject) -> None:
    """State, through safetensors, makes a second instance give the same bits."""
    for case in subject.cases:
        copy = subject.new(case.dims, seed=1)
        missing, unknown = copy.load_state_dict(through_bytes(dict(case.fusion.state_dict())), strict=False)
        if missing or unknown:
            fail(f"load_state_dict misses {sorted(missing)} and does not know {sorted(unknown)}; build in __init__ "
                 "whatever state_dict holds")
        if not same(case.outputs, fuse(copy, sample(case.dims))):
            fail("a copy made from dims, options and state gives another result; register what __init__ draws or "
                 "computes as a parameter or buffer")


def stays_finite_in_bfloat16(subject: FusionSubject) -> None:
    """Under bfloat16 autocast, missing inputs and all, every value is finite."""
    for case in subject.cases:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = fuse(case.fusion, sample(case.dims))
        if not all(bool(t.values.isfinite().all()) for t in outputs.values()):
            fail("under bfloat16 autocast it gave NaN or infinity; take torch.finfo(x.dtype) of the tensor at hand, and "
                 "no constant below 1e-6")


def agrees_on_cuda(subject: FusionSubject) -> None:
    """A GPU gives what the CPU gives, to 1e-3 of each row's largest magnitude, without TF32."""
    if not torch.cuda.is_available():
        skip("no CUDA device")
    for case in subject.cases:
        with on_cuda(case.fusion):
            given = {name: Tokens(t.values.cuda(), t.mask.cuda()) for name, t in sample(case.dims).items()}
            there = fuse(case.fusion, given)
            if not all(t.values.is_cuda and t.mask.is_cuda for t in there.values()):
                fail("forward on CUDA gave tokens on the CPU; make new tensors with device=x.device")
            if (far := worst(case.outputs, there)) > CUDA_TOLERANCE:
                fail(f"CUDA and CPU differ by {far:.1e} of a row's magnitude (allowed: {CUDA_TOLERANCE:.0e})")
