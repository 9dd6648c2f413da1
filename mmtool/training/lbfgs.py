"""L-BFGS for several smooth convex problems at once: one step of all costs few calls, each of little arithmetic.

Shapes: B problems of M numbers each (shorter ones end in zeros), m remembered steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Value = Callable[[Tensor, list[int]], tuple[Tensor, Tensor]]
"""Points `[b, M]` and the numbers of their problems -> losses `[b]` and gradients `[b, M]`."""

MEMORY = 20
ENOUGH, FLAT = 1e-4, 0.9
"""Of the weak Wolfe conditions: how much a step must gain, and by how much the slope must fall."""
ROUNDING, NARROW = 1e-12, 1e-7
"""Of a loss, and of one that comes from float32 products: smaller differences tell nothing, and the slopes are asked instead
(Hager and Zhang, 2005)."""
TRIALS = 40


class _Steps:
    """The last steps of each problem, and what they say of its curvature (the compact form of Byrd et al., 1994)."""

    def __init__(self, count: int, width: int) -> None:
        self.moves, self.bends = (torch.zeros(count, MEMORY, width, dtype=torch.float64) for _ in range(2))  # S, Y
        self.mixed, self.inner = (torch.zeros(count, MEMORY, MEMORY, dtype=torch.float64) for _ in range(2))  # S Yᵀ, Y Yᵀ
        self.taken = 0

    def add(self, move: Tensor, bend: Tensor) -> None:
        """A step `[B, M]` of every problem and what it changed of the gradient."""
        at, used = self.taken % MEMORY, min(self.taken + 1, MEMORY)
        self.moves[:, at], self.bends[:, at] = move, bend
        self.mixed[:, :used, at] = _times(self.moves[:, :used], bend)
        self.mixed[:, at, :used] = _times(self.bends[:, :used], move)
        self.inner[:, :used, at] = self.inner[:, at, :used] = _times(self.bends[:, :used], bend)
        self.taken += 1

    def direction(self, gradient: Tensor) -> Tensor:
        """Downhill, `[B, M]`; at first a step no longer than one."""
        if not self.taken:
            length: Tensor = gradient.square().sum(1, keepdim=True).sqrt().clamp(min=1)
            return -gradient / length
        used = min(self.taken, MEMORY)
        order = [i % MEMORY for i in range(self.taken - used, self.taken)]  # old to new
        moves, bends = self.moves[:, :used], self.bends[:, :used]
        mixed, inner = self.mixed[:, order][:, :, order], self.inner[:, order][:, :, order]
        gamma = (mixed[:, -1, -1] / inner[:, -1, -1]).view(-1, 1)
        upper = mixed.triu()
        first = torch.linalg.solve_triangular(upper, _times(moves, gradient)[:, order].unsqueeze(2), upper=True)
        second = mixed.diagonal(dim1=1, dim2=2).unsqueeze(2) * first
        second += gamma.unsqueeze(2) * (inner @ first - _times(bends, gradient)[:, order].unsqueeze(2))
        second = torch.linalg.solve_triangular(upper.mT, second, upper=False)
        by_move, by_bend = torch.empty(2, *first.shape[:2], dtype=torch.float64)
        by_move[:, order], by_bend[:, order] = second.squeeze(2), gamma * first.squeeze(2)
        return _sum(bends, by_bend) - _sum(moves, by_move) - gamma * gradient

    def keep(self, these: Tensor) -> None:
        """Forget the other problems."""
        self.moves, self.bends = self.moves[these], self.bends[these]
        self.mixed, self.inner = self.mixed[these], self.inner[these]


def minimise(value: Value, start: Tensor, tolerance: float, iterations: int, *,
             narrow: bool = False) -> tuple[Tensor, Tensor]:
    """From `start [B, M]`, float64: where no gradient of a problem exceeds `tolerance`, and its largest entry there, `[B]`."""
    ended, largest = start.clone(), torch.zeros(len(start), dtype=torch.float64)
    numbers, at = list(range(len(start))), start
    losses, gradient = value(at, numbers)
    steps = _Steps(*start.shape)
    for _ in range(iterations):
        open_ = gradient.abs().amax(1) > tolerance
        if not bool(open_.all()):
            _end(ended, largest, numbers, at, gradient)
            these = open_.nonzero().flatten()
            numbers = [numbers[i] for i in these.tolist()]
            at, losses, gradient = at[these], losses[these], gradient[these]
            steps.keep(these)
        if not numbers:
            break
        direction = steps.direction(gradient)
        new, found, bent, stuck = _search(value, numbers, at, losses, gradient, direction, NARROW if narrow else ROUNDING)
        if stuck:  # rounding leaves nothing to gain there
            _end(ended, largest, numbers, new, bent)
            these = torch.tensor([i for i in range(len(numbers)) if i not in stuck], dtype=torch.int64)
            numbers = [numbers[i] for i in these.tolist()]
            at, gradient, new, found, bent = (of[these] for of in (at, gradient, new, found, bent))
            steps.keep(these)
            if not numbers:
                break
        steps.add(new - at, bent - gradient)
        at, losses, gradient = new, found, bent
    _end(ended, largest, numbers, at, gradient)
    return ended, largest


def _search(value: Value, numbers: list[int], at: Tensor, losses: Tensor, gradient: Tensor,
            direction: Tensor, rounding: float) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Where a step along `direction` ends that gains enough, its losses and gradients, by halving and doubling.

    The last are the rows of `at` that find no such step, and stay where they are.
    """
    new, found, bent = at.clone(), losses.clone(), gradient.clone()
    before = (gradient * direction).sum(1).tolist()  # slopes, below 0
    begun = losses.tolist()
    size, low, high = [1.0] * len(at), [0.0] * len(at), [0.0] * len(at)
    trying = list(range(len(at)))
    for _ in range(TRIALS):
        every = len(trying) == len(at)
        along = direction if every else direction[trying]
        tried = (at if every else at[trying]) + torch.tensor([size[i] for i in trying], dtype=torch.float64).view(-1, 1) * along
        loss, slope = value(tried, [numbers[i] for i in trying])
        if every:
            new, found, bent = tried, loss, slope
        else:
            new[trying], found[trying], bent[trying] = tried, loss, slope
        again = []
        for i, now, after in zip(trying, loss.tolist(), (slope * along).sum(1).tolist(), strict=True):
            gained = now <= begun[i] + ENOUGH * size[i] * before[i]
            even = now <= begun[i] + rounding * abs(begun[i]) and after <= (2 * ENOUGH - 1) * before[i]
            if not gained and not even:
                high[i] = size[i]
            elif after < FLAT * before[i]:
                low[i] = size[i]
            else:
                continue
            size[i] = (low[i] + high[i]) / 2 if high[i] else 2 * size[i]
            again.append(i)
        trying = again
        if not trying:
            return new, found, bent, []
    new[trying], found[trying], bent[trying] = at[trying], losses[trying], gradient[trying]
    return new, found, bent, trying


def _end(ended: Tensor, largest: Tensor, numbers: list[int], at: Tensor, gradient: Tensor) -> None:
    if numbers:
        ended[numbers], largest[numbers] = at, gradient.abs().amax(1)


def _times(rows: Tensor, one: Tensor) -> Tensor:
    """`[B, m, M]` and `[B, M]` -> `[B, m]`."""
    return torch.stack([torch.mv(a, b) for a, b in zip(rows, one, strict=True)])


def _sum(rows: Tensor, shares: Tensor) -> Tensor:
    """`[B, m, M]` and `[B, m]` -> `[B, M]`."""
    return torch.stack([torch.mv(a.T, b) for a, b in zip(rows, shares, strict=True)])
