"""Checks of what comes out for people: decoded rows, their probabilities, and the baseline."""

from __future__ import annotations

import json
import math
from typing import Any

from mmtool.testing.tasks.subject import TaskSubject
from mmtool.testing.verdicts import fail, skip

TEMPERATURES = (0.1, 0.5, 1.0, 3.0, 10.0)
DIGITS = 1e-4
"""Predictions hold probabilities with a few digits."""

Prediction = dict[str, Any]


def decodes_rows(subject: TaskSubject) -> None:
    """`decode` gives for each row a dict of plain JSON values with `prediction`, whatever the other rows, in any precision."""
    task, outputs = subject.task, subject.outputs
    rows = task.decode(outputs)
    if not isinstance(rows, list) or len(rows) != len(outputs):
        fail(f"decode must return a list with a dict for each of {len(outputs)} rows, it returned "
             f"{len(rows) if isinstance(rows, list) else type(rows).__name__}")
    for i, row in enumerate(rows):
        _check_prediction("decode", row)
        if not alike(task.decode(outputs[i : i + 1]), [row]):
            fail("a row is decoded otherwise alone and in a batch; take no statistic over the batch")
    if not alike(task.decode(outputs.double()), rows):
        fail("float64 outputs are decoded otherwise than the same in float32")


def _check_prediction(method: str, row: Any) -> None:
    if not isinstance(row, dict) or "prediction" not in row:
        fail(f"{method} must give a dict with the key 'prediction', it gave {str(row)[:60]}")
    try:
        plain = json.loads(json.dumps(row, allow_nan=False))
    except (TypeError, ValueError) as error:
        fail(f"{method} gave what JSON cannot hold ({error}); use float(x), x.tolist(), lists and dicts, and no NaN")
    if plain != row:
        fail(f"{method} gave what JSON holds otherwise, such as tuples or keys that are no str: {str(row)[:80]}")


def is_calibrated_as_stated(subject: TaskSubject) -> None:
    """`calibrated = True`: outputs over any temperature decode to probabilities, which the temperature changes."""
    task = subject.task
    if not task.calibrated:
        skip("it does not state calibrated = True")
    decoded = [task.decode(subject.outputs.double() / t) for t in TEMPERATURES]
    for t, rows in zip(TEMPERATURES, decoded, strict=True):
        for row in rows:
            p = row.get("probabilities")
            if not isinstance(p, dict) or sorted(p) != sorted(task.labels):
                fail("calibrated = True, but decode gives no `probabilities`, {label: p} for every one of `labels`")
            if not all(-DIGITS <= value <= 1 + DIGITS for value in p.values()):
                fail(f"at temperature {t} a probability is outside [0, 1]: {str(p)[:80]}")
            if not isinstance(row["prediction"], list) and not math.isclose(sum(p.values()), 1, abs_tol=DIGITS):
                fail(f"at temperature {t} the probabilities of one label sum to {sum(p.values()):.6g}, not 1")
    if alike([row["probabilities"] for row in decoded[0]], [row["probabilities"] for row in decoded[-1]]):
        fail("calibrated = True, but the probabilities at temperature 0.1 and 10 are the same; let the outputs be logits")


def scores_come_back(subject: TaskSubject) -> None:
    """`from_scores(to_scores(outputs))` decodes as the outputs do, and scores are finite `[B, K]`."""
    task, outputs = subject.task, subject.outputs.double()
    scores = task.to_scores(outputs)
    if scores.shape != outputs.shape or not bool(scores.isfinite().all()):
        fail(f"to_scores must give finite [B, K], as the outputs are {list(outputs.shape)}; it gave {list(scores.shape)}")
    if not alike(task.decode(task.from_scores(scores)), task.decode(outputs)):
        fail("from_scores(to_scores(outputs)) decodes otherwise than the outputs; let from_scores be the inverse")


def has_a_baseline(subject: TaskSubject) -> None:
    """`baseline` is a prediction as `decode` gives them."""
    baseline, decoded = subject.task.baseline(), subject.task.decode(subject.outputs)[0]
    _check_prediction("baseline", baseline)
    if sorted(baseline) != sorted(decoded):
        fail(f"baseline must have the keys of decode, {sorted(decoded)}; it has {sorted(baseline)}")


def alike(a: Any, b: Any) -> bool:
    """Equal, but for the last digits of numbers."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(alike(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=DIGITS, abs_tol=DIGITS)
    return bool(a == b)
