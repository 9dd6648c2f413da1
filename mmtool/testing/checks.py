"""One check of one plugin: how it is run, and how it ends."""

from __future__ import annotations

import inspect
import time
import traceback
import unittest
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmtool.errors import MMToolError
from mmtool.testing.subject import Subject
from mmtool.testing.verdicts import Failure
from mmtool.testing.watching import stdout_kept

CheckFunction = Callable[[Any], None]
Contract = Mapping[CheckFunction, CheckFunction | None]
"""Each check, and the one that has to hold before it says anything of its own."""
Status = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True)
class Outcome:
    """How a check ended: `reason` says what to mend, or why it was skipped."""

    check: str
    status: Status
    reason: str = ""
    seconds: float = 0.0
    error: Exception | None = None
    blocked_by: str = ""


@dataclass(frozen=True, eq=False)
class Check:
    """One check of one plugin. A call raises AssertionError where it fails, unittest.SkipTest where it is skipped."""

    subject: Any
    """A Subject of the kind that the function takes."""
    function: CheckFunction
    contract: Contract

    def __str__(self) -> str:
        return self.function.__name__.replace("_", "-")

    def __call__(self) -> None:
        __tracebackhide__ = True  # pytest then shows the message alone, and the plugin's own error where there is one
        outcome = self.run()
        if outcome.status == "failed":
            raise AssertionError(f"{self.subject.name}: {outcome.reason}") from outcome.error
        if outcome.status == "skipped":
            raise unittest.SkipTest(outcome.reason)

    def run(self) -> Outcome:
        """The outcome; the same one when asked again."""
        done: dict[str, Outcome] = self.subject.outcomes
        if str(self) not in done:
            needed = self.contract[self.function]
            first = Check(self.subject, needed, self.contract).run() if needed else None
            if first and (culprit := first.check if first.status == "failed" else first.blocked_by):
                done[str(self)] = Outcome(str(self), "skipped", f"mend {culprit} first", blocked_by=culprit)
            else:
                done[str(self)] = self._run()
        return done[str(self)]

    def _run(self) -> Outcome:
        start = time.perf_counter()

        def outcome(status: Status, reason: str = "", error: Exception | None = None) -> Outcome:
            return Outcome(str(self), status, reason, time.perf_counter() - start, error)

        try:
            with stdout_kept(self.subject.printed):
                self.function(self.subject)
        except unittest.SkipTest as skip:
            return outcome("skipped", str(skip))
        except Failure as failure:
            return outcome("failed", str(failure))
        except Exception as error:  # noqa: BLE001  a plugin may raise anything, and that is the finding
            if extra := _missing_extra(error, self.subject):
                return outcome("skipped", f"needs the package {extra!r}, which is not installed")
            told = str(error) if isinstance(error, MMToolError) else f"{type(error).__name__}: {error}"
            return outcome("failed", told + _where(error, self.subject), error)
        return outcome("ok")


def _where(error: Exception, subject: Subject) -> str:
    """The last line of the plugin's own module that the error passed through."""
    if "cls" not in vars(subject):  # it could not be imported
        return ""
    source = inspect.getsourcefile(subject.cls)
    frames = traceback.extract_tb((error.__cause__ or error).__traceback__)
    own = [f for f in frames if f.filename == source]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def _missing_extra(error: Exception, subject: Subject) -> str | None:
    cause = error.__cause__ if isinstance(error, MMToolError) else error
    if not isinstance(cause, ModuleNotFoundError) or cause.name is None:
        return None
    own = subject.plugin.target.partition(".")[0].partition(":")[0]
    package = cause.name.partition(".")[0]
    return package if package != own else None
