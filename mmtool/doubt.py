"""What `predict` and `eval` say of a prediction's certainty: regions of a coverage, abstaining, and unlike inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmtool import conformal, console
from mmtool.api import Task
from mmtool.errors import ArtefactError, UsageError
from mmtool.network import key_of

if TYPE_CHECKING:
    from mmtool.model import Model

REMEDY = "train with --conformal 0.2, or mark rows with `calib` in the column split"
Prediction = dict[str, Any]


@dataclass(frozen=True)
class Doubt:
    """What is asked: regions that hold the truth so often, and abstaining below a probability."""

    coverage: float | None = None
    abstain_below: float | None = None

    def add(self, task: Task, scores: Mapping[str, Tensor], outputs: Tensor, used: Sequence[Sequence[str]],
            predictions: list[Prediction]) -> None:
        """Put `set` or `interval` and `abstained` into the predictions of rows with calibrated outputs `[N, K]`."""
        if self.coverage is not None and task.conformal:
            found = {key: conformal.threshold(s, self.coverage) for key, s in scores.items()}
            thresholds = torch.tensor([found.get(key_of(row), torch.inf) for row in used], dtype=torch.float64)
            for prediction, region in zip(predictions, task.region(outputs, thresholds), strict=True):
                prediction.update(region)
        if self.abstain_below is not None and is_sure(task):
            for prediction in predictions:
                prediction["abstained"] = prediction["probability"] < self.abstain_below


def is_sure(task: Task) -> bool:
    """Does the task give one answer a row, and its probability?"""
    example = task.baseline()
    return example.get("probability") is not None and not isinstance(example["prediction"], list)


def check(coverage: float | None, abstain_below: float | None) -> None:
    """Raises UsageError for numbers that mean nothing."""
    if coverage is not None:
        conformal.check_coverage(coverage)
    if abstain_below is not None and not 0 < abstain_below <= 1:
        raise UsageError(f"--abstain-below {abstain_below} is no probability", "write --abstain-below 0.8")


def ask(model: Model, coverage: float | None, abstain_below: float | None) -> None:
    """Let a model's predictions hold what is asked. Raises MMToolError where it cannot; says where it means little."""
    check(coverage, abstain_below)
    if abstain_below is not None and not any(is_sure(task) for task in model.tasks.values()):
        raise UsageError("--abstain-below needs a task with one answer a row and its probability, such as classify",
                         "leave it out; --coverage gives intervals and sets")
    if coverage is not None:
        if not any(model.conformal.values()):
            raise ArtefactError("--coverage needs rows that took no part in training, and this model kept none apart", REMEDY,
                                code="E_ARTEFACT_MISMATCH")
        _warn(model, coverage)
    model.doubt = Doubt(coverage, abstain_below)


def _warn(model: Model, coverage: float) -> None:
    for column in [c for c, task in model.tasks.items() if not task.conformal]:
        console.warn(f"the task of {column!r} has no sets or intervals")
    fewest = conformal.fewest(coverage)
    for column, scores in model.conformal.items():
        few = {key: len(s) for key, s in scores.items() if len(s) < fewest}
        if few:
            told = ", ".join(f"{key} {n}" for key, n in few.items())
            console.warn(f"{column}: coverage {coverage} needs {fewest} calibration rows; with fewer only everything has it "
                         f"(rows there are: {told})")


def measured(doubt: Doubt | None, task: Task, scores: Mapping[str, Tensor], predictions: Sequence[Prediction],
             truth: Sequence[str], by_inputs: Mapping[str, tuple[Sequence[Prediction], Sequence[str]]]) -> dict[str, Any]:
    """What the regions and the abstaining are worth on scored rows, as `doubt` of a metrics.json."""
    if doubt is None:
        return {}
    found: dict[str, Any] = {}
    if doubt.coverage is not None and task.conformal:
        found = _coverage(doubt.coverage, task, scores, predictions, truth)
        found["by_inputs"] = {key: _coverage(doubt.coverage, task, scores, *pair) for key, pair in by_inputs.items()}
    if doubt.abstain_below is not None and is_sure(task):
        right = [p["prediction"] == t for p, t in zip(predictions, truth, strict=True) if not p["abstained"]]
        found["abstain"] = {"below": doubt.abstain_below, "kept": conformal.share(len(right), len(truth)),
                            **({"accuracy": conformal.share(sum(right), len(right))} if right else {})}
    return found


def _coverage(asked: float, task: Task, scores: Mapping[str, Tensor], predictions: Sequence[Prediction],
              truth: Sequence[str]) -> dict[str, Any]:
    hits = sum(task.covers(p, t) for p, t in zip(predictions, truth, strict=True))
    keys = Counter(key_of(p["inputs"]) for p in predictions)
    known = {key: len(scores[key]) if key in scores else 0 for key in keys}
    low, high = conformal.band([(known[key], n) for key, n in sorted(keys.items())], asked)
    coverage = {"asked": asked, **conformal.share(hits, len(truth)), "band": [round(low, 6), round(high, 6)],
                "calibration_rows": max(known.values())}
    out: dict[str, Any] = {"coverage": coverage}
    if "set" in predictions[0]:
        sizes = [len(p["set"]) for p in predictions]
        return {**out, "set_size": round(sum(sizes) / len(sizes), 6), "empty": round(sizes.count(0) / len(sizes), 6)}
    widths = [_width(p["interval"]) for p in predictions]
    bounded = [w for w in widths if w is not None]
    return {**out, "interval_width": round(sum(bounded) / len(bounded), 6) if len(bounded) == len(widths) else None}


def _width(interval: list[Any]) -> float | None:
    """Of several numbers the mean; None where it has no end."""
    pairs = interval if isinstance(interval[0], list) else [interval]
    if any(end is None for pair in pairs for end in pair):
        return None
    return float(sum(high - low for low, high in pairs) / len(pairs))
