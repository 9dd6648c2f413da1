"""The check of what a task states."""

from __future__ import annotations

from mmtool.testing.statement import is_a_class_of_its_kind
from mmtool.testing.tasks.subject import TaskSubject
from mmtool.testing.verdicts import fail


def states_what_it_is(subject: TaskSubject) -> None:
    """A class that can be imported and states api, what it needs, its main metric, and sample targets."""
    is_a_class_of_its_kind(subject)
    cls = subject.cls
    if cls.needs not in ("pooled", "tokens", "towers"):
        fail(f'needs is "pooled", "tokens" or "towers", it is {cls.needs!r}')
    if not isinstance(cls.main_metric, str) or not cls.main_metric:
        fail('state the metric that one line has room for, such as `main_metric = "accuracy"`, and `greater_is_better`')
    for name in ("linear", "calibrated", "conformal", "greater_is_better"):
        if not isinstance(getattr(cls, name), bool):
            fail(f"{name} is True or False, it is {getattr(cls, name)!r}")
    samples = cls.sample_targets
    if isinstance(samples, str) or not all(isinstance(t, str) for t in samples) or len(set(samples)) < 2:
        fail(f"sample_targets must be several strings, as a column holds them, of at least two kinds; it is {samples!r}")
