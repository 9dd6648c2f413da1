"""Metrics of classification and tagging. Shapes: N rows, C classes, R resamples (`counts [R, N]`)."""

from __future__ import annotations

import numpy as np

from mmtool.metrics.grouping import Array, averages, calibration_error, divide, group_sums, mean_curves

SMALLEST = 1e-6
"""Predictions files hold probabilities with six digits, so log loss takes none for smaller."""


def classification(y: Array, predicted: Array, probabilities: Array | None, counts: Array, classes: int) -> dict[str, Array]:
    """`y [N]` and `predicted [N]` as class numbers, `probabilities [N, C]` where there are any -> each metric `[R]`.

    ROC-AUC and average precision are one against the rest, averaged over classes; Brier's score sums over classes,
    halved for two, as scikit-learn does.
    """
    correct = (y == predicted).astype(float)
    total = counts.sum(1)
    hits, wanted, given = (group_sums(c, g, classes) for c, g in ((counts * correct, y), (counts, y), (counts, predicted)))
    out = {"accuracy": divide(counts @ correct, total),
           "balanced_accuracy": divide(divide(hits, wanted).sum(1), (wanted > 0).sum(1)), **averages(hits, wanted, given)}
    if probabilities is not None:
        one_hot = np.eye(classes)[y]
        squares = ((probabilities - one_hot) ** 2).sum(1) / (2 if classes == 2 else 1)
        out["roc_auc"], out["average_precision"] = mean_curves(probabilities, one_hot.astype(bool), counts)
        out["log_loss"] = divide(counts @ -np.log(np.maximum(probabilities[np.arange(len(y)), y], SMALLEST)), total)
        out["brier"] = divide(counts @ squares, total)
        top = probabilities[np.arange(len(y)), predicted]
        out["calibration_error"] = calibration_error(top, correct, counts)
    return out


def tagging(y: Array, predicted: Array, probabilities: Array | None, counts: Array) -> dict[str, Array]:
    """`y [N, C]` and `predicted [N, C]` as booleans, `probabilities [N, C]` -> each metric `[R]`.

    Accuracy is that of whole rows; Brier's score, log loss and calibration error are means over rows and tags.
    """
    total = counts.sum(1)
    hits, wanted, given = (counts @ m.astype(float) for m in (y & predicted, y, predicted))
    out = {"subset_accuracy": divide(counts @ (y == predicted).all(1).astype(float), total),
           "hamming_loss": divide(counts @ (y != predicted).mean(1), total), **averages(hits, wanted, given)}
    if probabilities is not None:
        p = np.clip(probabilities, SMALLEST, 1 - SMALLEST)
        out["roc_auc"], out["average_precision"] = mean_curves(probabilities, y, counts)
        out["log_loss"] = divide(counts @ -np.where(y, np.log(p), np.log1p(-p)).mean(1), total)
        out["brier"] = divide(counts @ ((probabilities - y) ** 2).mean(1), total)
        tags = y.shape[1]
        out["calibration_error"] = calibration_error(probabilities.ravel(), y.ravel().astype(float),
                                                     np.repeat(counts, tags, axis=1))
    return out
