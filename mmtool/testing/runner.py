"""Running the contract on plugins that are installed, and counting how it went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mmtool import plugins, specs
from mmtool.testing.checks import Check, Outcome
from mmtool.testing.contract import checks

CENTRAL = {"encoder": "gives-tokens", "fusion": "gives-tokens", "task": "decodes-rows"}
"""The check of each kind without which little was tried."""


@dataclass(frozen=True)
class Report:
    """How the contract went for one plugin, given as the command line writes it."""

    plugin: str
    kind: str
    package: str
    outcomes: tuple[Outcome, ...]

    def count(self, status: str) -> int:
        """How many checks ended so."""
        return sum(o.status == status for o in self.outcomes)

    @property
    def status(self) -> str:
        """`failed` where one check failed, `skipped` where the central one never ran (a missing extra), else `ok`."""
        return "failed" if self.count("failed") else self._central.status

    @property
    def _central(self) -> Outcome:
        return next(o for o in self.outcomes if o.check == CENTRAL[self.kind])

    @property
    def summary(self) -> str:
        """`18 ok, 4 skipped, 0.7 s`, then what failed, and how."""
        counts = [f"{self.count(s)} {s}" for s in ("ok", "failed", "skipped") if self.count(s)]
        seconds = sum(o.seconds for o in self.outcomes)
        failures = [f"{o.check}: {o.reason}" for o in self.outcomes if o.status == "failed"]
        if self.status == "skipped":
            failures = [self._central.reason]
        return "; ".join([f"{', '.join(counts)}, {seconds:.1f} s", *failures])

    def as_json(self) -> dict[str, Any]:
        """Plain values: plugin, kind, package, status, and each check with its status, reason and seconds."""
        return {"plugin": self.plugin, "kind": self.kind, "package": self.package, "status": self.status,
                "checks": [{"check": o.check, "status": o.status, "reason": o.reason, "seconds": round(o.seconds, 3)}
                           for o in self.outcomes]}


def check_plugins(texts: Sequence[str], *, load: bool = True,
                  on_outcome: Callable[[str, Outcome], None] | None = None,
                  on_report: Callable[[Report], None] | None = None) -> list[Report]:
    """The contract on each named plugin, or on every installed one of all kinds. `load` means something to encoders.

    Raises PluginError for a name that is unknown, or that two plugins have.
    """
    named = [(text, plugins.find_any(specs.parse(text).name)) for text in texts] or installed()
    reports = []
    for text, plugin in named:
        outcomes = []
        for check in checks(plugin.kind, text, load=load):
            outcomes.append(check.run())
            if on_outcome:
                on_outcome(text, outcomes[-1])
        reports.append(Report(text.removeprefix(f"{plugin.kind}/"), plugin.kind, plugin.package, tuple(outcomes)))
        if on_report:
            on_report(reports[-1])
    return reports


def installed() -> list[tuple[str, plugins.Found]]:
    """Every installed plugin with a name that no other of its kind has."""
    names = [(p.kind, p.name) for p in plugins.found()]
    return [(p.full_name if names.count((p.kind, p.name)) > 1 else p.name, p) for p in plugins.found()]


def installed_checks() -> list[tuple[str, Check]]:
    """Every check of every installed plugin, with an id for pytest."""
    return [(f"{plugin.kind}-{name}-{check}", check) for name, plugin in installed() for check in checks(plugin.kind, name)]
