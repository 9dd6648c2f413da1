"""`mmtool extract` over rows of stamps.csv, pictures, texts and speech through the starter's encoders."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support import folder_bytes

from mmtool.features.reader import Features

pytestmark = pytest.mark.real
ENCODE = ("-e", "image=effnet-lite0", "-e", "text=minilm", "-e", "speech_fr=whisper-tiny")
ROWS, HEARD = 288, 142  # a whole block of 256 and one that is not; speech is the slow one


@pytest.fixture(scope="module")
def manifest(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every second row, so that each category is there, and the speech of every second of them."""
    with (data / "stamps.csv").open(encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))[::2][:ROWS]
    for number, row in enumerate(rows):
        row |= {c: str((data / row[c]).resolve()) if row[c] else "" for c in ("image", "speech_fr")}
        row["speech_fr"] = "" if number % 2 else row["speech_fr"]
    with (target := tmp_path_factory.mktemp("table") / "stamps.csv").open("w", encoding="utf-8", newline="") as f:
        writer = csv.DictWriter(f, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return target


@pytest.fixture(scope="module")
def straight(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of an undisturbed run with no reader process and no cache."""
    target = tmp_path_factory.mktemp("stamps") / "straight"
    ran = subprocess.run([sys.executable, "-m", "mmtool", "extract", str(manifest), "-o", str(target), *ENCODE,
                          "--workers", "0", "--no-cache"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert f"image: {ROWS} ok, 0 missing, 0 bad, 0 cached" in ran.stderr
    assert f"speech_fr: {HEARD} ok, {ROWS - HEARD} missing, 0 bad, 0 cached" in ran.stderr
    return target


def test_workers_change_no_byte(mmtool: Callable, manifest: Path, straight: Path, tmp_path: Path) -> None:
    ran = mmtool("extract", manifest, "-o", tmp_path / "f", *ENCODE, "--workers", 3, "--no-cache")
    assert ran.code == 0
    assert folder_bytes(tmp_path / "f") == folder_bytes(straight)


def test_killed_and_run_again_and_a_second_run(mmtool: Callable, manifest: Path, straight: Path, tmp_path: Path) -> None:
    command = ["extract", str(manifest), "-o", str(tmp_path / "f"), *ENCODE]
    process = subprocess.Popen([sys.executable, "-m", "mmtool", *command], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not (tmp_path / "f.partial/.parts/00000.parquet").exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    ran = mmtool(*command)
    assert ran.code == 0
    assert folder_bytes(tmp_path / "f") == folder_bytes(straight)
    ran = mmtool(*command, "--json")
    assert {n: (c["ok"], c["cached"]) for n, c in json.loads(ran.out)["inputs"].items()} == {
        "image": (ROWS, ROWS), "speech_fr": (HEARD, HEARD), "text": (ROWS, ROWS)}
    assert folder_bytes(tmp_path / "f") == folder_bytes(straight)


def test_the_features_mean_something(straight: Path) -> None:
    """Nearest neighbours in each input's features share a category far more often than chance (0.20)."""
    features = Features(straight)
    categories = np.array(features.rows["category"].to_pylist())
    for name, least in (("image", 0.7), ("text", 0.7), ("speech_fr", 0.3)):
        tokens = features.tokens(name, range(len(features)))
        x = tokens.values[:, 0][tokens.present].double().numpy()
        x = (x - x.mean(0)) / np.linalg.norm(x - x.mean(0), axis=1, keepdims=True)
        near = x @ x.T
        np.fill_diagonal(near, -2)
        kept = categories[tokens.present.numpy()]
        assert (kept[near.argmax(1)] == kept).mean() > least, name
