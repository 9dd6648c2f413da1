"""Metrics with 95 % intervals from the percentiles of a bootstrap over rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mmtool.api import Task

WORK = 5e7
MOST, FEWEST = 1000, 100
CHUNK = 2_000_000


def measure(task: Task, predictions: Sequence[dict[str, Any]], targets: Sequence[str], seed: int = 0) \
        -> dict[str, dict[str, float]]:
    """Each metric as `{"value", "low", "high"}`; a metric that means nothing on these rows is left out."""
    n = len(targets)
    if not n:
        return {}
    values = task.metrics(predictions, targets, np.ones((1, n)))
    wanted = int(np.clip(WORK / (n * max(len(task.labels), 1)), FEWEST, MOST))
    parts: dict[str, list[Any]] = {name: [] for name in values}
    for counts in resamples(n, wanted, seed):
        for name, found in task.metrics(predictions, targets, counts).items():
            parts[name].append(found)
    out = {}
    for name, value in values.items():
        resampled = np.concatenate(parts[name])
        resampled = resampled[np.isfinite(resampled)]
        if np.isfinite(value[0]) and len(resampled):
            low, high = np.percentile(resampled, [2.5, 97.5])
            out[name] = {"value": round(float(value[0]), 6), "low": round(float(low), 6), "high": round(float(high), 6)}
    return out


def resamples(n: int, wanted: int, seed: int) -> Iterator[Any]:
    """How often each of `n` rows counts in `wanted` resamples, `[R, N]` a part; equal arguments give equal counts."""
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // n)
    for start in range(0, wanted, step):
        size = min(step, wanted - start)
        yield np.stack([np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(size)]).astype(float)
