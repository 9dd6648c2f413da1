"""A score for each part of a cell, by taking random parts away.

`VARIANTS` of the cell lack a random half of the parts, in pairs of which one has what the other lacks. A linear model of which
parts are there, fitted to what the prediction became (LIME: Ribeiro et al., 2016; here by Captum, all variants weighing the
same), gives each part its score: how much more of the prediction there is with the part than without. On held-out rows this
ranked patches better than taking them away one by one, putting them back one by one, or Shapley sampling with as many variants
(tests/benchmarks/explanations.py compares them). Halves alone gave steadier scores than shares from a quarter to nine tenths:
over two seeds, patches correlated by 0.77, not 0.54.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Game = Callable[[Tensor], Tensor]
"""Which of the P parts are kept, bool `[N, P]` -> the values of C targets, float64 `[N, C]`."""

VARIANTS = 200
BATCH = 32
RIDGE = 10.0
"""Penalty of the squared scores, beside the quarter of `VARIANTS` that each part weighs."""


def attribute(count: int, game: Game, seed: int = 0) -> Tensor:
    """Scores `[C, P]` of `count` parts P; above zero where the part speaks for the prediction."""
    from captum._utils.models.linear_model import SkLearnRidge
    from captum.attr import LimeBase

    kept = masks(count, seed)  # [N, P]
    different, which = torch.unique(kept, dim=0, return_inverse=True)
    values = torch.cat([game(some) for some in torch.split(different, BATCH)])[which]  # [N, C], of all targets at once

    def one_by_one(whole: Tensor) -> Iterator[Tensor]:
        yield from torch.split(kept.float(), 1)

    scores = []
    for target in values.T:
        lime = LimeBase(lambda rows, target=target: target, SkLearnRidge(alpha=RIDGE), lambda *_: 1.0, one_by_one, True,
                        lambda rows, _: rows, None)
        scores.append(lime.attribute(torch.ones(1, count), n_samples=len(kept), perturbations_per_eval=len(kept)).flatten())
    return torch.stack(scores)


def masks(count: int, seed: int) -> Tensor:
    """Which parts each variant keeps, bool `[VARIANTS, P]`."""
    halves = torch.rand(VARIANTS // 2, count, generator=torch.Generator().manual_seed(seed)) < 0.5
    return torch.cat([halves, ~halves])
