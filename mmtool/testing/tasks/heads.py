"""Checks of heads and loss: outputs, a loss a row, gradients, and whether a linear task is one."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mmtool.api import Task
from mmtool.testing.compare import FLOAT32_TOLERANCE, same_bits
from mmtool.testing.state import CUDA_TOLERANCE, on_cuda, through_bytes
from mmtool.testing.tasks.subject import FUSED, TOWERS, TaskSubject, pad, run
from mmtool.testing.verdicts import fail, skip

LINES = 20
CONVEX_TOLERANCE = 1e-9


def builds_heads(subject: TaskSubject) -> None:
    """`build` makes `heads`, one for `fused` or for each tower, and `outputs` gives floating `[N, K]` for each."""
    widths = set()
    for dims in (FUSED, TOWERS, dict(reversed(TOWERS.items()))):
        task = subject.with_heads(subject.fitted(), dims)
        heads = getattr(task, "heads", None)
        if not isinstance(heads, nn.ModuleList) or len(heads) != len(dims):
            fail(f"build({dims}) must set self.heads = nn.ModuleList(... for name in sorted(dims)), one head for each")
        outputs = run(task, subject.tokens(dims, missing=True))
        if sorted(outputs) != sorted(dims):
            fail(f"outputs must have an entry for each of {sorted(dims)}, it has {sorted(outputs)}")
        for name, out in outputs.items():
            if out.ndim != 2 or len(out) != len(subject.targets) or not out.is_floating_point():
                fail(f"the outputs of {name!r} must be floating [B, K], here [{len(subject.targets)}, K], they are "
                     f"{out.dtype} {list(out.shape)}")
            if not bool(out.isfinite().all()):
                fail(f"the outputs of {name!r} hold NaN or infinity, where a row has no input; use Tokens.mean()")
            widths.add(out.shape[1])
    if len(widths) > 1:
        fail(f"every head must have the same number of outputs, they have {sorted(widths)}")


def gives_a_loss_a_row(subject: TaskSubject) -> None:
    """`loss` gives finite `[B]`, in the outputs' own precision; a row alone and in a batch has the same, to 1e-5."""
    task, outputs, (y, lengths) = subject.task, subject.outputs, subject.encoded
    losses = task.loss(outputs, y, lengths)
    if not isinstance(losses, Tensor) or losses.shape != (len(y),):
        given = list(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        fail(f'loss must return a loss for each row, [{len(y)}], it returned {given}; use reduction="none" and a mean over '
             "a row's own values")
    if not bool(losses.isfinite().all()):
        fail("loss gave NaN or infinity")
    exact = task.loss(outputs.double(), y, lengths)
    if exact.dtype != torch.float64:
        fail(f"for float64 outputs loss must be float64, it is {exact.dtype}; bring targets and weights to the outputs' "
             "type with y.to(outputs)")
    for i, target in enumerate(subject.targets):
        alone = task.loss(outputs[i : i + 1], *pad([task.encode(target)]))
        if float((alone - losses[i]).abs().max()) > FLOAT32_TOLERANCE * max(1.0, float(losses.abs().max())):
            fail(f"a row's loss is {float(losses[i]):.6g} in a batch and {float(alone):.6g} alone; take no statistic over "
                 "the batch, and leave out what lies behind `lengths`")


def gradients_reach_every_head(subject: TaskSubject) -> None:
    """In training mode a loss on every head has a finite gradient in every parameter."""
    task = subject.with_heads(subject.fitted(), TOWERS).train()
    losses = [task.loss(out, *subject.encoded) for out in task.outputs(subject.tokens(TOWERS, missing=True)).values()]
    total = torch.stack(losses).sum()
    if not total.requires_grad:
        fail("no gradient goes through outputs and loss; leave out detach, no_grad and argmax")
    total.backward()  # type: ignore[no-untyped-call]
    for name, p in task.named_parameters():
        if p.requires_grad and p.grad is None:
            fail(f"no gradient reaches {name!r}; use it in `outputs` or `loss`, or leave it out")
        if p.grad is not None and not bool(p.grad.isfinite().all()):
            fail(f"the gradient of {name!r} holds NaN or infinity")


def is_linear_as_stated(subject: TaskSubject) -> None:
    """`linear = True`: each head is one nn.Linear on the pooled tokens, and the loss is convex in the outputs."""
    task, (y, lengths) = subject.task, subject.encoded
    if not task.linear:
        skip("it does not state linear = True")
    head, x = task.heads[0], subject.tokens(FUSED)["fused"]
    if not isinstance(head, nn.Linear) or head.bias is None:
        fail(f"linear = True, but a head is {type(head).__name__}; make it nn.Linear(D, K) with a bias, or state False")
    with torch.no_grad():
        if not torch.equal(head(x.mean()), run(task, {"fused": x})["fused"]):
            fail("linear = True, but `outputs` is not the head of the pooled tokens; leave the default, or state False")
    generator = torch.Generator().manual_seed(0)
    for scale in (0.1, 1.0, 10.0):
        for _ in range(LINES):
            a, b = (scale * torch.randn(subject.outputs.shape, generator=generator, dtype=torch.float64) for _ in range(2))
            ends = (task.loss(a, y, lengths) + task.loss(b, y, lengths)) / 2
            over = (task.loss((a + b) / 2, y, lengths) - ends) / ends.abs().clamp(min=1)
            if not float(over.max()) <= CONVEX_TOLERANCE:
                fail(f"linear = True, but the loss is not convex: between two outputs it is {float(over.max()):.1e} above "
                     "the line; state linear = False, and it is trained by gradient descent")


def survives_save_and_load(subject: TaskSubject) -> None:
    """Assets and state, through safetensors, make a second instance predict the same."""
    task, copy = subject.task, subject.new(seed=1)
    copy.set_assets(through_bytes(task.assets()))
    subject.with_heads(copy, FUSED, seed=1)
    missing, unknown = copy.load_state_dict(through_bytes(dict(task.state_dict())), strict=False)
    if missing or unknown:
        fail(f"after set_assets and build, load_state_dict misses {sorted(missing)} and does not know {sorted(unknown)}")
    x = subject.tokens(FUSED)
    if not same_bits(run(task, x)["fused"], run(copy, x)["fused"]):
        fail("a copy made from options, assets and state gives other outputs; register what `build` draws or computes as a "
             "parameter or buffer")
    if task.decode(subject.outputs) != copy.decode(subject.outputs):
        fail("a copy made from options, assets and state decodes otherwise; give what `fit` learned in `assets`")


def agrees_on_cuda(subject: TaskSubject) -> None:
    """A GPU gives the CPU's losses, to 1e-3, and outputs that lie there can be decoded."""
    if not torch.cuda.is_available():
        skip("no CUDA device")
    task, outputs, (y, lengths) = subject.task, subject.outputs, subject.encoded
    expected = task.loss(outputs, y, lengths)
    with on_cuda(task):
        there = _loss_there(task, outputs, y, lengths)
        decoded = task.decode(outputs.cuda())
    if not math.isclose(float((there.cpu() - expected).abs().max()), 0, abs_tol=CUDA_TOLERANCE * float(expected.abs().max())):
        fail("CUDA and CPU give different losses")
    if len(decoded) != len(outputs):
        fail("decode gives other rows for outputs on CUDA")


def _loss_there(task: Task, outputs: Tensor, y: Tensor, lengths: Tensor) -> Tensor:
    losses = task.loss(outputs.cuda(), y.cuda(), lengths.cuda())
    if not losses.is_cuda:
        fail("loss on CUDA gave a tensor on the CPU; make new tensors with device=outputs.device")
    return losses
