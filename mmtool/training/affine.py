"""Linear layers of R networks at once, without the copies that `vmap` makes of their weights.

Shapes: R networks, n rows, D features, H outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx


class _Stacked(torch.autograd.Function):
    """`x [R, n, D]`, `w [R, H, D]`, `b [R, H]` -> `[R, n, H]`.

    Fast where `w` lies in memory as `[R, D, H]`; its gradient then lies alike.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.has_bias = b is not None
        wt = w.transpose(1, 2)  # [R, D, H]
        return torch.bmm(x, wt) if b is None else torch.baddbmm(b.unsqueeze(1), x, wt)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, w = ctx.saved_tensors
        g = grads[0].contiguous()  # [R, n, H]
        gx = torch.bmm(g, w) if ctx.needs_input_grad[0] else None
        gw = torch.bmm(x.transpose(1, 2), g).transpose(1, 2) if ctx.needs_input_grad[1] else None
        return gx, gw, g.sum(1) if ctx.has_bias else None


class _Affine(torch.autograd.Function):
    """`torch.nn.functional.linear`, which under vmap becomes `_Stacked`."""

    @staticmethod
    def forward(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return nn.functional.linear(x, w, b)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Any) -> None:
        """Nothing is kept: gradients are taken outside of vmap, where `_Stacked` has its own."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, w: Tensor, b: Tensor | None) -> tuple[Tensor, int]:
        size = info.batch_size
        x = x.movedim(in_dims[0], 0) if in_dims[0] is not None else x.expand(size, *x.shape)
        w = w.movedim(in_dims[1], 0) if in_dims[1] is not None else w.expand(size, *w.shape)
        if b is not None:
            b = b.movedim(in_dims[2], 0) if in_dims[2] is not None else b.expand(size, *b.shape)
        rows = x.shape[1:-1]
        out = _Stacked.apply(x.reshape(size, -1, x.shape[-1]), w, b)
        return out.reshape(size, *rows, w.shape[1]), 0


class Linear(nn.Linear):
    """`nn.Linear` for use under vmap; takes its place and its weights."""

    def forward(self, input: Tensor) -> Tensor:
        out: Tensor = _Affine.apply(input, self.weight, self.bias)
        return out


def put_in(module: nn.Module) -> set[str]:
    """Make every plain nn.Linear within a module a `Linear`; the names of their weights."""
    found = set()
    for name, part in module.named_modules():
        if type(part) is nn.Linear:
            part.__class__ = Linear
            found.add(f"{name}.weight")
    return found
