"""Checks of the target codec: what is read, refused and learned."""

from __future__ import annotations

import torch
from torch import Tensor

from mmtool.api import CellError, Task
from mmtool.testing.compare import same_bits
from mmtool.testing.state import through_bytes
from mmtool.testing.tasks.subject import TaskSubject, check_assets, same_assets
from mmtool.testing.verdicts import fail

SUM_TOLERANCE = 1e-6
"""Sums in another order differ in their last bits."""
ODD_TARGETS = ("much ado", " ", "-1", "0", "nan", "1e999", "null", "1|2", "1|2|3", "|", "[]", "{}", "[1", '["a", 1, null]',
               "[[1], {}]", f"[{'9' * 400}]", "[" * 20_000, "\0", "\ud800", "größer", "x" * 10_000)
"""What a column may hold instead of a target."""


def checks_targets_before_fit(subject: TaskSubject) -> None:
    """`check` takes the sample targets, and `stratum` gives a str for each, before `fit`: the host then picks the rows."""
    task = subject.new()
    for target in subject.targets:
        try:
            task.check(target)
        except CellError as error:
            fail(f"check refuses the sample target {target[:40]!r} ({error}); give some that it takes in `sample_targets`")
        if not isinstance(task.stratum(target), str):
            fail(f"stratum must return a str, for {target[:40]!r} it returned {task.stratum(target)!r}")


def fits_in_any_order(subject: TaskSubject) -> None:
    """The same targets give the same assets, whatever their order, and are not changed."""
    targets = subject.targets
    task = subject.new()
    task.fit(targets)
    if targets != subject.targets:
        fail("fit changed the list of targets; work on a copy")
    first = check_assets(task.assets())
    if name := same_assets(first, subject.fitted().assets()):
        fail(f"fitted twice on the same targets, asset {name!r} differs; sort what comes out of a set, and seed what is "
             "random")
    if name := same_assets(first, subject.fitted(targets[::-1]).assets(), SUM_TOLERANCE):
        fail(f"fitted on the same targets in another order, asset {name!r} differs; sort classes and vocabularies")


def encodes_targets(subject: TaskSubject) -> None:
    """`encode` gives a finite tensor `[U]` for each target, of one type, the same one twice."""
    task = subject.fitted()
    types = set()
    for target in subject.targets:
        y = task.encode(target)
        _check_encoded(y, target)
        types.add(y.dtype)
        if not same_bits(y, task.encode(target)):
            fail(f"encode gave other bits for {target[:40]!r} the second time; leave out randomness, and keep no state")
    if len(types) > 1:
        fail(f"encode must give one type for every target, it gave {' and '.join(sorted(map(str, types)))}")


def _check_encoded(y: object, target: str) -> None:
    if not isinstance(y, Tensor) or y.ndim != 1 or not len(y):
        given = list(y.shape) if isinstance(y, Tensor) else type(y).__name__
        fail(f"encode must return a tensor [U] with U > 0, for {target[:40]!r} it returned {given}")
    if y.is_floating_point() and not bool(y.isfinite().all()):
        fail(f"encode gave NaN or infinity for {target[:40]!r}; raise CellError for what is no target")


def refuses_with_cell_error(subject: TaskSubject) -> None:
    """Whatever text a column holds, `check` (fitted or not) and `encode` take it or raise CellError, and nothing else."""
    fitted = subject.fitted()
    for target in ODD_TARGETS:
        for method, task in (("check", subject.new()), ("check", fitted), ("encode", fitted)):
            try:
                y = getattr(task, method)(target)
            except CellError:
                continue
            except Exception as error:  # noqa: BLE001  whatever it is, it ends the user's run
                fail(f"{method} raised {type(error).__name__} ({str(error)[:80]}) for {target[:40]!r}; raise CellError, so "
                     "that the row is left out and told")
            if method == "encode":
                _check_encoded(y, target)


def keeps_what_it_learned(subject: TaskSubject) -> None:
    """Assets, through safetensors, make a second instance encode, label and guess as the first."""
    task, copy = subject.fitted(), subject.new(seed=1)
    copy.set_assets(through_bytes(check_assets(task.assets())))
    _compare(subject, task, copy)
    if list(task.labels) != list(copy.labels) or not all(isinstance(label, str) for label in task.labels):
        fail(f"after set_assets, labels are {list(copy.labels)[:5]}, not {list(task.labels)[:5]}; set them, as str, in both")
    if name := same_assets(task.assets(), copy.assets()):
        fail(f"after set_assets, asset {name!r} differs; give in `assets` all that `set_assets` took")


def _compare(subject: TaskSubject, task: Task, copy: Task) -> None:
    for target in subject.targets:
        if not torch.equal(task.encode(target), copy.encode(target)):
            fail(f"after set_assets, {target[:40]!r} is encoded otherwise; give what `fit` learned in `assets`")
    if task.baseline() != copy.baseline():
        fail("after set_assets, the baseline is another; give what `fit` learned in `assets`")
