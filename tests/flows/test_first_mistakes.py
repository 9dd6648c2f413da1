"""What a new user gets wrong first: each is one line with the right code, and a remedy that helps."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from flows.made import table, write

from mmtool import predictions
from mmtool.inputs import modality_of_column


@pytest.mark.parametrize("closed, arguments, code, said", [
    (">&-", "plugins list", 5, "error[E_IO]: stdout: Bad file descriptor"),
    (">/dev/full", "plugins list", 5, "error[E_NO_SPACE]: stdout: No space left on device"),
    (">&-", "--help", 5, "error[E_IO]: "), (">/dev/full", "--help", 5, "error[E_NO_SPACE]: "),
    ("2>&-", "info nothing-there", 5, ""),
    ("<&-", "predict -", 0, "")])
def test_closed_and_full_streams_give_no_traceback(closed: str, arguments: str, code: int, said: str) -> None:
    ran = subprocess.run(["bash", "-c", f"{sys.executable} -m mmtool {arguments} {closed}"], capture_output=True, text=True)
    assert (ran.returncode, "Traceback" in ran.stderr, "Exception ignored" in ran.stderr) == (code, False, False), ran.stderr
    assert ran.stderr.startswith(said)


@pytest.mark.parametrize("name, said", [
    ("m.safetensors.partial", "it is unfinished: run again what began it"),
    ("a.csv", "give what extract, train, fuse, eval or compare wrote")])
def test_info_says_what_to_do_with_what_is_not_ours(mmtool: Callable, tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).write_text("a\n") if name.endswith(".csv") else (tmp_path / name).mkdir()
    ran = mmtool("info", tmp_path / name)
    assert ran.code == 4 and ran.err.splitlines()[1].strip() == said


def test_labels_that_are_not_there_and_a_folder_as_predictions_have_their_codes(mmtool: Callable, tmp_path: Path) -> None:
    ran = mmtool("predict", "--text", "hi", "--labels", f"@{tmp_path}/none.txt")
    assert (ran.code, f"error[E_NOT_FOUND]: --labels: {tmp_path}/none.txt: No such file" in ran.err) == (5, True), ran.err
    ran = mmtool("eval", tmp_path, table(tmp_path, 4), "-t", "label", "-o", tmp_path / "r")
    assert (ran.code, "is a folder, not a predictions file" in ran.err) == (4, True), ran.err
    ran = mmtool("predict", table(tmp_path, 4), "-o", tmp_path / "p")
    assert (ran.code, "a predictions file ends in .jsonl" in ran.err) == (2, True), ran.err


def test_every_wrong_value_has_a_remedy(mmtool: Callable, tmp_path: Path) -> None:
    for wrong in (("extract", table(tmp_path, 4), "-o", tmp_path / "f", "-e", "a=tiny-letters", "--max-bad", "x"),
                  ("predict", "--text", "hi", "--labels", "a,a"), ("predict", "--input", "hi")):
        ran = mmtool(*wrong)
        assert ran.code == 2 and len(ran.err.splitlines()) == 2 and "\n  " in ran.err, ran.err


def test_predictions_of_rows_with_bad_cells_are_counted_aloud(capfd: pytest.CaptureFixture[str]) -> None:
    good = {"id": "a", "prediction": "x", "inputs": ["title"]}
    assert predictions.stream([good, {**good, "errors": {"image": "E_CELL_NOT_FOUND: no such file"}}], None) == 0
    assert capfd.readouterr().err == "2 rows, 0 without a usable input, 1 with a bad cell (`errors` says why)\n"


def test_test_rows_that_are_not_there_are_told_without_the_name_of_a_scratch_folder(mmtool: Callable, tmp_path: Path) -> None:
    data, model = table(tmp_path, 40), tmp_path / "m.safetensors"
    assert mmtool("train", data, "-t", "label", "-o", model, "-e", "a=tiny-letters").code == 0
    rows = [{**json.loads(line), "split": "train"} for line in data.read_text().splitlines()]
    ran = mmtool("eval", model, write(tmp_path / "all.jsonl", rows), "-o", tmp_path / "r")
    assert ran.code == 1 and "error[E_DATA]: no row with a target has split test\n" in ran.err, ran.err


def test_names_of_files_with_a_line_break_are_still_files() -> None:
    assert modality_of_column(["a\nb.png", "c.png\n.png"]) == "image"
    assert modality_of_column(["a red frog\nin the grass", "a blue car\nin the street"]) == "text"


def test_info_checks_every_file_and_counts_the_cells(mmtool: Callable, tmp_path: Path) -> None:
    rows = [f"r{i},{'' if i == 3 else 'abcdef'[i % 6]},{i % 2}" for i in range(40)]
    (tmp_path / "d.csv").write_text("\n".join(["id,t,label", *rows, ""]))
    told = ("extract", tmp_path / "d.csv", "-o", tmp_path / "f", "-e", "t=tiny-letters")
    assert mmtool(*told).code == 0
    assert mmtool("train", tmp_path / "f", "-t", "label", "-o", tmp_path / "m.safetensors").code == 0
    assert "cells t  39 ok, 1 missing, 0 bad" in mmtool("info", tmp_path / "f").out
    for path, made in ((tmp_path / "f/t/00000.safetensors", tmp_path / "f"),
                       (tmp_path / "m.safetensors", tmp_path / "m.safetensors")):
        assert mmtool("info", made).code == 0
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        ran = mmtool("info", made)
        assert (ran.code, ran.out, str(path) in ran.err, "does not hold what was written" in ran.err) == (4, "", True, True)
