"""Checks that an encoder survives being saved and moved to a GPU."""

from __future__ import annotations

import torch

from mmtool import encoding
from mmtool.testing.compare import difference, same_bits, same_tokens
from mmtool.testing.encoders.subject import EncoderSubject, forward, prepare_all
from mmtool.testing.state import CUDA_TOLERANCE, on_cuda, through_bytes
from mmtool.testing.verdicts import fail, skip


def survives_save_and_load(subject: EncoderSubject) -> None:
    """State and assets, through safetensors, make a second instance give the same bits, without `load` or `fit`."""
    encoder = subject.encoder
    if encoder.weights_sha256 is not None:
        skip("its weights are outside state_dict: it cannot be fine-tuned, nor bundled with a model")
    copy = subject.new(seed=1)
    copy.set_assets(through_bytes(encoder.assets()))
    missing, unknown = copy.load_state_dict(through_bytes(dict(encoder.state_dict())), strict=False)
    if missing or unknown:
        fail(f"after set_assets, load_state_dict misses {sorted(missing)} and does not know {sorted(unknown)}; build in "
             "__init__ or set_assets whatever state_dict holds")
    copy.eval()
    again = [x for x in prepare_all(copy, subject.cells) if x is not None]
    if len(again) != len(subject.prepared) or not all(map(same_bits, subject.prepared, again)):
        fail("a copy made from options, assets and state prepares cells otherwise; give what `fit` or `load` learnt in "
             "`assets`, and take it in `set_assets`")
    for batch, tokens in zip(subject.batches, subject.outputs, strict=True):
        if not same_tokens(tokens, subject.run(batch, copy)):
            fail("a copy made from options, assets and state gives other tokens; register what __init__, `load` or "
                 "`fit` fills as a parameter or buffer, or give it in `assets`")


def agrees_on_cuda(subject: EncoderSubject) -> None:
    """A GPU gives what the CPU gives, to 1e-3 of each row's largest magnitude, without TF32."""
    if not torch.cuda.is_available():
        skip("no CUDA device")
    if subject.encoder.weights_sha256 is not None:
        skip("its weights are outside torch")
    expected = subject.outputs
    with on_cuda(subject.encoder):
        for batch, tokens in zip(subject.batches, expected, strict=True):
            x, lengths = encoding.pad([subject.prepared[i] for i in batch])
            there = forward(subject.encoder, x.cuda(), lengths.cuda())
            if not (there.values.is_cuda and there.mask.is_cuda):
                fail("forward on CUDA gave tokens on the CPU; make new tensors with device=x.device")
            worst = max(difference(a, b) for a, b in zip(tokens.rows(), there.rows(), strict=True))
            if worst > CUDA_TOLERANCE:
                fail(f"CUDA and CPU differ by {worst:.1e} of a row's magnitude (allowed: {CUDA_TOLERANCE:.0e})")
