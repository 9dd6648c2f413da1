"""Checks of metrics: their form, how rows count, what they take, and that less loss is better."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmtool.api import CellError
from mmtool.metrics.grouping import Array
from mmtool.testing.tasks.predictions import Prediction
from mmtool.testing.tasks.subject import TaskSubject
from mmtool.testing.tasks.targets import ODD_TARGETS
from mmtool.testing.verdicts import fail

TOLERANCE = 1e-6
STEPS, RATE = 400, 0.1
"""Of the descent to the least loss, by the gradient's sign: each output can move by 20."""


def measures(subject: TaskSubject) -> None:
    """`metrics` gives arrays `[R]` for `counts [R, N]`, the main metric among them; predictions may come from a file."""
    task, targets = subject.task, subject.targets
    predictions = task.decode(subject.outputs)
    counts = np.ones((3, len(targets)))
    found = task.metrics(predictions, targets, counts)
    for name, values in found.items():
        if not isinstance(values, np.ndarray) or values.shape != (3,):
            given = list(values.shape) if isinstance(values, np.ndarray) else type(values).__name__
            fail(f"metric {name!r} must be a NumPy array [R], here [3], for counts [R, N]; it is {given}")
    if task.main_metric not in found:
        fail(f"the main metric {task.main_metric!r} is none of {sorted(found)}")
    if not np.isfinite(found[task.main_metric]).all():
        fail(f"the main metric {task.main_metric!r} of the sample targets is NaN or infinite")
    _must_equal(found, task.metrics(json.loads(json.dumps(predictions)), targets, counts),
                "predictions read from a file give other metrics")


def counts_are_repeated_rows(subject: TaskSubject) -> None:
    """A row that counts n times is the same as n such rows, one of none is left out, and doubling all changes nothing."""
    task, targets = subject.task, subject.targets
    predictions = task.decode(subject.outputs)
    counts = np.random.default_rng(0).integers(0, 4, (4, len(targets))).astype(float)
    counts[0], counts[1] = 1, 2
    together = task.metrics(predictions, targets, counts)
    _must_equal({k: v[:1] for k, v in together.items()}, {k: v[1:2] for k, v in together.items()},
                "counting every row twice changes them; divide by the sum of the counts")
    for r, row in enumerate(counts):
        at = np.repeat(np.arange(len(targets)), row.astype(int))
        repeated = task.metrics([predictions[i] for i in at], [targets[i] for i in at], np.ones((1, len(at))))
        _must_equal({k: v[r : r + 1] for k, v in together.items()}, repeated,
                    "rows that count n times are not the same as n rows; weigh every sum over rows with its counts")


def measures_what_other_tools_predict(subject: TaskSubject) -> None:
    """Predictions of any tool, which have nothing but `prediction`, are measured too."""
    bare = [{"prediction": p["prediction"]} for p in subject.task.decode(subject.outputs)]
    found = subject.task.metrics(bare, subject.targets, np.ones((1, len(bare))))
    if subject.task.main_metric not in found:
        fail(f"without probabilities the main metric {subject.task.main_metric!r} is not there; state one that needs the "
             "key `prediction` alone")


def measures_any_target(subject: TaskSubject) -> None:
    """`metrics` takes every target that the fitted task's `check` takes: tests hold what training never saw."""
    task = subject.task
    targets = [*subject.targets, *(t for t in ODD_TARGETS if _takes(subject, t))]
    predictions = task.decode(subject.outputs)
    many = [predictions[i % len(predictions)] for i in range(len(targets))]
    try:
        task.metrics(many, targets, np.ones((2, len(targets))))
    except Exception as error:  # noqa: BLE001  whatever it is, it ends the user's run
        fail(f"metrics raised {type(error).__name__} ({str(error)[:80]}) for targets that `check` takes, though `encode` may "
             "not, such as a label that training never saw; count them as wrong, or refuse them in `check`")


def _takes(subject: TaskSubject, target: str) -> bool:
    try:
        subject.task.check(target)
    except Exception:  # noqa: BLE001  refused; the check `refuses_with_cell_error` judges how
        return False
    try:
        subject.task.encode(target)
    except CellError:
        return True
    except Exception:  # noqa: BLE001
        return False
    return True


def less_loss_is_better(subject: TaskSubject) -> None:
    """Outputs of the least loss beat the baseline by the main metric: codec, loss, decoding and metrics mean the same."""
    task, targets, (y, lengths) = subject.task, subject.targets, subject.encoded
    outputs = 0.1 * subject.outputs
    for step in range(STEPS):
        at = outputs.clone().requires_grad_()
        task.loss(at, y, lengths).sum().backward()  # type: ignore[no-untyped-call]
        if at.grad is None:
            fail("no gradient of the loss reaches the outputs")
        outputs = outputs - RATE * (1 - step / STEPS) * at.grad.sign()
    best = _main(subject, task.decode(outputs))
    guess = _main(subject, [task.baseline()] * len(targets))
    if not (best > guess if task.greater_is_better else best < guess):
        fail(f"outputs of the least loss reach {task.main_metric} {best:.4g}, the baseline {guess:.4g}; encode, loss, decode "
             "and metrics do not mean the same, or greater_is_better is wrong")


def _main(subject: TaskSubject, predictions: Sequence[Prediction]) -> float:
    task = subject.task
    value = float(task.metrics(predictions, subject.targets, np.ones((1, len(predictions))))[task.main_metric][0])
    return value if value == value else float("-inf" if task.greater_is_better else "inf")  # NaN: it says nothing


def _must_equal(a: dict[str, Array], b: dict[str, Any], otherwise: str) -> None:
    for name in a:
        if name not in b or not np.allclose(a[name], b[name], rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
            fail(f"{otherwise} ({name}: {a[name].tolist()} and {np.asarray(b.get(name)).tolist()})")
