"""A fusion that learns without labels, from `train` and `fuse` to predictions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from made import LETTERS, metrics, table
from support import folder_bytes

from mmtool.features.reader import Features
from mmtool.model import load


def test_train_solves_behind_it_and_the_model_file_keeps_what_it_learned(mmtool: Callable, tmp_path: Path) -> None:
    data = table(tmp_path, missing=0.2)
    for name in ("m", "n"):
        ran = mmtool("train", data, "-o", tmp_path / f"{name}.safetensors", "-t", "label", "-f", "cca:4", *LETTERS)
        assert ran.code == 0, ran.err
        assert "solved by L-BFGS" in ran.err
    model = tmp_path / "m.safetensors"
    assert model.read_bytes() == (tmp_path / "n.safetensors").read_bytes()
    assert float(load(model).network.front.fusion.get_buffer("map0").abs().sum()) > 0
    assert mmtool("eval", model, data, "-o", tmp_path / "r").code == 0
    assert metrics(tmp_path / "r")["by_inputs"]["a"]["accuracy"]["value"] > 0.95
    line = json.loads(mmtool("predict", "-m", model, "--input", "a=z", "--json").out)
    assert (line["prediction"], line["inputs"]) == ("high", ["a"])


@pytest.mark.parametrize("split", [True, False])
def test_fuse_fits_it_on_training_rows_and_says_so(mmtool: Callable, tmp_path: Path, split: bool) -> None:
    data, model = table(tmp_path, split=split), tmp_path / "m.safetensors"
    assert mmtool("extract", data, "-o", tmp_path / "f", *LETTERS).code == 0
    for name in ("g", "h"):
        ran = mmtool("fuse", tmp_path / "f", "-o", tmp_path / name, "-f", "cca:4")
        assert ran.code == 0, ran.err
        assert ("the 60 rows with split train" if split else "all 120 rows") in ran.err
    assert folder_bytes(tmp_path / "g") == folder_bytes(tmp_path / "h")
    ran = mmtool("train", tmp_path / "g", "-t", "label", "-o", model)
    assert ran.code == 0, ran.err
    assert "the numbers above are then wrong, too good or too bad" in ran.err
    reports = []
    for name in ("g", "data.jsonl"):
        ran = mmtool("eval", model, tmp_path / name, "-o", tmp_path / "r", "--split", "all")
        assert ran.code == 0, ran.err
        reports.append(metrics(tmp_path / "r"))
    assert reports[0]["overall"] == reports[1]["overall"]
    assert reports[0]["overall"]["accuracy"]["value"] > 0.95


def test_test_rows_change_nothing_that_fuse_learns(mmtool: Callable, tmp_path: Path) -> None:
    kept = []
    for letter in "aq":
        (folder := tmp_path / letter).mkdir()
        lines = [json.loads(line) for line in table(folder).read_text().splitlines()]
        changed = [{**row, "a": letter} if row["split"] != "train" else row for row in lines]
        (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
        assert mmtool("extract", folder / "data.jsonl", "-o", folder / "f", *LETTERS).code == 0
        assert mmtool("fuse", folder / "f", "-o", folder / "g", "-f", "cca:4").code == 0
        kept.append((folder / "g/fused/front.safetensors").read_bytes())
    assert kept[0] == kept[1]


def test_fuse_refuses_where_no_row_trains(mmtool: Callable, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in table(tmp_path).read_text().splitlines()]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps({**row, "split": "test"}) + "\n" for row in rows))
    assert mmtool("extract", tmp_path / "data.jsonl", "-o", tmp_path / "f", *LETTERS).code == 0
    ran = mmtool("fuse", tmp_path / "f", "-o", tmp_path / "g", "-f", "cca:4")
    assert ran.code == 1
    assert "no row has split train" in ran.err


def test_the_fusion_of_a_model_fuses_features_as_the_model_does(mmtool: Callable, tmp_path: Path) -> None:
    data, model = table(tmp_path), tmp_path / "m.safetensors"
    assert mmtool("extract", data, "-o", tmp_path / "f", *LETTERS).code == 0
    assert mmtool("train", tmp_path / "f", "-t", "label", "-f", "cca:4", "-o", model).code == 0
    assert mmtool("fuse", tmp_path / "f", "-o", tmp_path / "g", "-m", model).code == 0
    assert Features(tmp_path / "g").header["inputs"]["fused"]["dim"] == 4


@pytest.mark.parametrize("told", [("-e", "a=tiny-learned"), ("-e", "a=tiny-tied", "--finetune", "a")])
def test_encoders_that_training_changes_are_refused_beside_it(mmtool: Callable, tmp_path: Path, told: tuple[str, ...]) -> None:
    ran = mmtool("train", table(tmp_path), "-o", tmp_path / "m.safetensors", "-t", "label", "-f", "cca", *told)
    assert ran.code == 2
    assert "fusion 'cca' learns from features before training, and the encoder of 'a' is trained" in ran.err
    assert not (tmp_path / "m.safetensors.partial").exists()
