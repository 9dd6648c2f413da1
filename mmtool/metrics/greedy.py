"""Greedy selection of an ensemble from a library of models (Caruana et al., 2004, ICML), with replacement.

Shapes: C members, N rows, K outputs of a task; scores are those of `Task.to_scores`, which may be averaged.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmtool.api import Task

ROUNDS = 25


def mean_scores(scores: Tensor, weights: Tensor) -> Tensor:
    """Scores `[C, N, K]` by weights `[C]`: their mean, `[N, K]`."""
    return torch.einsum("c,cnk->nk", weights / weights.sum(), scores)


def select(task: Task, scores: Tensor, y: Tensor, lengths: Tensor, rounds: int = ROUNDS) -> Tensor:
    """Weights `[C]` that add up to one: in each round the member joins with which the mean loss is least.

    Of all rounds, the one with the least loss counts.
    """
    counts = torch.zeros(len(scores), dtype=scores.dtype)
    total = torch.zeros_like(scores[0])
    best, chosen = float("inf"), counts
    for size in range(1, rounds + 1):
        tried = (total + scores) / size  # [C, N, K]
        losses = [float(task.loss(task.from_scores(t), y, lengths).mean()) for t in tried]
        pick = min(range(len(losses)), key=losses.__getitem__)
        counts = counts.clone()
        counts[pick] += 1
        total = total + scores[pick]
        if losses[pick] < best - 1e-12:
            best, chosen = losses[pick], counts
    return chosen / chosen.sum()


def cross_fitted(task: Task, scores: Tensor, y: Tensor, lengths: Tensor, parts: Sequence[Sequence[int]],
                 rounds: int = ROUNDS) -> Tensor:
    """Mean scores `[N, K]`: each part's rows by the weights that were chosen on the rows of the other parts."""
    out = torch.zeros_like(scores[0])
    for part in parts:
        inside = torch.zeros(scores.shape[1], dtype=torch.bool)
        inside[list(part)] = True
        weights = select(task, scores[:, ~inside], y[~inside], lengths[~inside], rounds)
        out[inside] = mean_scores(scores[:, inside], weights)
    return out
