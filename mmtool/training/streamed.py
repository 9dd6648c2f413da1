"""The exact way to train a linear head on rows that are too many to load: the problem of `solve`, summed up in stretches.

Each step of L-BFGS passes over all rows, and nothing is kept of them. The principal axes that scale the problem are those of
some rows; they change no solution, only how many steps it takes. Shapes: N rows, D features, K outputs, n rows of a stretch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from mmtool.training import solve
from mmtool.training.solve import Solution

AXES_ROWS = 1 << 14
"""Rows, the first that come, from which the axes are taken."""
PRECISE, DECREASE = 1e-5, 1e-9
"""The least gradient, and the least relative decrease, that stand out from the rounding of float32 products.

With 1e-6 and 1e-15, as in memory, L-BFGS went on for 200 passes with nothing to gain.
"""


@dataclass(frozen=True)
class Stretch:
    """Rows `x`, float32, their losses of outputs `[n, K]`, and the weight of each.

    `x` is `[n, D]`, or where `centred` `[n, D - ones]`: what is left when D features, of which the last are 1, are multiplied
    by their scale. So numbers that are read once are not divided, nor copied.
    """

    x: Tensor
    loss: Callable[[Tensor], Tensor]
    weight: float
    centred: bool = False


class Streamed:
    """As `solve.Problem`; `stretches` gives all rows anew at every call."""

    def __init__(self, stretches: Callable[[], Iterable[Stretch]], outputs: int, scale: Tensor | None = None,
                 ones: int = 0) -> None:
        """`scale [D - ones]` and `ones`: of the stretches that are centred."""
        self.stretches, self.outputs, self.ones = stretches, outputs, ones
        self.factor = torch.zeros(0, dtype=torch.float64) if scale is None else 1 / scale.double()
        total, squares, self.width, seen = 0.0, 0.0, 0, 0
        gram = torch.zeros(0, 0, dtype=torch.float64)
        for part in stretches():
            self.width = part.x.shape[1] + (ones if part.centred else 0)
            total += part.weight * len(part.x)
            squares += part.weight * self._squares(part)
            if seen < AXES_ROWS:
                gram = self._gram(part) if not seen else gram + self._gram(part)
                seen += len(part.x)
        self.total = total
        self.scale = squares / total or 1.0
        values, self.basis = torch.linalg.eigh(gram)  # [D], [D, D]
        self.squares = (values / seen).clamp(min=0)  # [D], of a row along each axis
        self.at = torch.zeros(self.width + 1, outputs, dtype=torch.float64)

    def _squares(self, part: Stretch) -> float:
        """Of all rows, summed."""
        of_each = part.x.square()
        if not part.centred:
            return float(of_each.sum(dtype=torch.float64))
        return float(of_each.sum(0).double() @ self.factor.square()) + self.ones * len(part.x)

    def _gram(self, part: Stretch) -> Tensor:
        """`[D, D]`, float64."""
        own = (part.x.T @ part.x).double()
        if not part.centred:
            return own
        out = torch.full((self.width, self.width), float(len(part.x)), dtype=torch.float64)
        n = len(self.factor)
        out[:n, :n] = own * self.factor * self.factor.unsqueeze(1)
        out[:n, n:] = (part.x.sum(0).double() * self.factor).unsqueeze(1)
        out[n:, :n] = out[:n, n:].T
        return out

    def begin(self, known: Solution) -> None:
        """Start from a solution for other rows."""
        self.at = torch.cat([self.basis.T @ known.weight.T, known.bias.unsqueeze(0)])

    def solve(self, strength: float, tolerance: float = 1e-6) -> Solution:
        """The optimum for λ = strength x mean squared length of a row."""
        penalty = strength * self.scale
        axis = (solve.CURVATURE * self.squares + penalty).sqrt().unsqueeze(1)  # [D, 1]

        def value(p: Tensor) -> tuple[float, Tensor]:
            loss, weight, bias = self._pass(self.basis @ (p[:-1] / axis), p[-1])
            own = p[:-1] / axis
            grad = torch.cat([(self.basis.T @ weight) / axis + penalty * own / axis, bias.unsqueeze(0)])
            return loss + float(penalty / 2 * own.square().sum()), grad

        start = torch.cat([self.at[:-1] * axis, self.at[-1:]])
        p, gradient = solve.minimise(value, start, max(tolerance, PRECISE), DECREASE)
        self.at = torch.cat([p[:-1] / axis, p[-1:]])
        return Solution(strength, (self.basis @ self.at[:-1]).T.contiguous(), self.at[-1].clone(), gradient)

    def _pass(self, weight: Tensor, bias: Tensor) -> tuple[float, Tensor, Tensor]:
        """Mean loss and its gradients by `weight [D, K]` and `bias [K]`, all float64."""
        loss, by_weight, by_bias = 0.0, torch.zeros_like(weight), torch.zeros_like(bias)
        n = len(self.factor)
        plain, folded = weight.float(), (weight[:n] * self.factor.unsqueeze(1)).float()
        ones = weight[n:].sum(0)
        by_folded = torch.zeros(n, len(bias), dtype=torch.float64)
        for part in self.stretches():
            outputs = (part.x @ (folded if part.centred else plain)).double() + bias
            outputs = (outputs + ones if part.centred else outputs).requires_grad_()  # [n, K]
            with torch.enable_grad():
                own = part.loss(outputs).sum() * (part.weight / self.total)
            (grad,) = torch.autograd.grad(own, outputs)
            loss += float(own.detach())
            if part.centred:
                by_folded += part.x.T @ grad.float()
                by_weight[n:] += grad.sum(0)
            else:
                by_weight += part.x.T @ grad.float()
            by_bias += grad.sum(0)
        by_weight[:n] += by_folded * self.factor.unsqueeze(1)
        return loss, by_weight, by_bias
