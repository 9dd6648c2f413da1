"""What goes on the page. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Curve:
    """Losses of one training; one a part (fold). `x_label` is "epoch", or another quantity, drawn on a log axis."""

    name: str
    x: list[float]
    x_label: str
    fit: list[float] | None
    held: list[float]
    best: float | None


@dataclass(frozen=True)
class Shown:
    """One cell of a row: text, or a small picture or sound as a data: URI, or the problem that keeps it from being shown."""

    input: str
    modality: str
    column: str
    text: str | None = None
    data_uri: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class TargetPart:
    """All about one target. `metrics` as in a metrics.json, `predictions` as in predictions.jsonl, `truth` as written.

    Rows of `predictions` and `truth` belong together; all of them were scored. Where nothing was scored, these and `metrics`
    may be empty. `worth`: what each input is worth, as in a metrics.json; `comparison`: the candidates that were compared.
    """

    column: str
    task: str
    labels: list[str]
    main_metric: str
    greater_is_better: bool
    metrics: dict[str, Any]
    predictions: list[dict[str, Any]]
    truth: list[str]
    curves: list[Curve]
    worth: dict[str, Any] | None = None
    comparison: dict[str, Any] | None = None


@dataclass(frozen=True)
class Page:
    """The whole page. `cells` gives a row's cells by its id, and is called only for the rows that are shown."""

    title: str
    facts: list[tuple[str, str]]
    notes: list[str]
    targets: list[TargetPart]
    cells: Callable[[str], list[Shown]]
