"""A score for each part of a cell, by taking random halves of the parts away.

Of a cell with few parts every subset is tried, of another `VARIANTS` random ones and their complements, each part being there
half of the time. A linear model of which parts are there, fitted to what the prediction became (LIME: Ribeiro et al., 2016;
here by Captum, all samples weighing the same), gives each part its score: how much more, on average, the prediction has of it
with the part than without (the Banzhaf value, where every subset is tried). On held-out pictures this ranked patches better
than taking them away one by one, putting them back one by one, or Shapley sampling with as many variants; words were ranked as
well by each (tests/benchmarks/explanations.py compares them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Game = Callable[[Tensor], Tensor]
"""Which of the P parts are kept, bool `[N, P]` -> the values of C targets, float64 `[N, C]`."""

VARIANTS = 200
BATCH = 32
RIDGE = 1.0
"""Penalty of the squared scores, in units in which a part weighs `VARIANTS` / 4."""


def attribute(count: int, game: Game, seed: int = 0) -> Tensor:
    """Scores `[C, P]` of `count` parts P; above zero where the part speaks for the prediction."""
    from captum._utils.models.linear_model import SkLearnRidge
    from captum.attr import LimeBase

    kept = masks(count, seed)  # [N, P]
    values = torch.cat([game(some) for some in torch.split(kept, BATCH)])  # [N, C], of all targets at once

    def one_by_one(whole: Tensor) -> Iterator[Tensor]:
        yield from torch.split(kept.double(), 1)

    at = {bytes(row): number for number, row in enumerate(kept.to(torch.uint8).tolist())}
    scores = []
    for target in values.T:
        def look_up(rows: Tensor, target: Tensor = target) -> Tensor:
            return target[[at[bytes(row)] for row in rows.to(torch.uint8).tolist()]]

        penalty = RIDGE if len(kept) == VARIANTS else 0.0
        lime = LimeBase(look_up, SkLearnRidge(alpha=penalty), lambda *_: 1.0, one_by_one, True, lambda kept, _: kept, None)
        scores.append(lime.attribute(torch.ones(1, count), n_samples=len(kept), perturbations_per_eval=len(kept)).flatten())
    return torch.stack(scores)


def masks(count: int, seed: int) -> Tensor:
    """Which parts each variant keeps, bool `[N, P]`: all subsets, or `VARIANTS` of them in pairs of complements."""
    if 2**count <= VARIANTS:
        return (torch.arange(2**count).unsqueeze(1) >> torch.arange(count)) % 2 == 1
    halves = torch.rand(VARIANTS // 2, count, generator=torch.Generator().manual_seed(seed)) < 0.5
    return torch.cat([halves, ~halves])
