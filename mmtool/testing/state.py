"""Checks that an encoder survives being saved, moved to a GPU, and run inside a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from safetensors.torch import load, save
from torch import Tensor

from mmtool import encoding
from mmtool.testing.compare import difference, same_bits, same_tokens
from mmtool.testing.subject import Subject, forward, prepare_all
from mmtool.testing.verdicts import fail, skip

CUDA_TOLERANCE = 1e-3


def survives_save_and_load(subject: Subject) -> None:
    """State and assets, through safetensors, make a second instance give the same bits, without `load` or `fit`."""
    encoder = subject.encoder
    if encoder.weights_sha256 is not None:
        skip("its weights are outside state_dict: it cannot be fine-tuned, nor bundled with a model")
    copy = subject.new(seed=1)
    copy.set_assets(_through_bytes(encoder.assets()))
    missing, unknown = copy.load_state_dict(_through_bytes(dict(encoder.state_dict())), strict=False)
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


def _through_bytes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            fail(f"{name!r} of the state or assets must be a tensor (text as uint8), it is {type(tensor).__name__}")
    return load(save({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}))


def agrees_on_cuda(subject: Subject) -> None:
    """A GPU gives what the CPU gives, to 1e-3 of each row's largest magnitude, without TF32."""
    if not torch.cuda.is_available():
        skip("no CUDA device")
    if subject.encoder.weights_sha256 is not None:
        skip("its weights are outside torch")
    expected = subject.outputs
    with _on_cuda(subject):
        for batch, tokens in zip(subject.batches, expected, strict=True):
            x, lengths = encoding.pad([subject.prepared[i] for i in batch])
            there = forward(subject.encoder, x.cuda(), lengths.cuda())
            if not (there.values.is_cuda and there.mask.is_cuda):
                fail("forward on CUDA gave tokens on the CPU; make new tensors with device=x.device")
            worst = max(difference(a, b) for a, b in zip(tokens.rows(), there.rows(), strict=True))
            if worst > CUDA_TOLERANCE:
                fail(f"CUDA and CPU differ by {worst:.1e} of a row's magnitude (allowed: {CUDA_TOLERANCE:.0e})")


@contextmanager
def _on_cuda(subject: Subject) -> Iterator[None]:
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        subject.encoder.to("cuda")
        yield
    finally:
        subject.encoder.to("cpu")
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32


def prints_nothing(subject: Subject) -> None:
    """Nothing goes to stdout, where the user's results go."""
    subject.outputs  # noqa: B018  builds, loads, prepares and runs it, if no check did before
    if printed := "".join(subject.printed):
        fail(f"it printed {printed[:80]!r} on stdout, which is for results; use logging, or stderr")
