"""Checks that every weight of a fusion is trained, and that missing inputs do not spoil that."""

from __future__ import annotations

import torch
from torch import Tensor

from mmtool.api import Fusion, Tokens
from mmtool.testing.fusions.subject import SEVERAL, FusionSubject, Inputs, named, sample
from mmtool.testing.verdicts import fail


def gradients_reach_every_parameter(subject: FusionSubject) -> None:
    """In training mode a loss on the result has a finite gradient in every parameter."""
    fusion = subject.fitted()
    _descend(fusion, sample(SEVERAL, missing=False))
    for name, p in fusion.named_parameters():
        if p.requires_grad and p.grad is None:
            fail(f"no gradient reaches {name!r}; use it in forward, without detach, no_grad or argmax, or leave it out")
        if p.grad is not None and not bool(p.grad.isfinite().all()):
            fail(f"the gradient of {name!r} holds NaN or infinity, though every input is there")


def gradients_stay_finite_where_missing(subject: FusionSubject) -> None:
    """So it has where some or all inputs of a row are missing, and in the inputs too."""
    fusion, given = subject.fitted(), sample(SEVERAL)
    _descend(fusion, given)
    found = {f"the weight {name!r}": p.grad for name, p in fusion.named_parameters()}
    found |= {f"the input {name!r}": t.values.grad for name, t in given.items()}
    for name, grad in found.items():
        if grad is not None and not bool(grad.isfinite().all()):
            fail(f"the gradient of {name} holds NaN or infinity where inputs are missing, though the result is finite; put "
                 "something harmless in their place before sqrt, log or a division, torch.where after it is too late")


def _descend(fusion: Fusion, given: Inputs) -> None:
    fusion.train()
    for tokens in given.values():
        tokens.values.requires_grad_()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        outputs = named(fusion, fusion(given))
        total = torch.stack([_loss(outputs[name]) for name in sorted(outputs)]).sum()
        if fusion.returns == "towers":
            scores = {name: outputs[name].mean()[:, :3].softmax(-1) for name in sorted(outputs)}
            total = total + _weighted(fusion.combine(scores, {name: t.present for name, t in given.items()}))
    if not total.requires_grad:
        fail("no gradient goes through forward; leave out detach and no_grad")
    total.backward()  # type: ignore[no-untyped-call]


def _loss(tokens: Tokens) -> Tensor:
    return _weighted(tokens.values.masked_fill(~tokens.mask.unsqueeze(-1), 0))


def _weighted(x: Tensor) -> Tensor:
    return (x.square() * torch.rand(x.shape)).sum()
