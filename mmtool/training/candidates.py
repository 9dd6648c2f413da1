"""What takes part in a comparison: fusions of all inputs, every single input, every subset, simple heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from mmtool import encoding, plugins, specs
from mmtool.api import Task
from mmtool.errors import MMToolError, UsageError
from mmtool.network import MOST_SUBSETS_OF
from mmtool.training import checks

LINEAR = "concat"
"""Single inputs and subsets are judged with the linear head that is solved for."""
HEADS = ((64,), (256, 64))
"""Dense layers behind concatenated inputs."""


@dataclass(frozen=True)
class Candidate:
    """One way to predict: `inputs` through a fusion (as the command line writes it) and dense layers of widths `hidden`.

    `changes`: fields of the run's settings that it has its own values for.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    fusion: str
    hidden: tuple[int, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)


def choose(names: Sequence[str], wanted: Sequence[str], tasks: Mapping[str, Task], hidden: tuple[int, ...],
           *, only_fusions: bool) -> tuple[list[Candidate], list[dict[str, str]]]:
    """The candidates over these inputs, and those that cannot take part, with why.

    `wanted`: fusions as the command line writes them; none: every one that is installed. Of a single input only heads
    are compared. Raises MMToolError as `check` does.
    """
    every = tuple(sorted(names))
    out: list[Candidate] = []
    skipped: list[dict[str, str]] = []
    check(wanted, tasks)
    fusions = list(wanted) or installed()
    for text in fusions if len(every) > 1 or wanted else [LINEAR]:
        try:
            fusion_of(text, tasks)
        except MMToolError as error:
            skipped.append({"name": text, "why": str(error)})
        else:
            out.append(Candidate(text, "fusion", every, text, hidden))
    if only_fusions:
        return out, skipped
    if not hidden:
        out += [Candidate(f"{LINEAR}, dense {'-'.join(map(str, widths))}", "head", every, LINEAR, widths) for widths in HEADS]
    sizes = range(1, len(every)) if len(every) <= MOST_SUBSETS_OF else (1,)
    for size in sizes:
        for subset in combinations(every, size):
            kind = "input" if size == 1 else "subset"
            out.append(Candidate(f"{' + '.join(subset)}{' alone' if size == 1 else ''}", kind, subset, LINEAR, hidden))
    return out, skipped


def check(wanted: Sequence[str], tasks: Mapping[str, Task]) -> None:
    """Raises MMToolError for a fusion that is named and cannot be had, suits no task, or is named twice."""
    for text in wanted:
        fusion_of(text, tasks)
        if wanted.count(text) > 1:
            raise UsageError(f"fusion {text!r} is named twice")


def installed() -> list[str]:
    """Every fusion that is installed, by name."""
    return sorted({p.name for p in plugins.found() if p.kind == "fusion"})


def sources() -> list[list[str]]:
    """What tells the fusions that are installed from others: package, name, and SHA-256 of the source."""
    out = []
    for plugin in (p for p in plugins.found() if p.kind == "fusion"):
        try:
            source = encoding.source_sha256(plugins.load(plugin))
        except MMToolError:  # takes no part
            source = ""
        out.append([plugin.package, plugin.name, source])
    return out


def fusion_of(text: str, tasks: Mapping[str, Task]) -> tuple[Any, dict[str, Any]]:
    """The class and the options of a fusion that suits these tasks. Raises MMToolError."""
    spec = specs.parse(text)
    cls = plugins.load(plugins.find(spec.name, "fusion"))
    checks.check_fit(text, cls, tasks)
    return cls, specs.bind(cls, spec)
