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
        monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(data.read_bytes())))
        ran = mmtool(*arguments, "--workers", 0)  # forked readers would want a real stdin to close
        assert ran.code == 0, ran.err

    piped("train", "-", "-t", "label", "-o", tmp_path / "m.safetensors", *LETTERS)
    assert mmtool("train", data, "-t", "label", "-o", tmp_path / "n.safetensors", *LETTERS).code == 0
    assert (tmp_path / "m.safetensors").read_bytes() == (tmp_path / "n.safetensors").read_bytes()
    piped("eval", tmp_path / "m.safetensors", "-", "-o", tmp_path / "r")
    assert metrics(tmp_path / "r")["rows"] == 30
