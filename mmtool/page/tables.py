"""The tables of a target: metrics, metrics by inputs, classes and the frequent confusions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from mmtool.page import scores as s
from mmtool.page import words
from mmtool.page.contents import TargetPart

MOST_PAIRS, OPEN_ROWS, MATRIX = 10, 12, 12


@dataclass(frozen=True)
class Table:
    """`heads` with the meaning of each (or ""), and rows of cells (value, small print)."""

    heads: list[tuple[str, str]]
    rows: list[list[tuple[str, str]]]
    note: str = ""

    @property
    def long(self) -> bool:
        """Is it better folded?"""
        return len(self.rows) > OPEN_ROWS


def metrics(part: TargetPart) -> Table:
    """Every metric with its interval and what it says."""
    found = part.metrics["overall"]
    order = {name: i for i, name in enumerate((part.main_metric, *words.ABOUT))}
    names = sorted(found, key=lambda name: (order.get(name, len(order)), name))
    rows = []
    for name in names:
        up = words.greater(part, name)
        about = words.ABOUT.get(name, ("", ""))[1]
        rows.append([(words.title_of(name), about), (words.number(found[name]["value"]), words.interval(found[name])),
                     ("higher" if up else "lower", "")])
    return Table([("metric", ""), ("value", "with the 95 % interval"), ("better", "")], rows)


def by_inputs(part: TargetPart) -> Table:
    """The first metrics for all rows, each subset of inputs and each baseline."""
    overall = part.metrics["overall"]
    wanted = [words.chosen(part) or "", "f1_macro", "roc_auc", "spearman", "mae", "rmse", "log_loss"]
    used = [m for m in dict.fromkeys(wanted) if m in overall][:3]
    used = used or sorted(overall)[:3]
    rows = [[(name, about), *(_cell(found.get(m)) for m in used)] for name, about, found in words.lines(part)]
    return Table([("inputs", ""), *((words.title_of(m), words.ABOUT.get(m, ("", ""))[1]) for m in used)], rows)


def _cell(metric: words.Metric | None) -> tuple[str, str]:
    return ("–", "") if metric is None else (words.number(metric["value"]), words.interval(metric))


def labels(part: TargetPart) -> Table | None:
    """Rows, precision, recall and F1 of each class or tag."""
    if part.task == "classify":
        truth, answers = [{t} for t in part.truth], [{a} for a in s.answers(part)]
        known = s.by_frequency([*part.truth, *s.answers(part)], Counter(part.truth))
        absent = [name for name in part.labels if name not in set(known)]
    elif part.task == "tag":
        from mmtool.page.figures_tag import given_of, tags_of

        truth, answers = tags_of(part), given_of(part)
        occurrences = Counter(tag for tags in truth for tag in tags)
        known, absent = s.by_frequency(part.labels, occurrences), [n for n in part.labels if not occurrences[n]]
    else:
        return None
    hits, wanted, given = (Counter(n for names in each for n in names) for each in
                           ([t & a for t, a in zip(truth, answers, strict=True)], truth, answers))
    rows = [[(name, ""), (f"{wanted[name]:,}", ""), *_three(hits[name], wanted[name], given[name])] for name in known]
    note = ""
    if absent:
        more = f" and {len(absent) - 10} more" if len(absent) > 10 else ""
        note = f"Known to the model, but true of no row here: {', '.join(absent[:10])}{more}."
    return Table([("class" if part.task == "classify" else "tag", ""), ("rows", "rows of which it is true"),
                  ("precision", "share of the rows given this label that have it"),
                  ("recall", "share of the rows with this label that are given it"), ("F1", "harmonic mean of the two")],
                 rows, note)


def _three(hits: int, wanted: int, given: int) -> list[tuple[str, str]]:
    precision, recall, f1 = (None if n == 0 else h / n for h, n in ((hits, given), (hits, wanted), (2 * hits, wanted + given)))
    return [("–" if v is None else words.number(v), "") for v in (precision, recall, f1)]


def confusions(part: TargetPart) -> Table | None:
    """The most frequent mistakes, where there are too many classes for a matrix of numbers."""
    if part.task != "classify" or len({*part.truth, *s.answers(part)}) <= MATRIX:
        return None
    pairs = Counter((t, a) for t, a in zip(part.truth, s.answers(part), strict=True) if t != a)
    totals = Counter(part.truth)
    rows = [[(true, ""), (answer, ""), (f"{n:,} of {totals[true]:,}", "")]
            for (true, answer), n in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:MOST_PAIRS]]
    return Table([("true", ""), ("predicted", ""), ("rows", "of the rows that are truly this")], rows) if rows else None


def contents(parts: list[TargetPart]) -> list[dict[str, Any]]:
    """A line for each of several targets: its number, column, task and main metric beside no input."""
    out = []
    for number, part in enumerate(parts, 1):
        metric = words.chosen(part)
        if metric is None and part.comparison:
            out.append(_compared(number, part, part.comparison))
            continue
        nothing = part.metrics.get("baselines", {}).get(words.WITHOUT, {}).get(metric) if metric else None
        out.append({"number": number, "column": part.column, "task": part.task, "metric": words.title_of(metric or ""),
                    "value": _cell(part.metrics["overall"][metric]) if metric else ("–", ""), "nothing": _cell(nothing)})
    return out


def _compared(number: int, part: TargetPart, found: dict[str, Any]) -> dict[str, Any]:
    best, nothing = next(iter(found["candidates"]), None), found.get("without_inputs")
    return {"number": number, "column": part.column, "task": part.task, "metric": words.title_of(found["metric"]),
            "value": _cell(best), "nothing": ("–" if nothing is None else words.number(nothing), "")}
