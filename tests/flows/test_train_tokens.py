"""Fusions over tokens, where the answer is in the tokens and their mean says nothing."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from flows.made import metrics, write

from mmtool.model import load

LETTERS = ("-e", "a=tiny-letters", "-e", "b=tiny-letters")
SMALL = ("transformer:8,layers=1,heads=1,ff=16", "mult:8,layers=1,heads=1,ff=16", "bottleneck:8,heads=1,ff=16",
         "perceiver:8,latents=2,layers=1,heads=1,ff=16", "deepset:dim=8,hidden=16")
FAST = ("--lr", "0.01", "--epochs", "60", "--patience", "60", "--modality-dropout", "0")


def table(folder: Path, rows: int = 160, *, missing: float = 0.0, parts: str = "train") -> Path:
    """Words of `a` and `z` are wide, of `m` and `n` narrow, of lengths 2, 4 and 6: the means are one. b knows nothing."""
    rng, out = random.Random(0), []
    for i in range(rows):
        letters = rng.choice(["az", "mn"])
        word = list(letters * rng.randint(1, 3))
        rng.shuffle(word)
        row = {"id": f"r{i}", "a": "".join(word), "b": rng.choice(["u", "vw", "xyz"]),
               "label": "wide" if letters == "az" else "narrow", "split": ("test", "val", "train", "train")[i % 4]}
        if rng.random() < missing:
            row[rng.choice("ab")] = ""
        out.append(row)
    return write(folder / "data.jsonl", out)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return table(tmp_path)


@pytest.fixture
def kept(mmtool: Callable, data: Path, tmp_path: Path) -> Path:
    """Features with every token."""
    assert mmtool("extract", data, "-o", tmp_path / "f", "--tokens", *LETTERS).code == 0
    return tmp_path / "f"


@pytest.mark.parametrize("fusion", SMALL)
def test_a_fusion_that_takes_tokens_finds_what_their_mean_hides(mmtool: Callable, kept: Path, data: Path, tmp_path: Path,
                                                                fusion: str) -> None:
    model = tmp_path / "m.safetensors"
    ran = mmtool("train", kept, "-t", "label", "-f", fusion, "-o", model, *FAST)
    assert ran.code == 0, ran.err
    reports = []
    for given in (kept, data):
        ran = mmtool("eval", model, given, "-o", tmp_path / "r")
        assert ran.code == 0, ran.err
        reports.append(metrics(tmp_path / "r"))
    assert reports[0]["overall"]["accuracy"]["value"] > 0.95
    assert reports[0]["overall"] == reports[1]["overall"]
    assert reports[0]["by_inputs"]["b"]["accuracy"]["value"] < 0.8
    assert "every token" in mmtool("info", model).out


@pytest.mark.parametrize("fusion", ["concat", "gated", "cca:4"])
def test_other_fusions_get_the_mean_and_say_so(mmtool: Callable, kept: Path, tmp_path: Path, fusion: str) -> None:
    model = tmp_path / "m.safetensors"
    ran = mmtool("train", kept, "-t", "label", "-f", fusion, "-o", model, "--patience", "2" if fusion == "gated" else "15")
    assert ran.code == 0, ran.err
    assert f"fusion '{fusion}' takes one vector an input: the mean of its tokens" in ran.err
    assert mmtool("eval", model, kept, "-o", tmp_path / "r").code == 0
    assert metrics(tmp_path / "r")["overall"]["accuracy"]["value"] < 0.75


def test_what_training_measured_is_what_eval_finds_on_the_same_rows(mmtool: Callable, data: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    told = ("-t", "label", "-f", SMALL[0], "--tokens", "--epochs", "5", *LETTERS)
    assert mmtool("train", data, "-o", model, *told).code == 0
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    held = write(tmp_path / "held.jsonl", [{**row, "split": "test"} for row in rows if row["split"] == "val"])
    assert mmtool("eval", model, held, "-o", tmp_path / "r").code == 0
    found = metrics(tmp_path / "r")
    assert found["overall"] == load(model).header["metrics"]["overall"]
    assert found["by_inputs"] == load(model).header["metrics"]["by_inputs"]


def test_a_manifest_and_its_features_make_the_same_network_and_predictions(mmtool: Callable, kept: Path, data: Path,
                                                                           tmp_path: Path) -> None:
    models = tmp_path / "m.safetensors", tmp_path / "n.safetensors"
    told = ("-t", "label", "-f", SMALL[0], "--epochs", "5")
    assert mmtool("train", kept, "-o", models[0], *told).code == 0
    assert mmtool("train", data, "-o", models[1], "--tokens", *told, *LETTERS).code == 0
    one, other = (load(path).network.state_dict() for path in models)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert load(models[1]).header["inputs"]["a"] | {"dtype": ""} == load(models[0]).header["inputs"]["a"] | {"dtype": ""}
    assert (load(models[0]).header["inputs"]["a"]["pooled"], load(models[0]).header["inputs"]["a"]["dim"]) == (False, 2)
    lines = []
    for given in (kept, data):
        ran = mmtool("predict", "-m", models[0], given, "-o", tmp_path / "p.jsonl")
        assert ran.code == 0, ran.err
        lines.append((tmp_path / "p.jsonl").read_text())
    assert lines[0] == lines[1]


def test_a_row_alone_from_files_or_stdin_is_predicted_as_among_others(mmtool: Callable, kept: Path, data: Path, tmp_path: Path,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "m.safetensors"
    assert mmtool("train", kept, "-t", "label", "-f", SMALL[1], "-o", model, *FAST).code == 0
    assert mmtool("predict", "-m", model, data, "-o", tmp_path / "p.jsonl").code == 0
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    among = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    for at in (0, 1, 2):
        cells = ("--input", f"a={rows[at]['a']}", "--input", f"b={rows[at]['b']}")
        alone = json.loads(mmtool("predict", "-m", model, *cells, "--json").out)
        assert alone["probabilities"] == pytest.approx(among[at]["probabilities"], abs=1e-5)

    given = b"".join(json.dumps({"a": row["a"], "b": row["b"]}).encode() + b"\n" for row in rows[:3])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given)))
    for line, known in zip(mmtool("predict", "-m", model, "-").out.splitlines(), among, strict=False):
        assert json.loads(line)["probabilities"] == pytest.approx(known["probabilities"], abs=1e-5)


def test_rows_without_an_input_train_and_are_predicted_without_it(mmtool: Callable, tmp_path: Path) -> None:
    data, model = table(tmp_path, missing=0.3), tmp_path / "m.safetensors"
    told = ("-f", SMALL[2], "--tokens", *FAST, "--modality-dropout", "0.2", *LETTERS)
    assert mmtool("train", data, "-t", "label", "-o", model, *told).code == 0
    assert mmtool("eval", model, data, "-o", tmp_path / "r").code == 0
    found = metrics(tmp_path / "r")["by_inputs"]
    assert found["a"]["accuracy"]["value"] > 0.9
    line = json.loads(mmtool("predict", "-m", model, "--input", "a=zaza", "--json").out)
    assert (line["prediction"], line["inputs"]) == ("wide", ["a"])


def test_features_of_the_other_kind_are_refused(mmtool: Callable, kept: Path, data: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    assert mmtool("extract", data, "-o", tmp_path / "g", *LETTERS).code == 0
    for mine, other, fact in ((kept, "g", "the model takes every token of a cell"), (tmp_path / "g", "f", "one pooled vector")):
        assert mmtool("train", mine, "-t", "label", "-f", SMALL[0], "-o", model, "--epochs", "1").code == 0
        for verb in (("eval", model, tmp_path / other, "-o", tmp_path / "r"), ("predict", "-m", model, tmp_path / other),
                     ("fuse", tmp_path / other, "-o", tmp_path / "h", "-m", model)):
            ran = mmtool(*verb)
            assert ran.code == 4
            assert fact in ran.err
            assert "--tokens" in ran.err


def test_pooled_inputs_for_a_fusion_over_tokens_are_told(mmtool: Callable, data: Path, tmp_path: Path) -> None:
    ran = mmtool("train", data, "-t", "label", "-f", SMALL[0], "-o", tmp_path / "m.safetensors", "--epochs", "1", *LETTERS)
    assert ran.code == 0
    assert "takes tokens, and each input has one: --tokens" in ran.err
    assert load(tmp_path / "m.safetensors").header["inputs"]["a"]["pooled"] is True


def test_tokens_cannot_be_asked_of_features(mmtool: Callable, kept: Path, tmp_path: Path) -> None:
    ran = mmtool("train", kept, "-t", "label", "--tokens", "-o", tmp_path / "m.safetensors")
    assert ran.code == 2
    assert "has its tokens or has not" in ran.err


@pytest.mark.parametrize("fusion", [SMALL[0], "concat"])
def test_like_keeps_tokens_and_ends_with_the_same_bytes(mmtool: Callable, data: Path, tmp_path: Path, fusion: str) -> None:
    first, second = tmp_path / "m.safetensors", tmp_path / "n.safetensors"
    assert mmtool("train", data, "-t", "label", "-f", fusion, "-o", first, "--tokens", "--epochs", "3", *LETTERS).code == 0
    ran = mmtool("train", data, "--like", first, "-o", second)
    assert ran.code == 0, ran.err
    assert first.read_bytes() == second.read_bytes()
    assert mmtool("extract", data, "-o", tmp_path / "f", "-m", first).code == 0
    assert mmtool("train", tmp_path / "f", "--like", first, "-o", second).code == 0


def test_what_a_model_fused_of_tokens_trains_another(mmtool: Callable, kept: Path, data: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "m.safetensors", tmp_path / "n.safetensors"
    assert mmtool("train", kept, "-t", "label", "-f", SMALL[0], "-o", first, *FAST).code == 0
    assert mmtool("fuse", kept, "-o", tmp_path / "g", "-m", first).code == 0
    assert mmtool("train", tmp_path / "g", "-t", "label", "-o", second).code == 0
    reports = []
    for given in (tmp_path / "g", data):
        assert mmtool("eval", second, given, "-o", tmp_path / "r").code == 0
        reports.append(metrics(tmp_path / "r")["overall"])
    assert reports[0]["accuracy"]["value"] > 0.95
    assert reports[0]["log_loss"]["value"] == pytest.approx(reports[1]["log_loss"]["value"], abs=1e-5)


@pytest.mark.parametrize("told", [("-e", "a=tiny-learned", "-e", "b=tiny-letters"), ("-e", "a=tiny-tied", "--finetune", "a"),
                                  ("-e", "a=text-transformer:dim=8,heads=1,layers=1,ff=16", "-e", "b=tiny-counted")])
@pytest.mark.parametrize("fusion", [SMALL[1], "gated:4"])
def test_encoders_that_are_trained_or_fitted_give_their_tokens_too(mmtool: Callable, data: Path, tmp_path: Path,
                                                                   told: tuple[str, ...], fusion: str) -> None:
    model = tmp_path / "m.safetensors"
    ran = mmtool("train", data, "-t", "label", "-f", fusion, "--tokens", "-o", model, "--epochs", "3", *told)
    assert ran.code == 0, ran.err
    assert not any(entry["pooled"] for entry in load(model).header["inputs"].values())
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    held = write(tmp_path / "held.jsonl", [{**row, "split": "test"} for row in rows if row["split"] == "val"])
    ran = mmtool("eval", model, held, "-o", tmp_path / "r")
    assert ran.code == 0, ran.err
    known = load(model).header["metrics"]["overall"]["log_loss"]["value"]
    assert metrics(tmp_path / "r")["overall"]["log_loss"]["value"] == pytest.approx(known, abs=1e-5)


def test_a_trained_encoder_learns_through_its_tokens(mmtool: Callable, data: Path, tmp_path: Path) -> None:
    model, told = tmp_path / "m.safetensors", ("-e", "a=tiny-learned", "-e", "b=tiny-letters")
    assert mmtool("train", data, "-t", "label", "-f", SMALL[0], "--tokens", "-o", model, *FAST, *told).code == 0
    assert mmtool("eval", model, data, "-o", tmp_path / "r").code == 0
    assert metrics(tmp_path / "r")["overall"]["accuracy"]["value"] > 0.95
