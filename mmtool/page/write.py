"""report.html and plots/*.svg."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmtool import files
from mmtool.console import literal
from mmtool.page import comparison, doubt, tables, words, worth
from mmtool.page.contents import Page, Shown, TargetPart
from mmtool.page.figures import Plot, by_inputs, curves, slug
from mmtool.page.figures_comparison import dots
from mmtool.page.figures_worth import bars
from mmtool.page.worst import worst_rows
from mmtool.report import PAGE, PLOTS

OWN_SECTION = ("comparison", "worth")
MEDIA_BYTES = 1_500_000
"""What the pictures and sounds of a page may hold together."""
URI_KINDS = {"image": ("data:image/jpeg;base64,", "data:image/png;base64,"),
             "audio": ("data:audio/mpeg;base64,", "data:audio/wav;base64,", "data:audio/ogg;base64,")}
TEXT_CHARS = 600


def write(folder: Path, page: Page) -> None:
    """Write the page and its plots into a new folder; equal pages give equal bytes."""
    plots = [plots_of(part) for part in page.targets]
    names = _names([part.column for part in page.targets])
    kept = {f"{name}-{plot.kind}.svg": plot.svg for name, each in zip(names, plots, strict=True) for plot in each}
    (folder / PLOTS).mkdir()
    for name, svg in sorted(kept.items()):
        files.write_bytes(folder / PLOTS / name, svg)
    files.write_bytes(folder / PAGE, render(page, plots).encode())


def plots_of(part: TargetPart) -> list[Plot]:
    """Every plot that a target's task and predictions allow, the most telling first."""
    own: list[Plot] = []
    if part.predictions and part.task == "classify":
        from mmtool.page import figures_classify

        own = figures_classify.plots(part)
    elif part.predictions and part.task == "tag":
        from mmtool.page import figures_tag

        own = figures_tag.plots(part)
    elif part.predictions and part.task == "regress":
        from mmtool.page import figures_regress

        own = figures_regress.plots(part)
    return [plot for plot in (dots(part), bars(part), by_inputs(part), *own, curves(part)) if plot is not None]


def render(page: Page, plots: Sequence[Sequence[Plot]]) -> str:
    """The page as HTML. Everything that comes from files is escaped, and characters that turn or hide text are spelled out."""
    from importlib.resources import files as resources

    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                              finalize=_visible)
    environment.filters["svg"] = lambda svg: "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
    template = environment.from_string((resources("mmtool.page") / "page.html.jinja").read_text(encoding="utf-8"))
    show = _within_budget(page.cells)
    targets = [_target(part, each, show) for part, each in zip(page.targets, plots, strict=True)]
    return template.render(page=page, contents=tables.contents(page.targets), targets=targets,
                           scored=any(part.predictions for part in page.targets)).lstrip()


def _target(part: TargetPart, plots: Sequence[Plot], show: Callable[[str], list[Shown]]) -> dict[str, Any]:
    how, rows = worst_rows(part)
    measured = bool(part.metrics.get("overall"))
    own = {plot.kind: plot for plot in plots if plot.kind in OWN_SECTION}
    told = part.metrics.get("doubt", {})
    return {"part": part, "rows": len(part.predictions) or (part.comparison or {}).get("rows", 0),
            "sentences": [*words.sentences(part), *doubt.sentences(told)] if part.metrics else [],
            "doubt": doubt.table(told), "summary": words.summary(part),
            "plots": [plot for plot in plots if plot.kind not in own], "comparison": _comparison(part, own),
            "worth": _worth(part, own), "metrics": tables.metrics(part) if measured else None,
            "by_inputs": tables.by_inputs(part) if measured else None,
            "labels": tables.labels(part) if part.predictions else None,
            "confusions": tables.confusions(part) if part.predictions else None, "how": how,
            "worst": [(row, show(row.id)) for row in rows]}


def _worth(part: TargetPart, plots: dict[str, Plot]) -> dict[str, Any] | None:
    found = part.worth
    return None if not found else {"plot": plots["worth"], "sentences": worth.sentences(found), "table": worth.table(found),
                                   "pairs": worth.pairs(found), "subsets": worth.subsets(found)}


def _comparison(part: TargetPart, plots: dict[str, Plot]) -> dict[str, Any] | None:
    found = part.comparison
    return None if not found else {"plot": plots.get("comparison"), "sentences": comparison.sentences(found),
                                   "table": comparison.table(found), "skipped": comparison.skipped(found)}


def _within_budget(cells: Callable[[str], list[Shown]]) -> Callable[[str], list[Shown]]:
    """The cells of a row, checked and cut; once the page holds enough, pictures and sounds are left out, aloud."""
    left = [MEDIA_BYTES]

    def one(cell: Shown) -> Shown:
        uri = cell.data_uri
        if cell.text is not None and len(cell.text) > TEXT_CHARS:
            cell = replace(cell, text=cell.text[:TEXT_CHARS - 1] + "…")
        if uri is None:
            return cell
        if not uri.startswith(URI_KINDS.get(cell.modality, ())):
            return replace(cell, data_uri=None, problem="not a kind of picture or sound that this page shows")
        if len(uri) > left[0]:
            return replace(cell, data_uri=None, problem="left out, so that the page stays small")
        left[0] -= len(uri)
        return cell
    return lambda row_id: [one(cell) for cell in cells(row_id)]


def _visible(value: Any) -> Any:
    """Every text that is put into the page; markup made by the template itself is left alone."""
    return literal(" ".join(value.split())) if type(value) is str else value


def _names(columns: Sequence[str]) -> list[str]:
    """The start of each target's file names: no two alike, whatever the letters' case."""
    slugs = [slug(column) for column in columns]
    unique = len({name.lower() for name in slugs}) == len(slugs)
    return slugs if unique else [f"{number}-{name}" for number, name in enumerate(slugs, 1)]
