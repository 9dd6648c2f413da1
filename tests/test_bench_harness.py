"""What tests/benchmarks/run.py makes of figures: medians of interleaved runs, the table, and changes since a baseline."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent / "benchmarks"))

import bench_table
import harness
from harness import Row

ROWS = [Row("extract ÷ plain loop", 240.0, "plain", "img/s", plain=60.0, promised=4.0, note="best of 3"),
        Row("predict ÷ import torch", 3.0, "limit", "s", limit=1.0, promised=2.5, at_most=True)]


def test_runs_are_interleaved_and_a_median_is_taken_of_each() -> None:
    order: list[str] = []
    figures = {"ours": iter([1.0, 50.0, 2.0]), "plain": iter([7.0, 8.0, 9.0])}

    def run(name: str) -> float:
        order.append(name)
        return next(figures[name])

    found = harness.interleave({name: lambda name=name: run(name) for name in figures}, 3)
    assert order == ["ours", "plain"] * 3
    assert harness.medians(found) == {"ours": 2.0, "plain": 8.0}


def test_no_round_begins_that_would_end_too_late() -> None:
    assert harness.interleave({"one": lambda: 1}, 5, until=time.monotonic() - 1) == {"one": [1]}


def test_a_ratio_is_ours_by_the_other_and_a_promise_has_a_direction() -> None:
    assert [row.ratio for row in ROWS] == [4.0, 3.0]
    assert [row.kept for row in ROWS] == [True, False]
    assert Row("stated", 1.0, "peer", "s", peer=2.0).kept is None


def test_rows_survive_json() -> None:
    assert [Row.of(row.as_json()) for row in ROWS] == ROWS


def test_the_table_has_a_line_for_each_row_and_its_note() -> None:
    lines = bench_table.table(ROWS).splitlines()
    assert lines[0].split() == ["what", "ours", "plain", "loop", "peer", "limit", "unit", "ratio", "promised"]
    assert lines[1].split()[-6:] == ["60", "img/s", "4.00", ">=", "4", "kept"]
    assert lines[2].endswith("3.00    <= 2.5  NOT KEPT")
    assert lines[-1].endswith("extract ÷ plain loop: best of 3")


def test_changes_over_ten_percent_are_told_with_their_direction() -> None:
    assert bench_table.changes(ROWS, bench_table.ratios(ROWS)) == []
    told = bench_table.changes(ROWS, {"extract ÷ plain loop": 4.3, "predict ÷ import torch": 2.0, "gone": 1.5})
    assert told == ["predict ÷ import torch: 3.00, was 2.00 (+50%, WORSE)", "gone: not measured, was 1.50"]
    assert bench_table.changes(ROWS[:1], {}) == ["extract ÷ plain loop: 4.00, not in the baseline"]


def test_a_command_that_fails_tells_its_last_words() -> None:
    with pytest.raises(harness.Failed, match="ended with 3: no such picture"):
        harness.command([sys.executable, "-c", "import sys; print('no such picture', file=sys.stderr); sys.exit(3)"])
    assert harness.command([sys.executable, "-c", "print('fine')"]).out == "fine\n"
