"""Names that are markup, code, escape codes, formulas or very long go through every verb as the text that they are."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from xml.dom.minidom import parse

import pyarrow.parquet as pq
import pytest
from flows.made import table, write

from mmtool import console, inputs, predictions

RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
ODD = ["[/x]", "[bold]", "\x1b[31mred\x1b[0m", "a\nb\tc", "</script><script>alert(1)</script>", "\"'`", "{{ 7*7 }}",
       "{% raw %}", "$(id)", "=1+1", "+x", "-x", "@x", "n" * 10_000, "\u202egnp", "👨\u200d👩\u200d👧", "\u00e9", "e\u0301",
       "%s{0}", "\x9b31m", "\x00z", "status:ok", "__metadata__", "..", "CON", "$x^{2$", "\\frac{"]
A, B, TARGET = "in\x1b[1m</b>{{x}}", "[b]$a_{", "[/x]</script>\x1b[31m\n{{ 7*7 }}=t"
CLASSES = ["</script><script>alert(1)</script>\x1b[1m[/x]", "=cmd ' /C calc'!A0 {{ 7*7 }}\u202e"]


def odd_table(folder: Path) -> Path:
    rows = [json.loads(line) for line in table(folder, 112).read_text().splitlines()]
    return write(folder / "odd.jsonl", [
        {"id": f"{ODD[i % len(ODD)]}{i}", A: r["a"], B: r["b"] + ODD[i % 5], TARGET: CLASSES[r["label"] == "high"],
         "other": ODD[i % len(ODD)], "split": r["split"]} for i, r in enumerate(rows)])


def test_odd_names_go_through_the_whole_chain(mmtool: Callable, tmp_path: Path) -> None:
    data, model = odd_table(tmp_path), tmp_path / "m.safetensors"
    ids = [json.loads(line)["id"] for line in data.read_text().splitlines()]
    ran = mmtool("train", data, "-t", TARGET, "-o", model, "-e", f"{A}=tiny-letters", "-e", f"{B}=tiny-letters")
    assert ran.code == 0 and not RAW.search(ran.err), ran.err
    assert r"task: [/x]</script>\x1b[31m\n{{ 7*7 }}=t=classify" in ran.err
    ran = mmtool("eval", model, data, "-o", tmp_path / "r")
    assert ran.code == 0 and not RAW.search(ran.err), ran.err
    page = (tmp_path / "r/report.html").read_text()
    assert not RAW.search(page) and "<script" not in page and "{{ 7*7 }}" in page and r"\x1b[31m" in page
    for plot in (tmp_path / "r/plots").glob("*.svg"):
        assert not parse(str(plot)).getElementsByTagName("script")
    for name in ("p.jsonl", "p.csv", "p.parquet"):
        ran = mmtool("predict", data, "-m", model, "-o", tmp_path / name)
        assert ran.code == 0 and not RAW.search(ran.err), ran.err
        told = "hold a text that begins with =, +, - or @, which a spreadsheet would compute: import the columns as text"
        assert (told in ran.err) == (name == "p.csv")
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as f:
        found = list(csv.DictReader(f))
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    kept = pq.read_table(tmp_path / "p.parquet")["id"].to_pylist()
    assert ids == [p["id"] for p in found] == [p["id"] for p in lines] == kept
    assert {p["prediction"] for p in found} == {p["prediction"] for p in lines} == set(CLASSES)
    ran = mmtool("eval", tmp_path / "p.jsonl", data, "-t", TARGET, "-o", tmp_path / "r")
    assert ran.code == 0 and not RAW.search(ran.err), ran.err
    for command in (("info", model), ("predict", "-m", model, "--input", "in__1m__b___x__=z")):
        ran = mmtool(*command)
        assert ran.code == 0 and not RAW.search(ran.out + ran.err), ran.out
    ran = mmtool("predict", "-m", model, "--input", "\x1b[1m[/x]=z")
    assert (ran.code, ran.err.splitlines()[0]) == (2, r"error[E_USAGE]: the model has no input '\x1b[1m[/x]'")


def test_ids_with_half_a_pair_are_one_name_everywhere(mmtool: Callable, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in table(tmp_path, 40).read_text().splitlines()]
    data = write(tmp_path / "half.jsonl", [{**r, "id": f"\ud800{r['id']}"} for r in rows])
    model, found = tmp_path / "m.safetensors", tmp_path / "p.jsonl"
    assert mmtool("train", data, "-t", "label", "-o", model, "-e", "a=tiny-letters").code == 0
    assert mmtool("predict", data, "-m", model, "-o", found).code == 0
    assert json.loads(found.read_text().splitlines()[0])["id"] == "\\ud800r0"
    ran = mmtool("eval", found, data, "-t", "label", "-o", tmp_path / "r")
    assert ran.code == 0, ran.err


def test_any_column_is_an_input_and_any_name_of_one_a_plain_folder(mmtool: Callable, tmp_path: Path) -> None:
    names = [name for name in ODD if name != "status:ok"]
    data = write(tmp_path / "a.jsonl", [{"id": name, **dict.fromkeys(names, f"text {i}")} for i, name in enumerate(ODD)])
    told = [word for i, name in enumerate(names) for word in ("-e", f"i{i}@{name}=tiny-letters")]
    ran = mmtool("extract", data, "-o", tmp_path / "f", *told)
    assert (ran.code, RAW.search(ran.out + ran.err)) == (0, None), ran.err
    assert ran.err.count(f"{len(ODD)} ok, 0 missing, 0 bad") == len(names)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl", "f"]
    for name in [*ODD, "fused", "rows.parquet", ""]:
        assert re.fullmatch("[A-Za-z0-9_.-]{1,81}", slug := inputs.slug(name)) and slug not in ("fused", "rows.parquet", "..")
    data = write(tmp_path / "b.jsonl", [{"status:ok": "x", "t": "abc"}])
    ran = mmtool("extract", data, "-o", tmp_path / "g", "-e", "t=tiny-letters")
    assert (ran.code, "has a column 'status:ok', a name that features keep for themselves" in ran.err) == (1, True)


def test_twins_are_told_apart_or_refused(mmtool: Callable, tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", [{"é": "one", "e\u0301": "two", "Text": "x", "text": "y", "a b": "x", "a_b": "y"}])
    ran = mmtool("extract", data, "-o", tmp_path / "f", "-e", "é=tiny-letters", "-e", "e\u0301=tiny-letters")
    assert ran.code == 0 and "_: 1 ok" in ran.err and "e_: 1 ok" in ran.err, ran.err
    for one, other in (("Text", "text"), ("a b", "a_b")):
        ran = mmtool("extract", data, "-o", tmp_path / "g", "-e", f"{one}=tiny-letters", "-e", f"{other}=tiny-letters")
        assert (ran.code, "two inputs are called" in ran.err) == (2, True), ran.err


def test_a_path_is_exact_for_a_script_and_literal_on_a_terminal(mmtool: Callable, tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    data, folder = write(tmp_path / "a.jsonl", [{"t": "abc"}]), tmp_path / "[bold]\x1b[31m\u202ef"
    ran = mmtool("extract", data, "-o", folder, "-e", "t=tiny-letters")
    assert (ran.code, ran.out) == (0, f"{folder}\n")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    ran = mmtool("extract", data, "-o", folder, "-e", "t=tiny-letters")
    assert (ran.code, ran.out) == (0, f"{tmp_path}/[bold]\\x1b[31m\\u202ef\n")
    ran = mmtool("extract", data, "-o", tmp_path / "\udcfff", "-e", "t=tiny-letters")
    assert (ran.code, ran.err.splitlines()[0]) == (
        5, f"error[E_OUTPUT]: {tmp_path}/\\udcfff: a path whose bytes are not UTF-8, which Parquet files cannot have")


def test_negative_numbers_are_no_formulas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions.write(tmp_path / "p.csv", [{"id": "-1", "prediction": -2.5}, {"id": "+1e3", "prediction": "-inf"}])
    assert capsys.readouterr().err == ""
    predictions.write(tmp_path / "p.csv", [{"id": "-a", "prediction": "\ud800"}, {"id": "b", "prediction": "a=1"}])
    assert capsys.readouterr().err.startswith("warning: 1 row hold")
    assert "\\ud800" in (tmp_path / "p.csv").read_text()


def test_a_progress_line_and_a_table_take_any_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for text in ODD:
        with console.progress(f"read {text}", 2) as advance:
            advance(1)
        with console.live_line(f"part {text}", 2) as told:
            told(1, text)
        console.table([text], [[text]])
    assert not re.search("[\x00\x07\x9b\u202e]", capsys.readouterr().err)
