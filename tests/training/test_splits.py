"""Rows in parts."""

from __future__ import annotations

import tracemalloc
from collections import Counter

from mmtool.training import splits


def test_folds_spread_strata_and_never_tear_a_group() -> None:
    rows = list(range(120))
    strata, groups = ["ab"[i % 3 == 0] for i in rows], [f"g{i // 4}" for i in rows]
    parts = splits.folds(rows, strata, groups, 5, 0)
    assert sorted(row for part in parts for row in part) == rows
    assert all(Counter(groups[row] for row in part).most_common()[-1][1] == 4 for part in parts)
    assert all(abs(sum(strata[row] == "a" for row in part) - 16) <= 3 for part in parts)


def test_many_strata_take_no_more_memory_than_the_rows_do() -> None:
    rows = list(range(8000))
    tracemalloc.start()  # numpy tells it what it takes
    try:
        parts = splits.folds(rows, [str(row % 4000) for row in rows], None, 5, 0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sorted(map(len, parts)) == [1600] * 5
    assert peak < 30e6  # a table of rows and strata would be 256 MB
