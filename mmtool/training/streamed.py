"""The exact way to train a linear head on rows that are too many to load: the problem of `solve`, summed up in stretches.

Each step of L-BFGS passes over all rows, and nothing is kept of them. The principal axes that scale the problem are those of
some rows; they change no solution, only how many steps it takes. Shapes: N rows, D features, K outputs, n rows of a stretch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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

    `x` are tensors `[n, D_i]` side by side, of D features in all, or where `centred` of D - ones: what is left when D
    features, of which the last are 1, are multiplied by their scale. So numbers that are read once are not divided, nor
    copied.
    """

    x: Sequence[Tensor]
    loss: Callable[[Tensor], Tensor]
    weight: float
    centred: bool = False

    def __len__(self) -> int:
        return len(self.x[0])


class Streamed:
    """As `solve.Problem`, but to be begun first; `stretches` gives all rows anew at every call."""

    def __init__(self, stretches: Callable[[], Iterable[Stretch]], scale: Tensor | None = None, ones: int = 0) -> None:
        """`scale [D - ones]` and `ones`: of the stretches that are centred."""
        self.stretches, self.ones = stretches, ones
        self.factor = torch.zeros(0, dtype=torch.float64) if scale is None else 1 / scale.double()
        total, squares, self.width = 0.0, 0.0, 0
        for part in stretches():
            self.width = sum(x.shape[1] for x in part.x) + (ones if part.centred else 0)
            total += part.weight * len(part)
            squares += part.weight * self._squares(part)
        self.total = total
        self.scale = squares / total or 1.0

    def begin(self, known: Solution) -> None:
        """Start from a solution for other rows, along axes in which each row counts by its curvature there."""
        gram, seen, rows = torch.zeros(self.width, self.width, dtype=torch.float64), 0.0, 0
        for part in self.stretches():
            x = part.x[0] if len(part.x) == 1 else torch.cat([*part.x], 1)
            bends = solve.curvature(part.loss, self._outputs(part, known.weight.T, known.bias))
            gram += part.weight * self._gram(x, bends + solve.EVEN * bends.mean(), centred=part.centred)
            seen += part.weight * len(part)
            rows += len(part)
            if rows >= AXES_ROWS:
                break
        values, self.basis = torch.linalg.eigh(gram)  # [D], [D, D]
        self.curvatures = (values / seen).clamp(min=0)  # [D], of the mean loss along each axis
        self.at = torch.cat([self.basis.T @ known.weight.T, known.bias.unsqueeze(0)])

    def _squares(self, part: Stretch) -> float:
        """Of all rows, summed."""
        if not part.centred:
            return sum(float(x.square().sum(dtype=torch.float64)) for x in part.x)
        of_each = torch.cat([x.square().sum(0) for x in part.x])
        return float(of_each.double() @ self.factor.square()) + self.ones * len(part)

    def _gram(self, x: Tensor, heights: Tensor, *, centred: bool) -> Tensor:
        """Of rows that count as much as `heights [n]` say: `[D, D]`, float64."""
        high = x * heights.float().unsqueeze(1)
        own = (x.T @ high).double()
        if not centred:
            return own
        out = torch.full((self.width, self.width), float(heights.sum()), dtype=torch.float64)
        n = len(self.factor)
        out[:n, :n] = own * self.factor * self.factor.unsqueeze(1)
        out[:n, n:] = (high.sum(0).double() * self.factor).unsqueeze(1)
        out[n:, :n] = out[:n, n:].T
        return out

    def solve(self, strength: float, tolerance: float = 1e-6) -> Solution:
        """The optimum for λ = strength x mean squared length of a row, from where it began."""
        penalty = strength * self.scale
        axis = (self.curvatures + penalty).sqrt().unsqueeze(1)  # [D, 1]

        def value(p: Tensor) -> tuple[float, Tensor]:
            loss, weight, bias = self._pass(self.basis @ (p[:-1] / axis), p[-1])
            own = p[:-1] / axis
            grad = torch.cat([(self.basis.T @ weight) / axis + penalty * own / axis, bias.unsqueeze(0)])
            return loss + float(penalty / 2 * own.square().sum()), grad

        start = torch.cat([self.at[:-1] * axis, self.at[-1:]])
        p, gradient = solve.minimise(value, start, max(tolerance, PRECISE), DECREASE)
        self.at = torch.cat([p[:-1] / axis, p[-1:]])
        return Solution(strength, (self.basis @ self.at[:-1]).T.contiguous(), self.at[-1].clone(), gradient)

    def _outputs(self, part: Stretch, weight: Tensor, bias: Tensor) -> Tensor:
        """`[n, K]`, float64, of `weight [D, K]` and `bias [K]`."""
        n = len(self.factor)
        if part.centred:
            weight, bias = weight[:n] * self.factor.unsqueeze(1), bias + weight[n:].sum(0)
        by_part = torch.split(weight.float(), [x.shape[1] for x in part.x])
        found = part.x[0] @ by_part[0]
        for x, w in zip(part.x[1:], by_part[1:], strict=True):
            found.addmm_(x, w)
        return found.double() + bias

    def _pass(self, weight: Tensor, bias: Tensor) -> tuple[float, Tensor, Tensor]:
        """Mean loss and its gradients by `weight [D, K]` and `bias [K]`, all float64."""
        loss, n, by_bias = 0.0, len(self.factor), torch.zeros_like(bias)
        by_weight = torch.zeros_like(weight.T)  # [K, D], of which rows of a stretch are no transposed product
        by_folded = torch.zeros(len(bias), n, dtype=torch.float64)
        for part in self.stretches():
            outputs = self._outputs(part, weight, bias).requires_grad_()
            with torch.enable_grad():
                own = part.loss(outputs).sum() * (part.weight / self.total)
            (grad,) = torch.autograd.grad(own, outputs)
            loss += float(own.detach())
            start, narrow = 0, grad.T.float()
            for x in part.x:
                (by_folded if part.centred else by_weight)[:, start : start + x.shape[1]] += narrow @ x
                start += x.shape[1]
            if part.centred:
                by_weight[:, n:] += grad.sum(0).unsqueeze(1)
            by_bias += grad.sum(0)
        by_weight[:, :n] += by_folded * self.factor
        return loss, by_weight.T, by_bias
