"""`train` and `eval` on rows of the real data sets, from raw files; tests/benchmarks/ has what all of the rows give."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import experiments
import fashion
import pyarrow.parquet as pq

pytestmark = pytest.mark.real


def overall(report: Path) -> dict[str, dict[str, float]]:
    return json.loads((report / "metrics.json").read_text())["overall"]


def thinned(manifest: Path, step: int) -> Path:
    """Every `step`-th row of a manifest, in its place."""
    with manifest.open(encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))[::step]
    with manifest.open("w", encoding="utf-8", newline="") as f:
        writer = csv.DictWriter(f, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return manifest


def test_the_language_is_heard(mmtool: Callable, data: Path, tmp_path: Path) -> None:
    manifest, model = thinned(experiments.prepare(data, "prompts", tmp_path), 4), tmp_path / "m.safetensors"
    assert mmtool("train", manifest, "-t", "language", "-e", "audio=spectral", "-o", model).code == 0
    assert mmtool("eval", model, manifest, "-o", tmp_path / "r").code == 0
    assert overall(tmp_path / "r")["accuracy"]["value"] > 0.95


def test_class_tags_and_a_number_of_clipart_at_once(mmtool: Callable, data: Path, tmp_path: Path) -> None:
    """From titles and pictures: the category, the keywords that occur 10 times, and how large the file is."""
    manifest, model = thinned(experiments.prepare(data, "clipart", tmp_path), 12), tmp_path / "m.safetensors"
    ran = mmtool("train", manifest, "-t", "category", "-t", "keywords=tag:min_count=10", "-t", "log2_bytes", "-o", model,
                 "-e", "image=effnet-lite0", "-e", "title=minilm")
    assert ran.code == 0, ran.err
    assert mmtool("eval", model, manifest, "-o", tmp_path / "r").code == 0
    found = json.loads((tmp_path / "r/metrics.json").read_text())
    for column, metric in (("category", "accuracy"), ("keywords", "f1_micro"), ("log2_bytes", "r2")):
        value, nothing = (found[kind][column] for kind in ("overall", "baselines"))
        assert value[metric]["low"] > nothing["without_inputs"][metric]["high"] + 0.2, (column, value[metric])
    page = (tmp_path / "r/report.html").read_text(encoding="utf-8")
    assert page.count("<section") >= 3


def test_pictures_of_fashion_mnist_are_learned_from_scratch(mmtool: Callable, data: Path, tmp_path: Path) -> None:
    """A fifth of the rows, in two epochs; what the README says of all of them is from tests/benchmarks/fashion.py."""
    if not (data / "fashion").exists():
        pytest.skip("Fashion-MNIST is not below MMTOOL_DATA")
    manifest, model = tmp_path / "fashion.parquet", tmp_path / "m.safetensors"
    fashion.write_manifest(data / "fashion", manifest)
    rows = pq.read_table(manifest)
    pq.write_table(rows.take(list(range(0, len(rows), 5))), manifest)
    ran = mmtool("train", manifest, "-t", "garment", "-e", "picture=image-cnn:width=8,img_size=28", "--batch-rows", "64",
                 "--lr", "0.003", "--epochs", "2", "-o", model)
    assert ran.code == 0, ran.err
    assert mmtool("eval", model, manifest, "-o", tmp_path / "r").code == 0
    metrics = json.loads((tmp_path / "r/metrics.json").read_text())
    assert metrics["rows"] == 2_000
    assert metrics["overall"]["accuracy"]["value"] >= 0.8
