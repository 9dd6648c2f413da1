"""A task that keeps the contract, for others to break."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmtool.api import CellError, MMToolError, Task


class Good(Task):
    """The first letter of a word; everything that a contract can ask."""

    api = 1
    linear = True
    calibrated = True
    conformal = True
    main_metric = "accuracy"
    sample_targets = ("ape", "bear", "ant", "cow", "bee", "ape", "bear", "cat", "ape")

    def __init__(self, *, smoothing: float = 0.0) -> None:
        super().__init__()
        self.smoothing = smoothing

    def check(self, target: str) -> None:
        if not target[0].isalpha():
            raise CellError(f"{target[:9]!r} begins with no letter")

    def fit(self, targets: Sequence[str]) -> None:
        counts = Counter(target[0] for target in targets)
        if len(counts) < 2:
            raise MMToolError("there is one letter")
        self.labels = self.order(counts)
        self.counts = torch.tensor([counts[letter] for letter in self.labels])

    def order(self, counts: Counter[str]) -> list[str]:
        return sorted(counts)

    def assets(self) -> dict[str, Tensor]:
        return {"letters": torch.tensor([ord(letter) for letter in self.labels]), "counts": self.counts}

    def set_assets(self, assets: dict[str, Tensor]) -> None:
        self.labels, self.counts = [chr(code) for code in assets["letters"].tolist()], assets["counts"]

    def build(self, dims: dict[str, int]) -> None:
        self.heads = nn.ModuleList(nn.Linear(dims[name], len(self.labels)) for name in sorted(dims))

    def encode(self, target: str) -> Tensor:
        self.check(target)
        if target[0] not in self.labels:
            raise CellError(f"the letter {target[0]!r} is new")
        return torch.tensor([list(self.labels).index(target[0])])

    def loss(self, outputs: Tensor, y: Tensor, lengths: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, y[:, 0], reduction="none", label_smoothing=self.smoothing)

    def to_scores(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(-1)

    def from_scores(self, scores: Tensor) -> Tensor:
        return scores.log()

    def decode(self, outputs: Tensor) -> list[dict[str, Any]]:
        return [self.prediction(p) for p in outputs.double().softmax(-1).tolist()]

    def nonconformity(self, outputs: Tensor, targets: Sequence[str]) -> Tensor:
        p = outputs.double().softmax(-1)
        return torch.stack([1 - p[i, list(self.labels).index(t[0])] for i, t in enumerate(targets)])

    def region(self, outputs: Tensor, thresholds: Tensor) -> list[dict[str, Any]]:
        rows = zip((1 - outputs.double().softmax(-1)).tolist(), thresholds.tolist(), strict=True)
        return [{"set": [letter for letter, s in zip(self.labels, row, strict=True) if s <= most]} for row, most in rows]

    def covers(self, region: dict[str, Any], target: str) -> bool:
        return target[0] in region["set"]

    def baseline(self) -> dict[str, Any]:
        return self.prediction((self.counts / self.counts.sum()).tolist())

    def prediction(self, p: list[float]) -> dict[str, Any]:
        return {"prediction": self.labels[p.index(max(p))], "probabilities": dict(zip(self.labels, p, strict=True))}

    def metrics(self, predictions: Sequence[dict[str, Any]], targets: Sequence[str], counts: Any) -> dict[str, Any]:
        correct = np.array([p["prediction"] == t[0] for p, t in zip(predictions, targets, strict=True)], dtype=float)
        return {"accuracy": counts @ correct / counts.sum(1)}
