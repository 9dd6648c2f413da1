"""The table of all rows, and what changed since the stored baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness import Row

CHANGE = 0.10
HEADS = ("what", "ours", "plain loop", "peer", "limit", "unit", "ratio", "promised", "")


def table(rows: Sequence[Row]) -> str:
    """One line a row, columns aligned, and the notes beneath."""
    lines = [HEADS, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADS))]
    told = ["  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True)))
            for line in lines]
    notes = [f"  {row.what}: {row.note}" for row in rows if row.note]
    return "\n".join(line.rstrip() for line in [*told, *(["", "notes", *notes] if notes else [])])


def _cells(row: Row) -> tuple[str, ...]:
    promised = "stated" if row.promised is None else f"{'<=' if row.at_most else '>='} {row.promised:g}"
    mark = {None: "", True: "kept", False: "NOT KEPT"}[row.kept]
    return (row.what, _number(row.ours), *(_number(getattr(row, n)) for n in ("plain", "peer", "limit")), row.unit,
            f"{row.ratio:.2f}", promised, mark)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def ratios(rows: Sequence[Row]) -> dict[str, float]:
    """What a baseline keeps: ratios, which other machines share, and no absolute figures."""
    return {row.what: round(row.ratio, 4) for row in rows}


def changes(rows: Sequence[Row], baseline: Mapping[str, float]) -> list[str]:
    """A line for each ratio that is over 10 % off its baseline, better or worse, and for those that only one side has."""
    lines = []
    now = {row.what: row for row in rows}
    for what, row in now.items():
        if what not in baseline:
            lines.append(f"{what}: {row.ratio:.2f}, not in the baseline")
        elif abs(change := row.ratio / baseline[what] - 1) > CHANGE:
            better = (change > 0) != row.at_most
            way = "better" if better else "WORSE"
            lines.append(f"{what}: {row.ratio:.2f}, was {baseline[what]:.2f} ({change:+.0%}, {way})")
    lines += [f"{what}: not measured, was {ratio:.2f}" for what, ratio in baseline.items() if what not in now]
    return lines
