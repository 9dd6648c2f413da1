"""Any number of labels a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmtool.api import DataError, Task, UsageError
from mmtool.metrics.labels import tagging
from mmtool.tasks.codec import labels_from_tensor, labels_to_tensor, split_cell

DIGITS = 6


class Tag(Task):
    """Any number of tags a row (`a|b|c` or a JSON list): one sigmoid each and binary cross-entropy.

    Tags with a probability of at least `threshold` are given; by default it is the one with the best micro-F1 on held-out rows.
    """

    api = 1
    linear = True
    calibrated = True
    conformal = True
    main_metric = "f1_micro"
    sample_targets = ("red|small", "red", '["blue", "small"]', "blue", "|", "red|blue|small", "small", "blue|red", "green")

    def __init__(self, *, min_count: int = 2, threshold: float | None = None) -> None:
        super().__init__()
        if threshold is not None and not 0 < threshold < 1:
            raise UsageError(f"threshold={threshold} is not between 0 and 1")
        self.min_count, self.chosen = min_count, threshold is None
        self.threshold = 0.5 if threshold is None else threshold

    def fit(self, targets: Sequence[str]) -> None:
        counts = Counter(tag for target in targets for tag in self._tags(target))
        labels = sorted(tag for tag, n in counts.items() if n >= self.min_count)
        if not labels:
            raise DataError(f"no tag occurs {self.min_count} times in the {len(targets)} training rows",
                            "lower min_count, as in COLUMN=tag:min_count=1, or check the target column", code="E_TARGET")
        self._set(labels, [counts[tag] / len(targets) for tag in labels])

    @staticmethod
    def _tags(target: str) -> set[str]:
        return {str(tag) for tag in split_cell(target)}

    def _set(self, labels: list[str], shares: Sequence[float]) -> None:
        self.labels = labels
        self.numbers = {label: i for i, label in enumerate(labels)}
        self.shares = torch.tensor(shares, dtype=torch.float64)  # [K], how often each tag is there

    def assets(self) -> dict[str, Tensor]:
        threshold = torch.tensor([self.threshold], dtype=torch.float64)
        return {"labels": labels_to_tensor(self.labels), "shares": self.shares, "threshold": threshold}

    def set_assets(self, assets: dict[str, Tensor]) -> None:
        self._set(labels_from_tensor(assets["labels"]), assets["shares"].tolist())
        self.threshold = float(assets["threshold"][0])

    def build(self, dims: dict[str, int]) -> None:
        self.heads = nn.ModuleList(nn.Linear(dims[name], len(self.labels)) for name in sorted(dims))

    def encode(self, target: str) -> Tensor:
        y = torch.zeros(len(self.labels), dtype=torch.uint8)
        for tag in self._tags(target) & set(self.numbers):
            y[self.numbers[tag]] = 1
        return y

    def loss(self, outputs: Tensor, y: Tensor, lengths: Tensor) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(outputs, y.to(outputs), reduction="none").mean(1)

    def to_scores(self, outputs: Tensor) -> Tensor:
        return outputs.sigmoid()

    def from_scores(self, scores: Tensor) -> Tensor:
        return scores.clamp(1e-7, 1 - 1e-7).logit()

    def settle(self, outputs: Tensor, y: Tensor) -> None:
        """The threshold in the middle between the last tag that is worth giving and the next."""
        if not self.chosen or not bool(y.any()):
            return
        p, order = outputs.double().sigmoid().flatten().sort(descending=True, stable=True)
        hits = y.flatten()[order].double().cumsum(0)  # right ones among the first k
        k = torch.arange(1, len(p) + 1, dtype=torch.float64)
        f1 = 2 * hits / (k + hits[-1])
        f1[:-1][p[:-1] == p[1:]] = -1  # no threshold parts equals
        best = int(f1.argmax())
        after = float(p[best + 1]) if best + 1 < len(p) else 0.0
        self.threshold = min(max(round((float(p[best]) + after) / 2, DIGITS), 10**-DIGITS), 1 - 10**-DIGITS)

    def decode(self, outputs: Tensor) -> list[dict[str, Any]]:
        return [self._prediction(p) for p in outputs.double().sigmoid().tolist()]

    def nonconformity(self, outputs: Tensor, targets: Sequence[str]) -> Tensor:
        """1 - probability of the least likely true tag, so that a set holds all true tags of a row at once; 0 without any.

        A tag that training did not learn is no part of the question.
        """
        missing = 1 - outputs.double().sigmoid().cpu()
        y = torch.stack([self.encode(t) for t in targets]) if targets else torch.zeros(0, len(self.labels))
        return torch.where(y.bool(), missing, 0.0).amax(1)

    def region(self, outputs: Tensor, thresholds: Tensor) -> list[dict[str, Any]]:
        missing = (1 - outputs.double().sigmoid().cpu()).tolist()
        ranked = [sorted(zip(row, self.labels, strict=True), key=lambda pair: pair[0]) for row in missing]
        return [{"set": [tag for m, tag in row if m <= t]} for row, t in zip(ranked, thresholds.tolist(), strict=True)]

    def covers(self, region: dict[str, Any], target: str) -> bool:
        return self._tags(target) & set(self.numbers) <= set(region["set"])

    def baseline(self) -> dict[str, Any]:
        return self._prediction(self.shares.tolist())

    def _prediction(self, probabilities: list[float]) -> dict[str, Any]:
        ranked = sorted(zip(self.labels, probabilities, strict=True), key=lambda pair: -pair[1])
        given = [(tag, round(p, DIGITS)) for tag, p in ranked if p >= self.threshold]
        return {"prediction": [tag for tag, _ in given], "probability": given[-1][1] if given else None,
                "probabilities": {tag: round(p, DIGITS) for tag, p in ranked}}

    def metrics(self, predictions: Sequence[dict[str, Any]], targets: Sequence[str], counts: Any) -> dict[str, Any]:
        at = self.numbers  # a tag that training did not learn is no part of the question
        y, predicted = (np.zeros((len(targets), len(at)), dtype=bool) for _ in range(2))
        for row, (target, prediction) in enumerate(zip(targets, predictions, strict=True)):
            for array, tags in ((y, self._tags(target)), (predicted, prediction["prediction"])):
                array[row, [at[tag] for tag in tags if tag in at]] = True
        probabilities = None
        if all(p.get("probabilities") for p in predictions):
            probabilities = np.array([[p["probabilities"].get(tag, 0.0) for tag in at] for p in predictions])
        return tagging(y, predicted, probabilities, counts)
