"""Running the contract on plugins that are installed, and counting how it went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mmtool import plugins, specs
from mmtool.testing.contract import Check, Outcome, encoder_checks


@dataclass(frozen=True)
class Report:
    """How the contract went for one encoder, given as the command line writes it."""

    encoder: str
    package: str
    outcomes: tuple[Outcome, ...]

    def count(self, status: str) -> int:
        """How many checks ended so."""
        return sum(o.status == status for o in self.outcomes)

    @property
    def status(self) -> str:
        """`failed` where one check failed, `skipped` where it never came to tokens (a missing extra), else `ok`."""
        return "failed" if self.count("failed") else self._tokens.status

    @property
    def _tokens(self) -> Outcome:
        return next(o for o in self.outcomes if o.check == "gives-tokens")

    @property
    def summary(self) -> str:
        """`18 ok, 4 skipped, 0.7 s`, then what failed, and how."""
        counts = [f"{self.count(s)} {s}" for s in ("ok", "failed", "skipped") if self.count(s)]
        seconds = sum(o.seconds for o in self.outcomes)
        failures = [f"{o.check}: {o.reason}" for o in self.outcomes if o.status == "failed"]
        if self.status == "skipped":
            failures = [self._tokens.reason]
        return "; ".join([f"{', '.join(counts)}, {seconds:.1f} s", *failures])

    def as_json(self) -> dict[str, Any]:
        """Plain values: encoder, package, status, and each check with its status, reason and seconds."""
        return {"encoder": self.encoder, "package": self.package, "status": self.status,
                "checks": [{"check": o.check, "status": o.status, "reason": o.reason, "seconds": round(o.seconds, 3)}
                           for o in self.outcomes]}


def check_encoders(texts: Sequence[str], *, load: bool = True,
                   on_outcome: Callable[[str, Outcome], None] | None = None,
                   on_report: Callable[[Report], None] | None = None) -> list[Report]:
    """The contract on each named encoder, or on every installed one. Raises PluginError for a name that is unknown."""
    named = [(text, plugins.find(specs.parse(text).name)) for text in texts] or \
            [(name, plugins.find(name)) for name in installed_encoders()]
    reports = []
    for text, plugin in named:
        outcomes = []
        for check in encoder_checks(text, load=load):
            outcomes.append(check.run())
            if on_outcome:
                on_outcome(text, outcomes[-1])
        reports.append(Report(text, plugin.package, tuple(outcomes)))
        if on_report:
            on_report(reports[-1])
    return reports


def installed_encoders() -> list[str]:
    """The name of every installed encoder, with its distribution where two have the same."""
    found = [p for p in plugins.found() if p.kind == "encoder"]
    names = [p.name for p in found]
    return [p.full_name if names.count(p.name) > 1 else p.name for p in found]


def installed_checks() -> list[tuple[str, Check]]:
    """Every check of every installed encoder, with an id for pytest."""
    return [(f"{name}-{check}", check) for name in installed_encoders() for check in encoder_checks(name)]
