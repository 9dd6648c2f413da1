"""Metrics of regression. Shapes: N rows, K numbers a row, R resamples (`counts [R, N]`)."""

from __future__ import annotations

import numpy as np

from mmtool.metrics.grouping import Array, divide, group_sums


def regression(y: Array, predicted: Array, counts: Array) -> dict[str, Array]:
    """`y [N, K]` and `predicted [N, K]` -> MAE, RMSE, R² and Spearman's correlation, `[R]`, averaged over the K."""
    total = counts.sum(1, keepdims=True)  # [R, 1]
    errors = predicted - y
    squares = divide(counts @ errors**2, total)  # [R, K]
    mean = divide(counts @ y, total)
    variance = np.maximum(divide(counts @ y**2, total) - mean**2, 0)
    spearman = np.stack([_spearman(y[:, k], predicted[:, k], counts) for k in range(y.shape[1])], 1)
    return {"mae": divide(counts @ np.abs(errors), total).mean(1), "rmse": np.sqrt(squares).mean(1),
            "r2": (1 - divide(squares, variance, np.nan)).mean(1), "spearman": spearman.mean(1)}


def _spearman(a: Array, b: Array, counts: Array) -> Array:
    ra, rb = _ranks(a, counts), _ranks(b, counts)
    total = counts.sum(1, keepdims=True)
    ra, rb = (r - divide((counts * r).sum(1, keepdims=True), total) for r in (ra, rb))
    cov, va, vb = ((counts * p).sum(1) for p in (ra * rb, ra * ra, rb * rb))
    return divide(cov, np.sqrt(va * vb), np.nan)


def _ranks(values: Array, counts: Array) -> Array:
    """Mid-ranks of `values [N]` in each resample, `[R, N]`."""
    distinct, group = np.unique(values, return_inverse=True)
    sums = group_sums(counts, group, len(distinct))
    return (np.cumsum(sums, 1) - (sums - 1) / 2)[:, group]
