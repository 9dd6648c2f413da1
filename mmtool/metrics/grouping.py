"""Sums over groups of rows and areas under curves, for many resamples at once.

Shapes: N rows, R resamples of them (`counts [R, N]`), G groups.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def group_sums(counts: Array, groups: Array, size: int) -> Array:
    """`counts [R, N]` added up over each of `size` groups, `[R, G]`; `groups [N]` holds each row's."""
    order = np.argsort(groups, kind="stable")
    present, starts = np.unique(groups[order], return_index=True)
    sums = np.zeros((size, len(counts)))
    if len(present):
        sums[present] = np.add.reduceat(counts.T[order], starts)  # [G, R]
    return sums.T


def divide(a: Array, b: Array, default: float = 0.0) -> Array:
    """a / b, and `default` where b is 0."""
    shape = np.broadcast_shapes(np.shape(a), np.shape(b))
    out: Array = np.full(shape, default)
    np.divide(a, b, out=out, where=np.broadcast_to(b, shape) != 0)
    return out


def curves(scores: Array, positive: Array, counts: Array) -> tuple[Array, Array]:
    """Area under the ROC curve and average precision of `scores [N]` for `positive [N]`, each `[R]`; NaN for one class.

    Both are sums over groups of equal scores that hold a positive row: only there are the cumulated counts looked at.
    """
    order = np.argsort(scores)  # ties in any order: they are one group
    ordered, hits = scores[order], np.flatnonzero(positive[order])
    every = _cumulated(counts, order)  # [N + 1, R]
    own = _cumulated(counts, order[hits])  # [P + 1, R]
    values = np.unique(ordered[hits])
    low, high = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")  # [G], of all rows
    first, last = np.searchsorted(hits, low), np.searchsorted(hits, high)  # [G], of positive rows
    pos = own[last] - own[first]  # [G, R], scores ascending
    lower = every[low] - own[first]  # negatives scored lower
    ties = every[high] - every[low] - pos
    total_pos, total = own[-1], every[-1]
    auc = divide((pos * (lower + ties / 2)).sum(0), total_pos * (total - total_pos), np.nan)
    precision = divide(total_pos - own[first], total - every[low])
    return auc, divide((pos * precision).sum(0), total_pos, np.nan)


def _cumulated(counts: Array, rows: Array) -> Array:
    """Counts of the first 0, 1, ... of some rows, `[n + 1, R]`."""
    out = np.zeros((len(rows) + 1, len(counts)))
    np.cumsum(counts.T[rows], 0, out=out[1:])
    return out


def mean_curves(scores: Array, positive: Array, counts: Array) -> tuple[Array, Array]:
    """`curves` of every column of `scores [N, C]` that has both kinds of rows, averaged over those that mean something."""
    used = [c for c in range(scores.shape[1]) if 0 < positive[:, c].sum() < len(positive)]
    if not used:
        return np.full(len(counts), np.nan), np.full(len(counts), np.nan)
    pairs = [curves(scores[:, c], positive[:, c], counts) for c in used]
    return tuple(_nanmean(np.stack(values)) for values in zip(*pairs, strict=True))  # type: ignore[return-value]


def _nanmean(values: Array) -> Array:
    known = ~np.isnan(values)
    return divide(np.where(known, values, 0).sum(0), known.sum(0), np.nan)


def calibration_error(confidence: Array, correct: Array, counts: Array, bins: int = 15) -> Array:
    """Expected calibration error over equal bins of confidence (Naeini et al., 2015), `[R]`."""
    group = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = group_sums(counts * (correct - confidence), group, bins)  # [R, bins]
    return divide(np.abs(gap).sum(1), counts.sum(1))


def averages(hits: Array, wanted: Array, given: Array) -> dict[str, Array]:
    """Precision, recall and F1 from true positives, real and predicted counts of each class, all `[R, C]`.

    Macro averages run over the classes that occur in targets or predictions, as scikit-learn's do.
    """
    seen = (wanted + given) > 0
    each = {"precision": divide(hits, given), "recall": divide(hits, wanted), "f1": divide(2 * hits, wanted + given)}
    h, w, g = hits.sum(1), wanted.sum(1), given.sum(1)
    micro = {"precision": divide(h, g), "recall": divide(h, w), "f1": divide(2 * h, w + g)}
    out = {}
    for name, values in each.items():
        out[f"{name}_macro"] = divide((values * seen).sum(1), seen.sum(1))
        out[f"{name}_micro"] = micro[name]
        out[f"{name}_weighted"] = divide((values * wanted).sum(1), w)
    return out
