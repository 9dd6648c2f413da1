"""`train` and `eval` on the real data sets, from raw files, against what is known of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import experiments
import fashion
import train_stamps

from mmtool.features.reader import Features

pytestmark = pytest.mark.real


def overall(report: Path) -> dict[str, dict[str, float]]:
    return json.loads((report / "metrics.json").read_text())["overall"]


def test_the_default_head_is_no_worse_than_a_tuned_logistic_regression(mmtool: Callable, data: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    encode = ("-e", "image=effnet-lite0", "-e", "text=minilm")
    assert mmtool("extract", data / "stamps.csv", "-o", tmp_path / "f", *encode).code == 0
    assert mmtool("train", tmp_path / "f", "-t", "category", "-o", model).code == 0
    assert mmtool("eval", model, tmp_path / "f", "-o", tmp_path / "r").code == 0
    found, (accuracy, f1) = overall(tmp_path / "r"), train_stamps.theirs(Features(tmp_path / "f"), 0)
    assert found["accuracy"]["value"] >= accuracy - 0.02  # three of 150 rows
    assert found["f1_macro"]["value"] >= f1 - 0.04
    assert found["accuracy"]["value"] > 0.86


def test_the_language_is_heard(mmtool: Callable, data: Path, tmp_path: Path) -> None:
    manifest, model = experiments.prepare(data, "prompts", tmp_path), tmp_path / "m.safetensors"
    assert mmtool("train", manifest, "-t", "language", "-e", "audio=spectral", "-o", model).code == 0
    assert mmtool("eval", model, manifest, "-o", tmp_path / "r").code == 0
    assert overall(tmp_path / "r")["accuracy"]["value"] > 0.95


def test_class_tags_and_a_number_of_clipart_at_once(mmtool: Callable, data: Path, tmp_path: Path) -> None:
    """From titles and pictures: the category, the keywords that occur 50 times, and how large the file is."""
    manifest, model = experiments.prepare(data, "clipart", tmp_path), tmp_path / "m.safetensors"
    ran = mmtool("train", manifest, "-t", "category", "-t", "keywords=tag:min_count=50", "-t", "log2_bytes", "-o", model,
                 "-e", "image=effnet-lite0", "-e", "title=minilm")
    assert ran.code == 0, ran.err
    assert mmtool("eval", model, manifest, "-o", tmp_path / "r").code == 0
    found = json.loads((tmp_path / "r/metrics.json").read_text())
    for column, metric in (("category", "accuracy"), ("keywords", "f1_micro"), ("log2_bytes", "r2")):
        value, nothing = (found[kind][column] for kind in ("overall", "baselines"))
        assert value[metric]["low"] > nothing["without_inputs"][metric]["high"] + 0.2, (column, value[metric])
    page = (tmp_path / "r/report.html").read_text(encoding="utf-8")
    assert page.count("<section") >= 3


def test_fashion_mnist_from_scratch(mmtool: Callable, data: Path, tmp_path: Path) -> None:
    if not (data / "fashion").exists():
        pytest.skip("Fashion-MNIST is not below MMTOOL_DATA")
    manifest, model = tmp_path / "fashion.parquet", tmp_path / "m.safetensors"
    fashion.write_manifest(data / "fashion", manifest)
    ran = mmtool("train", manifest, "-t", "garment", "-e", "picture=image-cnn:width=16,img_size=28", "--batch-rows", "128",
                 "--lr", "0.003", "--epochs", "5", "-o", model)
    assert ran.code == 0, ran.err
    assert mmtool("eval", model, manifest, "-o", tmp_path / "r").code == 0
    metrics = json.loads((tmp_path / "r/metrics.json").read_text())
    assert metrics["rows"] == 10_000
    assert metrics["overall"]["accuracy"]["value"] >= 0.91
