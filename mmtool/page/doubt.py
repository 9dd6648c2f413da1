"""How far certainty can be trusted, in words and as a table: coverage, abstaining."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmtool.page import words
from mmtool.page.tables import Table


def sentences(found: Mapping[str, Any]) -> list[str]:
    """Of `doubt` of a metrics.json, one sentence each on coverage and abstaining."""
    out = []
    if "coverage" in found:
        c = found["coverage"]
        what = "sets" if "set_size" in found else "intervals"
        low, high = c["band"]
        end = "." if low <= c["value"] <= high else ", so these rows may be unlike those that calibrated it."
        out.append(f"Asked to hold the truth for {c['asked']:.4g} of the rows, the {what} do so for {words.with_interval(c)}; "
                   f"with {c['calibration_rows']:,} calibration rows a sound method is between {words.number(low)} and "
                   f"{words.number(high)} in 95 % of draws of as many rows{end}{_size(found)}")
    if "abstain" in found:
        a = found["abstain"]
        out.append(f"Answers with a probability of at least {a['below']:.4g} are {words.with_interval(a['kept'])} of the rows"
                   + (f"; of them {words.with_interval(a['accuracy'])} are right." if "accuracy" in a else "."))
    return out


def _size(found: Mapping[str, Any]) -> str:
    if "set_size" in found:
        empty = f"; {words.number(found['empty'])} of them are empty, no label being likely enough" if found["empty"] else ""
        return f" A set has {words.number(found['set_size'])} labels on average{empty}."
    width = found["interval_width"]
    return " Intervals have no end." if width is None else f" An interval is {words.number(width)} wide on average."


def table(found: Mapping[str, Any]) -> Table | None:
    """Coverage and size for all rows and each subset of inputs."""
    if "coverage" not in found:
        return None
    size = "labels" if "set_size" in found else "width"
    rows = [_row("all rows", found), *(_row(words.name_of(key), each) for key, each in found["by_inputs"].items())]
    return Table([("inputs", ""), ("coverage", "share of rows whose set or interval holds the truth"),
                  ("by chance", "where the coverage of a sound method lies in 95 % of draws"),
                  (size, "mean size of a set" if size == "labels" else "mean width of an interval")], rows,
                 f"{found['coverage']['asked']:.4g} was asked.")


def _row(name: str, found: Mapping[str, Any]) -> list[tuple[str, str]]:
    c = found["coverage"]
    size = found.get("set_size", found.get("interval_width"))
    return [(name, f"{c['calibration_rows']:,} calibration rows"), (words.number(c["value"]), words.interval(c)),
            (f"{words.number(c['band'][0])} to {words.number(c['band'][1])}", ""),
            ("∞" if size is None else words.number(size), "")]
