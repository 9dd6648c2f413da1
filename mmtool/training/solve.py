"""The exact way to train a linear head: an L2-regularised convex problem, solved by full-batch L-BFGS.

For targets y and features x it minimises mean_i w_i loss(W x_i + b, y_i) + λ/2 ‖W‖², the bias left free. Solutions lie in
the span of the rows, so the problem is first rotated to its principal axes; there the Hessian is nearly diagonal, and
scaling each axis by that diagonal leaves L-BFGS few steps. All on one thread, so that bits do not depend on the machine's.

Shapes: N rows, D features, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from mmtool.training import lbfgs

Loss = Callable[[Tensor], Tensor]
"""Outputs `[N, K]` -> losses `[N]`."""

STRENGTHS = tuple(10 ** (-e / 2) for e in range(2, 15))
"""λ in units of the mean squared length of a row, from strong to weak."""
ITERATIONS = 2000
AHEAD = 0.8
"""How far along the last step of the path, of one strength to the next, the next solution is looked for."""
EVEN, PROBES, NEAR = 0.1, 4, 1e-4
"""Of a row's curvature: the share of the mean that every row gets, and the differences by which it is found."""
MOST_NUMBERS = 1 << 24
"""That the steps of all problems which are solved at once may hold."""
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

    def __init__(self, x: Tensor, loss: Loss, outputs: int, weights: Tensor | None = None, *,
                 narrow: bool = False) -> None:
        """`narrow`: products of the rows in float32, which is enough for a tolerance of 1e-4, and half the memory."""
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
        self.z = self.z.float() if narrow else self.z
        self.at = torch.zeros(self.z.shape[1] + 1, outputs, dtype=torch.float64)
        self.before: list[Tensor] = []
        """Where it was for the strengths before, the last two."""

    def solve(self, strength: float, tolerance: float = 1e-6) -> Solution:
        """The optimum for λ = strength x mean squared length of a row; stops where no gradient exceeds `tolerance`."""
        return together([self], strength, tolerance)[0]

    def begin(self, known: Sequence[Solution]) -> None:
        """Start from the mean of solutions for rows that are alike, and take the axes anew, each row weighted by its curvature.

        Where most rows are fitted well, and say little more, those axes leave a fifth of the steps.
        """
        weight, bias = (torch.stack(each).mean(0) for each in zip(*((s.weight, s.bias) for s in known), strict=True))
        along = self.basis.T @ (weight.T if self.rows is None else self.rows @ weight.T)
        bends = curvature(self.loss, torch.addmm(bias, self.z, along))
        heights = self.weights * (bends + EVEN * bends.mean())
        values, turn = torch.linalg.eigh(self.z.T @ (self.z * heights.unsqueeze(1)))
        self.z, self.basis = self.z @ turn, self.basis @ turn
        self.squares = values.clamp(min=0) / CURVATURE
        self.at = torch.cat([turn.T @ along, bias.unsqueeze(0)])

    def ahead(self) -> None:
        """Start the next strength of a path where its last two solutions point to."""
        self.before = [*self.before[-1:], self.at]
        if len(self.before) == 2 and bool(self.before[0].any()):
            self.at = self.at + AHEAD * (self.at - self.before[0])

    def _solution(self, strength: float, gradient: float) -> Solution:
        weight = self.basis @ self.at[:-1]
        weight = (weight if self.rows is None else self.rows.T @ weight).T.contiguous()  # [K, D]
        return Solution(strength, weight, self.at[-1].clone(), gradient)


def curvature(loss: Loss, outputs: Tensor) -> Tensor:
    """Each row's second derivative, the mean over outputs, `[N]`, by differences along random signs (Hutchinson, 1990)."""
    signs = torch.randint(0, 2, (PROBES, *outputs.shape), generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    found = torch.zeros(len(outputs), dtype=torch.float64)
    for sign in signs:
        ends = [(outputs + way * NEAR * sign).requires_grad_() for way in (1, -1)]
        with torch.enable_grad():
            up, down = torch.autograd.grad([loss(end).sum() for end in ends], ends)
        found += (sign * (up - down)).mean(1) / (2 * NEAR * PROBES)
    return found.clamp(min=0)


def together(problems: Sequence[Problem], strength: float, tolerance: float) -> list[Solution]:
    """Each problem's optimum, as many at once as MOST_NUMBERS allow."""
    most = max(p.at.numel() for p in problems) if problems else 1
    step = max(1, MOST_NUMBERS // (2 * lbfgs.MEMORY * most))
    return [found for at in range(0, len(problems), step) for found in _together(problems[at : at + step], strength, tolerance)]


def _together(problems: Sequence[Problem], strength: float, tolerance: float) -> list[Solution]:
    penalties = [strength * p.scale for p in problems]
    axes = [(CURVATURE * p.squares + penalty).sqrt().unsqueeze(1) for p, penalty in zip(problems, penalties, strict=True)]
    most = max(p.at.numel() for p in problems)  # M

    def value(points: Tensor, numbers: list[int]) -> tuple[Tensor, Tensor]:
        own, outputs = list[Tensor](), list[Tensor]()
        gradient = torch.zeros(len(numbers), most, dtype=torch.float64)
        for point, n in zip(points, numbers, strict=True):
            p = problems[n]
            at = point[: p.at.numel()].view(p.at.shape)
            own.append(at[:-1] / axes[n])  # [r, K]
            outputs.append((at[-1] + (p.z @ own[-1].to(p.z)).double()).requires_grad_())  # [N, K]
        with torch.enable_grad():
            losses = [problems[n].weights @ problems[n].loss(out) for n, out in zip(numbers, outputs, strict=True)]
            grads = torch.autograd.grad(losses, outputs)
        for row, n, w, grad in zip(gradient, numbers, own, grads, strict=True):
            p = problems[n]
            by = row[: p.at.numel()].view(p.at.shape)
            by[:-1] = w.mul(penalties[n]).add_(p.z.T @ grad.to(p.z)).div_(axes[n])
            by[-1] = grad.sum(0)
        squares = torch.stack([penalties[n] / 2 * w.square().sum() for n, w in zip(numbers, own, strict=True)])
        return torch.stack(losses).detach() + squares, gradient

    start = torch.zeros(len(problems), most, dtype=torch.float64)
    for row, p, axis in zip(start, problems, axes, strict=True):
        row[: p.at.numel()] = torch.cat([p.at[:-1] * axis, p.at[-1:]]).flatten()
    found, largest = lbfgs.minimise(value, start, tolerance, ITERATIONS, narrow=problems[0].z.dtype == torch.float32)
    solutions = []
    for row, p, axis, gradient in zip(found, problems, axes, largest.tolist(), strict=True):
        at = row[: p.at.numel()].view(p.at.shape)
        p.at = torch.cat([at[:-1] / axis, at[-1:]])
        solutions.append(p._solution(strength, gradient))
    return solutions


def minimise(value: Callable[[Tensor], tuple[float, Tensor]], start: Tensor, tolerance: float,
             decrease: float = 1e-15) -> tuple[Tensor, float]:
    """L-BFGS from `start`, float64: where it ended, and the gradient's largest entry there. `value`: with its gradient.

    It ends where no gradient exceeds `tolerance`, or where a step takes less than `decrease` of the value off it.
    """
    from scipy.optimize import minimize  # half a second, and only rows that stay in their files need it

    def flat(p: Any) -> tuple[float, Any]:
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
        for p in problems:
            p.ahead()
        found = together(problems, strength, 1e-4)
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
