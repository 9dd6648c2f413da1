"""What a user reads of a comparison: from `compare` and `train -f auto` to `info` and `eval`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from made import LETTERS, table


def test_compare_is_printed_narrow_told_again_by_info_and_replaced_aloud(mmtool: Callable, tmp_path: Path) -> None:
    data, out, model = table(tmp_path), tmp_path / "report", tmp_path / "m.safetensors"
    ran = mmtool("compare", data, "-o", out, "-t", "label", "-f", "concat", "-f", "late", *LETTERS, "--json")
    assert ran.code == 0, ran.err
    names = [c["name"] for c in json.loads(ran.out)["targets"]["label"]["candidates"]]
    assert {"concat", "late", "a alone"} <= set(names)
    told = mmtool("info", out).out.splitlines()
    start = next(i for i, line in enumerate(told) if line.startswith("candidate"))
    assert max(map(len, told[start:start + len(names) + 1])) <= 112
    assert all(line in ran.err for line in told[start:])
    assert mmtool("train", data, "-o", model, "-t", "label", *LETTERS).code == 0
    ran = mmtool("eval", model, data, "-o", out)
    assert f"the comparison that was in {out} is replaced" in ran.err
    assert ran.err.count("accuracy") == 1
    assert "f1_micro" not in ran.err
    assert not (out / "comparison.json").exists()


def test_auto_says_how_many_it_chose_from_and_info_shows_them(mmtool: Callable, tmp_path: Path) -> None:
    data, model = table(tmp_path, rows=40), tmp_path / "m.safetensors"
    ran = mmtool("train", data, "-o", model, "-t", "label", "-f", "auto", "--epochs", "1", *LETTERS)
    assert ran.code == 0, ran.err
    count = len(json.loads(mmtool("info", model, "--json").out)["comparison"]["label"]["candidates"])
    assert f", of {count} candidates; `mmtool info MODEL`" in ran.err
    assert f"Of {count} candidates, " in mmtool("info", model).out
