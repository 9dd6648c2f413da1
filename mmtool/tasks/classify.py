"""One label of several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from mmtool.api import CellError, DataError, Task, UsageError
from mmtool.metrics.labels import classification
from mmtool.tasks.codec import labels_from_tensor, labels_to_tensor

DIGITS = 6


class Classify(Task):
    """One label a row: softmax and cross-entropy."""

    api = 1
    linear = True
    calibrated = True
    conformal = True
    main_metric = "accuracy"
    sample_targets = ("cat", "dog", "cat", "größer", "dog", "cat", "ox, or cow", "ox, or cow", "größer", "cat")

    def __init__(self, *, label_smoothing: float = 0.0, class_weights: Literal["none", "balanced"] = "none") -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise UsageError(f"label_smoothing={label_smoothing} is not in [0, 1)")
        self.label_smoothing, self.class_weights = label_smoothing, class_weights

    def fit(self, targets: Sequence[str]) -> None:
        counts = Counter(targets)
        if len(counts) < 2:
            only = f"every training row has {next(iter(counts))!r}" if counts else "no training row has one"
            raise DataError(f"there is one class to learn, or none: {only}", "check the target column and the split",
                            code="E_TARGET")
        self._set(sorted(counts), [counts[label] for label in sorted(counts)])

    def _set(self, labels: list[str], counts: Sequence[float]) -> None:
        self.labels = labels
        self.numbers = {label: i for i, label in enumerate(labels)}
        self.counts = torch.tensor(counts, dtype=torch.float64)  # [K]

    def assets(self) -> dict[str, Tensor]:
        return {"labels": labels_to_tensor(self.labels), "counts": self.counts}

    def set_assets(self, assets: dict[str, Tensor]) -> None:
        self._set(labels_from_tensor(assets["labels"]), assets["counts"].tolist())

    def build(self, dims: dict[str, int]) -> None:
        self.heads = nn.ModuleList(nn.Linear(dims[name], len(self.labels)) for name in sorted(dims))

    def encode(self, target: str) -> Tensor:
        if target not in self.numbers:
            raise CellError(f"label {target!r} is none of the {len(self.labels)} that training knows", "E_TARGET")
        return torch.tensor([self.numbers[target]])

    def loss(self, outputs: Tensor, y: Tensor, lengths: Tensor) -> Tensor:
        losses = nn.functional.cross_entropy(outputs, y[:, 0], reduction="none", label_smoothing=self.label_smoothing)
        if self.class_weights == "balanced":
            weights = self.counts.sum() / (len(self.counts) * self.counts)  # [K]
            losses = losses * weights.to(losses)[y[:, 0]]
        return losses

    def to_scores(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(-1)

    def from_scores(self, scores: Tensor) -> Tensor:
        return scores.clamp(min=1e-12).log()

    def decode(self, outputs: Tensor) -> list[dict[str, Any]]:
        return [self._prediction(p) for p in outputs.double().softmax(-1).tolist()]

    def nonconformity(self, outputs: Tensor, targets: Sequence[str]) -> Tensor:
        """1 - probability of the label: the sets of least mean size for a coverage (Sadinle et al., 2019).

        They may be empty, where no label is likely enough. Sets that adapt to hard rows (APS, Romano et al., 2020) are larger,
        and exact only where drawn by chance: the same row would get several answers.
        """
        missing = 1 - outputs.double().softmax(-1).cpu()
        return torch.stack([missing[i, self.numbers[t]] if t in self.numbers else torch.tensor(torch.inf).double()
                            for i, t in enumerate(targets)]) if targets else torch.zeros(0, dtype=torch.float64)

    def region(self, outputs: Tensor, thresholds: Tensor) -> list[dict[str, Any]]:
        missing = (1 - outputs.double().softmax(-1).cpu()).tolist()
        ranked = [sorted(zip(row, self.labels, strict=True), key=lambda pair: pair[0]) for row in missing]
        return [{"set": [label for m, label in row if m <= t]} for row, t in zip(ranked, thresholds.tolist(), strict=True)]

    def covers(self, region: dict[str, Any], target: str) -> bool:
        return target in region["set"]

    def baseline(self) -> dict[str, Any]:
        return self._prediction((self.counts / self.counts.sum()).tolist())

    def _prediction(self, probabilities: list[float]) -> dict[str, Any]:
        ranked = sorted(zip(self.labels, probabilities, strict=True), key=lambda pair: -pair[1])
        shown = {label: round(p, DIGITS) for label, p in ranked}
        return {"prediction": ranked[0][0], "probability": shown[ranked[0][0]], "probabilities": shown}

    def stratum(self, target: str) -> str:
        return target

    def metrics(self, predictions: Sequence[dict[str, Any]], targets: Sequence[str], counts: Any) -> dict[str, Any]:
        answers = [str(p["prediction"]) for p in predictions]
        labels = sorted({*self.labels, *targets, *answers})
        at = {label: i for i, label in enumerate(labels)}
        y, predicted = (np.array([at[label] for label in column]) for column in (targets, answers))
        probabilities = None
        if all(p.get("probabilities") for p in predictions):
            probabilities = np.array([[p["probabilities"].get(label, 0.0) for label in labels] for p in predictions])
        return classification(y, predicted, probabilities, counts, len(labels))
