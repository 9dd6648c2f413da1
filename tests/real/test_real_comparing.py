"""What inputs and fusions are worth, and whether promises of coverage hold, on real pictures, texts and voices."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import conformal_coverage
import train_stamps

from mmtool.cli.main import run
from mmtool.features.reader import Features

pytestmark = pytest.mark.real
RESPLITS = 2
PRETRAINED = ("-e", "image=effnet-lite0", "-e", "text=minilm")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cells")


@pytest.fixture(scope="module")
def features(data: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stamps") / "f"
    encode = (*PRETRAINED, "-e", "speech_fr=spectral")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMTOOL_CACHE", str(cache))
        assert run(["extract", str(data / "stamps.csv"), "-o", str(folder), "-q", *encode]) == 0
    return folder


def test_fusions_and_inputs_of_stamps_are_compared(mmtool: Callable, features: Path, tmp_path: Path) -> None:
    ran = mmtool("compare", features, "-t", "category", "-o", tmp_path / "r", "-f", "concat", "-f", "late", "-f", "film",
                 "--epochs", "6", "--ensemble")
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads((tmp_path / "r/comparison.json").read_text())["targets"]["category"]
    each = {c["name"]: c for c in found["candidates"]}
    assert not found["skipped"]
    assert each["concat"]["value"] > 0.88
    assert each["image + text"]["value"] > max(each["image alone"]["value"], each["text alone"]["value"]) + 0.02
    assert each["speech_fr alone"]["gap"]["high"] < -0.2  # statistics of a French voice say little of what a stamp shows
    assert found["ensemble"]["value"] > 0.88
    page = (tmp_path / "r/report.html").read_text(encoding="utf-8")
    assert "speech_fr alone" in page


def test_worths_of_inputs_of_stamps_add_up(mmtool: Callable, features: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    assert mmtool("train", features, "-t", "category", "-o", model).code == 0
    assert mmtool("eval", model, features, "-o", tmp_path / "r", "--by-input").code == 0
    worth = json.loads((tmp_path / "r/metrics.json").read_text())["worth"]
    total = sum(entry["shapley"]["value"] for entry in worth["inputs"].values())
    assert abs(total - (worth["all"]["value"] - worth["none"]["value"])) < 1e-6
    assert worth["inputs"]["image"]["shapley"]["low"] > 0.1
    assert worth["inputs"]["text"]["shapley"]["low"] > 0.1
    assert worth["inputs"]["speech_fr"]["shapley"]["value"] < 0.1


def test_promised_coverage_holds_on_stamps(features: Path, tmp_path: Path) -> None:
    learning, share, test = conformal_coverage.SIZES["stamps"]
    covered, sizes = 0, []
    for seed in range(RESPLITS):
        folder = conformal_coverage.resplit(features, learning, test, seed, tmp_path)
        calibration, rows, found = conformal_coverage.one(folder, share, seed, tmp_path)
        covered += round(found["doubt"]["coverage"]["value"] * rows)
        sizes.append((calibration, rows))
        assert found["doubt"]["set_size"] < 3  # a set of everything would hold the truth, too
    low, high = conformal_coverage.mean_band(sizes, 0.999)
    assert low <= covered / sum(rows for _, rows in sizes) <= high


@pytest.mark.usefixtures("features")
def test_the_default_head_is_no_worse_than_a_tuned_logistic_regression(mmtool: Callable, data: Path, cache: Path,
                                                                       tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMTOOL_CACHE", str(cache))
    model = tmp_path / "m.safetensors"
    ran = mmtool("extract", data / "stamps.csv", "-o", tmp_path / "f", *PRETRAINED)
    assert (ran.code, ran.err.count("703 cached")) == (0, 2), ran.err
    assert mmtool("train", tmp_path / "f", "-t", "category", "-o", model).code == 0
    assert mmtool("eval", model, tmp_path / "f", "-o", tmp_path / "r").code == 0
    found = json.loads((tmp_path / "r/metrics.json").read_text())["overall"]
    accuracy, f1 = train_stamps.theirs(Features(tmp_path / "f"), 0)
    assert found["accuracy"]["value"] >= accuracy - 0.02  # three of 150 rows
    assert found["f1_macro"]["value"] >= f1 - 0.04
    assert found["accuracy"]["value"] > 0.86
