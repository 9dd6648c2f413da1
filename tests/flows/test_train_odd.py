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
    assert ran.code == 1
    assert "is a folder" in ran.err
    assert "solved" not in ran.err


def test_a_model_that_cannot_be_written_keeps_what_was_learned(mmtool: Callable, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    from mmtool import files

    data, model, write_bytes = table(tmp_path), tmp_path / "m.safetensors", files.write_bytes

    def full(path: Path, content: bytes) -> str:
        if path == model:
            raise OSError(28, "No space left on device")
        return write_bytes(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_bytes", full)
        ran = mmtool("train", data, "-t", "label", "-o", model, "-e", "a=tiny-learned", "--epochs", "2")
    assert (ran.code, "No space left" in ran.err) == (1, True), ran.err
    assert (tmp_path / "m.safetensors.partial").is_dir()
    ran = mmtool("train", data, "-t", "label", "-o", model, "-e", "a=tiny-learned", "--epochs", "2")
    assert (ran.code, "going on" in ran.err) == (0, True), ran.err
