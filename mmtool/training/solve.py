"""The exact way to train a linear head: an L2-regularised convex problem, solved in float64 by full-batch L-BFGS.

For targets y and features x it minimises mean_i w_i loss(W x_i + b, y_i) + λ/2 ‖W‖², the bias left free. Solutions lie in
the span of the rows, so the problem is first rotated to its principal axes; there the Hessian is nearly diagonal, and
scaling each axis by that diagonal leaves L-BFGS few steps. All on one thread, so that bits do not depend on the machine's.

Shapes: N rows, D features, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits
from torch import Tensor

from mmtool.metrics.grouping import Array

Loss = Callable[[Tensor], Tensor]
"""Outputs `[N, K]` -> losses `[N]`."""

STRENGTHS = tuple(10 ** (-e / 2) for e in range(2, 15))
"""λ in units of the mean squared length of a row, from strong to weak."""
ITERATIONS = 2000
CURVATURE = 0.1
"""About the second derivative of a cross-entropy; scales the axes, and changes no solution."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Arithmetic on one thread: bits then do not depend on the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Solution:
    """One head: `weight [K, D]` and `bias [K]`, float64, with the gradient's largest entry where it stopped."""

    strength: float
    weight: Tensor
    bias: Tensor
    gradient: float

    def outputs(self, x: Tensor) -> Tensor:
        """`x [N, D]` -> `[N, K]`."""
        return x.double() @ self.weight.T + self.bias


class Problem:
    """Rows and their losses, ready to be solved for several strengths, each from where the last one ended."""

    def __init__(self, x: Tensor, loss: Loss, outputs: int, weights: Tensor | None = None) -> None:
        x = x.double()
        self.loss, self.outputs = loss, outputs
        self.weights = torch.ones(len(x), dtype=torch.float64) if weights is None else weights.double()
        self.weights = self.weights / self.weights.sum()  # [N]
        self.scale = float((self.weights * x.square().sum(1)).sum()) or 1.0
        wide = x.shape[0] < x.shape[1]
        values, vectors = torch.linalg.eigh(x @ x.T if wide else x.T @ x)  # x = U S Vᵀ; U S² Uᵀ, or V S² Vᵀ
        kept = values > values[-1] * 1e-12
        s, vectors = values[kept].sqrt(), vectors[:, kept]
        self.rows = x if wide else None
        self.basis = vectors / s if wide else vectors  # U / S [N, r], of which Xᵀ U / S is V; or V [D, r], orthonormal
        self.z = vectors * s if wide else x @ vectors  # [N, r]
        self.squares = (self.weights.unsqueeze(1) * self.z.square()).sum(0)  # [r]
        self.at = torch.zeros(self.z.shape[1] + 1, outputs, dtype=torch.float64)

    def solve(self, strength: float, tolerance: float = 1e-6) -> Solution:
        """The optimum for λ = strength x mean squared length of a row; stops where no gradient exceeds `tolerance`."""
        penalty = strength * self.scale
        axis = (CURVATURE * self.squares + penalty).sqrt().unsqueeze(1)  # [r, 1]
        z = self.z / axis.T
        shrink = penalty / axis.square()  # [r, 1]

        def value(p: Tensor) -> tuple[float, Tensor]:
            outputs = torch.addmm(p[-1], z, p[:-1]).requires_grad_()  # [N, K]
            with torch.enable_grad():
                total = self.weights @ self.loss(outputs)
            (grad,) = torch.autograd.grad(total, outputs)
            own = shrink * p[:-1]
            return total.item() + float(own.flatten() @ p[:-1].flatten()) / 2, torch.cat([z.T @ grad + own, grad.sum(0, True)])

        p, gradient = minimise(value, torch.cat([self.at[:-1] * axis, self.at[-1:]]), tolerance)
        self.at = torch.cat([p[:-1] / axis, p[-1:]])
        weight = self.basis @ self.at[:-1]
        weight = (weight if self.rows is None else self.rows.T @ weight).T.contiguous()  # [K, D]
        return Solution(strength, weight, self.at[-1].clone(), gradient)


def minimise(value: Callable[[Tensor], tuple[float, Tensor]], start: Tensor, tolerance: float,
             decrease: float = 1e-15) -> tuple[Tensor, float]:
    """L-BFGS from `start`, float64: where it ended, and the gradient's largest entry there. `value`: with its gradient.

    It ends where no gradient exceeds `tolerance`, or where a step takes less than `decrease` of the value off it.
    """

    def flat(p: Array) -> tuple[float, Array]:
        loss, grad = value(torch.from_numpy(p).view(start.shape))
        return loss, grad.numpy().ravel()

    found = minimize(flat, start.numpy().ravel(), jac=True, method="L-BFGS-B",
                     options={"maxiter": ITERATIONS, "maxfun": 2 * ITERATIONS, "gtol": tolerance, "ftol": decrease,
                              "maxcor": 20})
    return torch.from_numpy(found.x.copy()).view(start.shape), float(np.abs(found.jac).max())


def choose(problems: Sequence[Problem], held: Sequence[Callable[[Solution], Tensor]],
           strengths: Sequence[float] = STRENGTHS) -> tuple[float, list[Solution], list[tuple[float, float]]]:
    """The strength with the least mean loss on held-out rows, each problem's solution for it, and every loss on the way.

    `held` gives the losses `[N']` of each problem's held-out rows. The path goes from strong to weak and ends where the
    loss has risen three times in a row. Without a held-out row it is empty, and the strongest is taken.
    """
    best, worse = (float("inf"), strengths[0], list[Solution]()), 0
    path: list[tuple[float, float]] = []
    for strength in strengths:
        found = [p.solve(strength, 1e-4) for p in problems]
        losses = torch.cat([torch.zeros(0), *(of(s) for of, s in zip(held, found, strict=True))])
        if not len(losses):
            return strength, found, path
        mean = float(losses.mean())
        path.append((strength, mean))
        if mean < best[0]:
            best, worse = (mean, strength, found), 0
        else:
            worse += 1
            if worse == 3:
                break
    return best[1], best[2], path
