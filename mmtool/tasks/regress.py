"""One number a row, or several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmtool.api import CellError, DataError, Task
from mmtool.metrics.numbers import regression
from mmtool.tasks.codec import split_cell

DOWN, UP = Context(prec=9, rounding=ROUND_FLOOR), Context(prec=9, rounding=ROUND_CEILING)
"""The ends of an interval are rounded away from its middle."""


class Regress(Task):
    """A number a row, or several (`1.5|2` or a JSON list): squared error of standardised targets."""

    api = 1
    linear = True
    conformal = True
    main_metric = "r2"
    sample_targets = ("3", "-1.5", "2e3", "0", "17.25", "3", "-250", "1000", "42", "8")

    def fit(self, targets: Sequence[str]) -> None:
        rows = [numbers(target) for target in targets]
        widths = sorted({len(row) for row in rows})
        if len(widths) != 1:
            raise DataError(f"training targets hold {' or '.join(map(str, widths))} numbers" if widths
                            else "no training row has a number", "give every row the same number of numbers", code="E_TARGET")
        y = torch.tensor(rows, dtype=torch.float64)  # [N, K]
        scale = y.std(0, correction=0)
        if bool((scale == 0).any()):
            raise DataError(f"every training row has the number {rows[0][int((scale == 0).nonzero()[0])]:g}",
                            "there is nothing to learn; check the target column and the split", code="E_TARGET")
        self._set(y.mean(0), scale)

    def check(self, target: str) -> None:
        self._row(target)

    def _row(self, target: str) -> list[float]:
        row = numbers(target)
        if self.labels and len(row) != len(self.labels):
            raise CellError(f"{len(row)} numbers, not {len(self.labels)}", "E_TARGET")
        return row

    def _set(self, mean: Tensor, scale: Tensor) -> None:
        self.mean, self.scale = mean, scale  # each [K]
        self.labels = [str(k) for k in range(len(mean))]

    def assets(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "scale": self.scale}

    def set_assets(self, assets: dict[str, Tensor]) -> None:
        self._set(assets["mean"], assets["scale"])

    def build(self, dims: dict[str, int]) -> None:
        self.heads = nn.ModuleList(nn.Linear(dims[name], len(self.mean)) for name in sorted(dims))

    def encode(self, target: str) -> Tensor:
        return (torch.tensor(self._row(target), dtype=torch.float64) - self.mean) / self.scale

    def loss(self, outputs: Tensor, y: Tensor, lengths: Tensor) -> Tensor:
        return (outputs - y.to(outputs)).square().mean(1) / 2

    def decode(self, outputs: Tensor) -> list[dict[str, Any]]:
        return [self._prediction(row) for row in (outputs.double().cpu() * self.scale + self.mean).tolist()]

    def nonconformity(self, outputs: Tensor, targets: Sequence[str]) -> Tensor:
        """The distance from the prediction in standard deviations of the training targets (Lei et al., 2018).

        Of several numbers the largest, so that all of a row are in their intervals at once.
        """
        y = torch.stack([self.encode(t) for t in targets]) if targets else torch.zeros(0, len(self.labels))
        return (outputs.double().cpu() - y).abs().amax(1)

    def region(self, outputs: Tensor, thresholds: Tensor) -> list[dict[str, Any]]:
        z, half = outputs.double().cpu(), thresholds.double().reshape(-1, 1)
        low, high = (((z + sign * half) * self.scale + self.mean).tolist() for sign in (-1, 1))
        rows = [[[_end(a, DOWN), _end(b, UP)] for a, b in zip(*ends, strict=True)] for ends in zip(low, high, strict=True)]
        return [{"interval": row[0] if len(row) == 1 else row} for row in rows]

    def covers(self, region: dict[str, Any], target: str) -> bool:
        pairs = region["interval"] if len(self.labels) > 1 else [region["interval"]]
        return all((low is None or low <= y) and (high is None or y <= high)
                   for y, (low, high) in zip(self._row(target), pairs, strict=True))

    def baseline(self) -> dict[str, Any]:
        return self._prediction(self.mean.tolist())

    @staticmethod
    def _prediction(row: list[float]) -> dict[str, Any]:
        rounded = [float(f"{value:.9g}") for value in row]
        return {"prediction": rounded[0] if len(rounded) == 1 else rounded}

    def metrics(self, predictions: Sequence[dict[str, Any]], targets: Sequence[str], counts: Any) -> dict[str, Any]:
        answers = [p["prediction"] for p in predictions]
        predicted = np.array([a if isinstance(a, list) else [a] for a in answers], dtype=float)
        y = np.array([numbers(target) for target in targets])
        if predicted.shape != y.shape:
            raise ValueError(f"{predicted.shape[1]} numbers a row, not {y.shape[1]}")
        return regression(y, predicted, counts)


def _end(value: float, context: Context) -> float | None:
    return float(context.create_decimal_from_float(value)) if math.isfinite(value) else None


def numbers(cell: str) -> list[float]:
    """The numbers of a cell. Raises CellError for what is none."""
    try:
        row = [float(value) for value in split_cell(cell)]
    except (TypeError, ValueError, OverflowError):
        raise CellError(f"{cell[:40]!r} is no number", "E_TARGET") from None
    if not row or not all(map(math.isfinite, row)):
        raise CellError(f"{cell[:40]!r} is no finite number", "E_TARGET")
    return row
