"""Several predictors of the same rows, ranked by one metric on the same resamples of these rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmtool.metrics.bootstrap import WORK, resamples

if TYPE_CHECKING:
    from mmtool.api import Task

MOST, FEWEST = 1000, 200

Predictions = Sequence[dict[str, Any]]


def rank(task: Task, found: Mapping[str, Predictions], targets: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """Each predictor's main metric with its interval, the best first.

    `gap`: the paired difference from the best one with its interval, None for the best itself; `p_best`: the share of the
    resamples in which it comes first. A predictor whose metric is no number is left out.
    """
    n, names, metric = len(targets), list(found), task.main_metric
    ones = np.ones((1, n))
    values = {name: _metric(task, found[name], targets, ones)[0] for name in names}
    names = [name for name in names if np.isfinite(values[name])]
    if not names:
        return []
    sign = 1 if task.greater_is_better else -1
    names.sort(key=lambda name: -sign * values[name])
    wanted = int(np.clip(WORK / (n * max(len(task.labels), 1) * len(names)), FEWEST, MOST))
    drawn = [np.stack([_metric(task, found[name], targets, counts) for name in names])
             for counts in resamples(n, wanted, seed)]
    each = np.concatenate(drawn, 1)  # [C, R]
    each = each[:, np.isfinite(each).all(0)]
    if not each.shape[1]:  # no resample means anything
        each = np.array([[values[name]] for name in names])
    first = sign * each >= (sign * each).max(0) - 1e-12
    shares = (first / first.sum(0)).mean(1)
    out = []
    for at, name in enumerate(names):
        low, high = np.percentile(each[at], [2.5, 97.5])
        line = {"name": name, "metric": metric, "value": _round(values[name]), "low": _round(low), "high": _round(high),
                "gap": None, "p_best": round(float(shares[at]), 4)}
        if at:
            low, high = np.percentile(each[at] - each[0], [2.5, 97.5])
            line["gap"] = {"value": _round(values[name] - values[names[0]]), "low": _round(low), "high": _round(high)}
        out.append(line)
    return out


def value(task: Task, predictions: Predictions, targets: Sequence[str]) -> float | None:
    """The main metric of one predictor; None where it is no number."""
    found = float(_metric(task, predictions, targets, np.ones((1, len(targets))))[0])
    return _round(found) if np.isfinite(found) else None


def _metric(task: Task, predictions: Predictions, targets: Sequence[str], counts: Any) -> Any:
    return np.asarray(task.metrics(predictions, targets, counts)[task.main_metric], dtype=float)


def _round(value: float) -> float:
    return round(float(value), 6)
