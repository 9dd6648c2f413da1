"""Odd data and odd wishes, through `train` and `eval`."""

from __future__ import annotations

import io
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from flows.made import LETTERS, metrics, table, write
from safetensors.torch import load_file

from mmtool.model import read_header as header


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_manifest_on_stdin_trains_and_scores_as_a_file_does(mmtool: Callable, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    data = table(tmp_path)

    def piped(*arguments: object) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(data.read_bytes())))
            ran = mmtool(*arguments, "--workers", 0)  # forked readers would want a real stdin to close
        assert ran.code == 0, ran.err

    piped("train", "-", "-t", "label", "-o", tmp_path / "m.safetensors", *LETTERS)
    assert mmtool("train", data, "-t", "label", "-o", tmp_path / "n.safetensors", *LETTERS).code == 0
    assert (tmp_path / "m.safetensors").read_bytes() == (tmp_path / "n.safetensors").read_bytes()
    piped("eval", tmp_path / "m.safetensors", "-", "-o", tmp_path / "r")
    assert metrics(tmp_path / "r")["rows"] == 30


@pytest.mark.parametrize("inputs", [("-e", "a=tiny-letters"), ("-e", "a=tiny-learned", "--epochs", "1"),
                                    ("-e", "a=tiny-learned", "-e", "b=tiny-letters", "--epochs", "1")])
def test_bad_cells_of_any_encoder_count_against_max_bad(mmtool: Callable, tmp_path: Path, inputs: tuple[str, ...]) -> None:
    rows = read(table(tmp_path))
    for row in rows[1:9:4]:  # val
        row["a"] = "half of a pair \ud800"
    data, model = write(tmp_path / "bad.jsonl", rows), tmp_path / "m.safetensors"
    ran = mmtool("train", data, "-t", "label", "-o", model, *inputs)
    assert ran.code == 3, ran.err
    assert "2 of 120 rows have a bad cell, more than --max-bad 1%" in ran.err
    assert model.exists()
    assert mmtool("train", data, "-t", "label", "-o", model, *inputs, "--max-bad", "2").code == 0
    ran = mmtool("train", data, "-t", "label", "-o", model, *inputs, "--max-bad", "few")
    assert ran.code == 2
    assert not list(tmp_path.glob("*.partial"))


def test_a_folder_in_the_place_of_the_model_is_seen_before_any_work(mmtool: Callable, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").mkdir()
    ran = mmtool("train", table(tmp_path), "-t", "label", "-o", tmp_path / "m.safetensors", *LETTERS)
    assert ran.code == 5
    assert "is a folder" in ran.err
    assert "solved" not in ran.err


def test_a_model_that_cannot_be_written_keeps_what_was_learned(mmtool: Callable, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    from mmtool import files

    data, model, write_bytes = table(tmp_path), tmp_path / "m.safetensors", files.write_bytes

    def full(path: Path, content: bytes) -> str:
        if path == model:
            raise OSError(28, "No space left on device", str(path))
        return write_bytes(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_bytes", full)
        ran = mmtool("train", data, "-t", "label", "-o", model, "-e", "a=tiny-learned", "--epochs", "2")
    assert (ran.code, "error[E_NO_SPACE]" in ran.err) == (5, True), ran.err
    assert (tmp_path / "m.safetensors.partial").is_dir()
    ran = mmtool("train", data, "-t", "label", "-o", model, "-e", "a=tiny-learned", "--epochs", "2")
    assert (ran.code, "going on" in ran.err) == (0, True), ran.err


@pytest.mark.parametrize("fusion", ["late", "concat", "gated"])
def test_an_input_that_one_row_has_is_missing_in_the_others(mmtool: Callable, tmp_path: Path, fusion: str) -> None:
    rows = read(table(tmp_path))
    for number, row in enumerate(rows):
        row["b"] = row["b"] if number == 2 else ""
    data, model = write(tmp_path / "one.jsonl", rows), tmp_path / "m.safetensors"
    ran = mmtool("train", data, "-t", "label", "-o", model, *LETTERS, "-f", fusion, "--epochs", "30", "--lr", "0.05")
    assert ran.code == 0, ran.err
    assert header(model)["metrics"]["by_inputs"]["a"]["accuracy"]["value"] > 0.95


@pytest.mark.parametrize("told", [(), ("-f", "gated"), ("-f", "late"), ("-f", "late", "--optimizer", "adam")])
@pytest.mark.parametrize("target", ["tags", "other", "sum"])
def test_a_target_without_a_held_out_row_is_learned_all_the_same(mmtool: Callable, tmp_path: Path, told: tuple[str, ...],
                                                                 target: str) -> None:
    rows = read(table(tmp_path))
    for row in rows:
        row[target] = row[target] if row["split"] == "train" else ""
    data, model = write(tmp_path / "val.jsonl", rows), tmp_path / "m.safetensors"
    ran = mmtool("train", data, "-t", "xor", "-t", target, "-o", model, *LETTERS, *told, "--epochs", "2")
    assert ran.code == 0, ran.err
    assert (f"no held-out row has a {target}" in ran.err) is ("gated" in told or "adam" in told)  # the others have folds
    assert set(json.loads(mmtool("predict", "-m", model, "--input", "a=a", "--json").out)["targets"]) == {"xor", target}


def test_a_target_that_only_one_fold_knows(mmtool: Callable, tmp_path: Path) -> None:
    rows = read(table(tmp_path, 40, split=False))
    for number, row in enumerate(rows):
        row["sum"] = row["sum"] if number // 4 == 1 else ""
    data, model = write(tmp_path / "fold.jsonl", rows), tmp_path / "m.safetensors"
    ran = mmtool("train", data, "-t", "label", "-t", "sum=regress", "-o", model, *LETTERS, "--folds", "4", "--group", "group")
    assert ran.code == 0, ran.err
    assert {"label", "sum"} == set(header(model)["metrics"]["overall"])


def test_one_group_cannot_be_parted(mmtool: Callable, tmp_path: Path) -> None:
    rows = [{**row, "group": "g"} for row in read(table(tmp_path))]
    data = write(tmp_path / "group.jsonl", rows)
    ran = mmtool("train", data, "-t", "label", "-o", tmp_path / "m.safetensors", *LETTERS, "--group", "group")
    assert (ran.code, "1 groups cannot be parted" in ran.err) == (1, True), ran.err


@pytest.mark.parametrize("told", [("-f", "late"), ("-e", "a=tiny-learned", "--epochs", "2")])
def test_rows_without_an_input_are_not_measured_as_eval_does_not(mmtool: Callable, tmp_path: Path,
                                                                 told: tuple[str, ...]) -> None:
    rows = read(table(tmp_path))
    for row in rows[1::8]:
        row["a"] = ""
    data, model = write(tmp_path / "none.jsonl", rows), tmp_path / "m.safetensors"
    told = told if "-e" in told else ("-e", "a=tiny-letters", "--optimizer", "adam", "--epochs", "2", *told)
    assert mmtool("train", data, "-t", "label", "-o", model, *told).code == 0
    val = write(tmp_path / "val.jsonl", [{**row, "split": "test"} for row in rows if row["split"] == "val"])
    assert mmtool("eval", model, val, "-o", tmp_path / "r").code == 0
    assert metrics(tmp_path / "r")["overall"] == header(model)["metrics"]["overall"]


def test_batch_norm_bears_a_batch_with_one_cell(mmtool: Callable, tmp_path: Path) -> None:
    rows = read(table(tmp_path))
    for number, row in enumerate(rows):
        row["b"] = row["b"] if number % 3 == 0 else ""
    data, model = write(tmp_path / "few.jsonl", rows), tmp_path / "m.safetensors"
    ran = mmtool("train", data, "-t", "label", "-o", model, "-e", "a=tiny-letters", "-e", "b=tiny-normed", "--epochs", "2",
                 "--batch-rows", "3")
    assert ran.code == 0, ran.err


def test_an_error_of_prepare_costs_the_cell_and_nothing_else(mmtool: Callable, tmp_path: Path) -> None:
    rows = read(table(tmp_path))
    for row in rows[1:20]:
        row["a"] = "surprise"
    data, told = write(tmp_path / "surprise.jsonl", rows), ("-e", "a=tiny-normed", "-e", "b=tiny-letters", "--epochs", "2")
    for more in ((), ("--augment", "a=drop")):
        ran = mmtool("train", data, "-t", "label", "-o", tmp_path / "m.safetensors", *told, *more, "--max-bad", "50%")
        assert ran.code == 0, ran.err
    for row in rows:
        row["a"] = "surprise"
    ran = mmtool("train", write(data, rows), "-t", "label", "-o", tmp_path / "m.safetensors", *told, "--augment", "a=drop")
    assert (ran.code, "can use no cell" in ran.err) == (1, True), ran.err


def test_an_encoder_that_a_part_cannot_fit_is_named(mmtool: Callable, tmp_path: Path) -> None:
    rows = read(table(tmp_path))
    for number, row in enumerate(rows):
        row["number"] = row["number"] if number == 2 else ""
    ran = mmtool("train", write(tmp_path / "one.jsonl", rows), "-t", "label", "-o", tmp_path / "m.safetensors", "-e",
                 "a=tiny-letters", "-e", "number=table")
    assert (ran.code, "input 'number' has no usable cell" in ran.err) == (1, True), ran.err


def test_cells_are_prepared_on_one_thread_as_in_a_loader_process(mmtool: Callable, tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    import mmtool_tiny
    import torch

    seen, prepare = [], mmtool_tiny.Learned.prepare

    def noted(self: object, cell: str) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return prepare(self, cell)

    monkeypatch.setattr(mmtool_tiny.Learned, "prepare", noted)
    torch.set_num_threads(2)
    ran = mmtool("train", table(tmp_path), "-t", "label", "-o", tmp_path / "m.safetensors", "-e", "a=tiny-learned",
                 "--epochs", "1", "--augment", "a=drop", "--workers", "0")
    assert ran.code == 0, ran.err
    assert set(seen[1:]) == {1}  # the first looks for the width


def test_a_column_may_be_called_fused(mmtool: Callable, tmp_path: Path) -> None:
    data = write(tmp_path / "fused.jsonl", [{**row, "fused": row["a"]} for row in read(table(tmp_path))])
    assert mmtool("extract", data, "-o", tmp_path / "f", "-e", "fused=tiny-letters").code == 0
    assert mmtool("train", tmp_path / "f", "-t", "label", "-o", tmp_path / "m.safetensors").code == 0
    for name in (tmp_path / "f", data):
        ran = mmtool("eval", tmp_path / "m.safetensors", name, "-o", tmp_path / "r")
        assert ran.code == 0, ran.err
    assert mmtool("predict", tmp_path / "f", "-m", tmp_path / "m.safetensors").code == 0


@pytest.mark.parametrize(("target", "wrong"), [
    ("sum=regress", {"prediction": "abc"}), ("sum=regress", {"prediction": [1, 2]}), ("tags=tag", {"prediction": 3}),
    ("label=classify", {"prediction": "high", "probabilities": ["high"]}),
    ("label=classify", {"prediction": "high", "probabilities": {"high": "x"}})])
def test_predictions_of_another_kind_are_no_crash(mmtool: Callable, tmp_path: Path, target: str, wrong: dict) -> None:
    data = table(tmp_path)
    path = write(tmp_path / "p.jsonl", [{"id": row["id"], **wrong} for row in read(data)])
    ran = mmtool("eval", path, data, "-t", target, "-o", tmp_path / "r")
    assert (ran.code, ran.err.count("error[E_PREDICTIONS]: ")) == (4, 1), ran.err


def test_a_split_is_read_by_extract_as_by_train(mmtool: Callable, tmp_path: Path) -> None:
    words = {"train": " Training", "val": "VALID", "test": "Test"}
    data = write(tmp_path / "words.jsonl", [{**row, "split": words[row["split"]]} for row in read(table(tmp_path))])
    assert mmtool("extract", data, "-o", tmp_path / "f", "-e", "a=tiny-counted").code == 0
    assert load_file(tmp_path / "f/a/assets.safetensors")["count"].tolist() == [60]
