"""Predictions and truth as arrays, and the thin curves that are drawn of them. Shapes: N rows, C columns, G points."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmtool.page.contents import TargetPart

Array = np.ndarray[Any, np.dtype[Any]]
GRID = np.linspace(0, 1, 201)
MOST_SCORES = 5_000_000
"""Curves over more probabilities than this are drawn of the most frequent labels only."""


def answers(part: TargetPart) -> list[str]:
    """The predicted label of each row, as text."""
    return [str(p["prediction"]) for p in part.predictions]


def has_probabilities(part: TargetPart) -> bool:
    """Does every row say how probable its labels are?"""
    return bool(part.predictions) and all(isinstance(q := p.get("probabilities"), Mapping) and q for p in part.predictions)


def scores(part: TargetPart, labels: Sequence[str]) -> Array:
    """Probabilities `[N, C]` of some labels; 0 where a row does not say."""
    rows = [[p["probabilities"].get(name, 0.0) for name in labels] for p in part.predictions]
    out: Array = np.nan_to_num(np.array(rows, dtype=float).reshape(len(rows), len(labels)))
    return out


def scores_of(part: TargetPart, row: int) -> dict[str, Any]:
    """One row's probabilities by label."""
    return dict(part.predictions[row]["probabilities"])


def confidences(part: TargetPart) -> Array | None:
    """The probability of each row's answer, `[N]`, in [0, 1]; None where some row has none."""
    found = [_confidence(p) for p in part.predictions]
    known = [c for c in found if c is not None]
    return np.array(known) if known and len(known) == len(found) else None


def _confidence(prediction: Mapping[str, Any]) -> float | None:
    value = prediction.get("probability")
    if value is None and isinstance(every := prediction.get("probabilities"), Mapping):
        value = every.get(str(prediction["prediction"]))
    usable = isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= 1
    return float(value) if usable and value is not None else None


def by_frequency(labels: Sequence[str], occurrences: Counter[str]) -> list[str]:
    """The labels, the most frequent first."""
    return sorted(dict.fromkeys(labels), key=lambda name: (-occurrences[name], name))


def few_enough(labels: Sequence[str], rows: int) -> list[str]:
    """As many of the first labels as curves are drawn of."""
    return list(labels[:max(1, MOST_SCORES // max(rows, 1))])


def roc(positive: Array, score: Array) -> tuple[Array, Array, float]:
    """False and true positive rates and the area under them, of a label with both kinds of rows."""
    from sklearn.metrics import auc, roc_curve

    false, true, _ = roc_curve(positive, score)
    return false, true, float(auc(false, true))


def precision_recall(positive: Array, score: Array) -> tuple[Array, Array, float]:
    """Recall (rising), the highest precision at each, and average precision, of a label with both kinds of rows."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(positive, score)
    rising, first = np.unique(recall[::-1], return_index=True)  # thresholds fall: the first to reach a recall is the best
    area = -float(np.sum(np.diff(recall) * precision[:-1]))  # as scikit-learn's average_precision_score, which sorts again
    return rising, precision[::-1][first], area


def thin(x: Array, y: Array, points: int = 300) -> tuple[Array, Array]:
    """So many of a curve's points, both ends kept."""
    if len(x) <= points:
        return x, y
    at = np.unique(np.linspace(0, len(x) - 1, points).astype(int))
    return x[at], y[at]


def mean_roc(pairs: Sequence[tuple[Array, Array]]) -> Array:
    """True positive rates at `GRID`, `[G]`, averaged over curves."""
    mean: Array = np.mean([np.interp(GRID, x, y) for x, y in pairs], axis=0)
    mean[0] = 0.0
    return mean


def mean_precision(pairs: Sequence[tuple[Array, Array]]) -> Array:
    """Precision at a recall of `GRID`, `[G]`, averaged over curves; a step curve holds the precision of the next point."""
    at = [np.minimum(np.searchsorted(recall, GRID), len(recall) - 1) for recall, _ in pairs]
    mean: Array = np.mean([precision[i] for (_, precision), i in zip(pairs, at, strict=True)], axis=0)
    return mean
