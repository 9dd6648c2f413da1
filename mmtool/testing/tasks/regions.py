"""The check of the sets and intervals that `--coverage` asks for."""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from torch import Tensor

from mmtool.testing.tasks.subject import TaskSubject
from mmtool.testing.verdicts import fail, skip

MARGIN = 1e-4
"""A region is asked for a little above and below a target's nonconformity, so that no rounding decides."""


def regions_hold_what_fits(subject: TaskSubject) -> None:
    """`conformal = True`: a region holds a target just where its nonconformity is within the threshold, row by row."""
    task, outputs, targets = subject.task, subject.outputs.double(), subject.targets
    if not task.conformal:
        skip("it does not state conformal = True")
    scores = task.nonconformity(outputs, targets)
    if not isinstance(scores, Tensor) or scores.shape != (len(targets),) or scores.dtype != torch.float64:
        fail(f"nonconformity must give float64 [N], here [{len(targets)}]")
    if bool(scores.isnan().any()) or not bool(scores.isfinite().all()):
        fail("nonconformity is NaN or infinite for targets that training knows")
    if float((task.nonconformity(outputs[1:2], targets[1:2]) - scores[1]).abs()) > MARGIN:
        fail("a row's nonconformity is another alone and in a batch; take no statistic over the batch")
    everything = _regions(task.region(outputs, torch.full_like(scores, math.inf)), len(targets))
    for sign in (-1, 1):
        found = _regions(task.region(outputs, scores + sign * MARGIN), len(targets))
        for i, (region, target) in enumerate(zip(found, targets, strict=True)):
            score, where = float(scores[i]), "above" if sign > 0 else "below"
            if (sign > 0 or score > MARGIN) and task.covers(region, target) is not (sign > 0):  # 0 may be in any region
                fail(f"the nonconformity of {target!r} is {score:.4g}; with a threshold {where} that, "
                     f"covers({str(region)[:60]}, {target!r}) must be {sign > 0}")
            if not task.covers(everything[i], target):
                fail(f"with a threshold of inf a region must hold everything, but it does not hold {target!r}")


def _regions(found: Any, rows: int) -> list[dict[str, Any]]:
    if not isinstance(found, list) or len(found) != rows or not all(isinstance(r, dict) and len(r) == 1 for r in found):
        fail('region must return a list with {"set": [...]} or {"interval": [...]} for each row')
    for region in found:
        if set(region) - {"set", "interval"} or not isinstance(next(iter(region.values())), list):
            fail(f'region must give {{"set": [...]}} or {{"interval": [...]}}, it gave {str(region)[:60]}')
        try:
            json.dumps(region, allow_nan=False)
        except (TypeError, ValueError) as error:
            fail(f"region gave what JSON cannot hold ({error}); None stands for an end that is none")
    return found
