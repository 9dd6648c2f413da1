"""Does `--coverage 0.9` hold? Mean coverage over 20 fixed resplits of stamps.csv and clipart.csv, beside what chance allows.

    MMTOOL_DATA=... python tests/benchmarks/conformal_coverage.py [STAMPS_FEATURES CLIPART_FEATURES]

A resplit draws training rows and n calibration rows (together what `train --conformal` draws from) and m test rows by chance
from all rows. Given the training rows, who calibrates and who tests is a fair draw from the rows left, so the number of covered
test rows is beta-binomial (negative hypergeometric) whatever the data and the model, where scores do not tie; its
mean, m k / (n + 1) with k = ceil(0.9 (n + 1)), is the same for every choice of training rows. Resplits have seeds of
their own and are independent given the data, so the sum over 20 is the convolution of 20 such laws, exactly, though all come
from the same rows. Ties can only add coverage. The exit code is 1 where a mean is outside of the 99 % band.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial, reduce
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import betabinom

from mmtool import conformal
from mmtool.cli.main import run
from mmtool.features.format import ROWS
from mmtool.features.header import read_header, seal

RESPLITS, COVERAGE, PROCESSES = 20, 0.9, 2
TEXT = {"stamps": "text", "clipart": "title"}
SIZES = {"stamps": (500, 0.3, 203), "clipart": (1500, 2 / 3, 1000)}
"""Rows to learn from, the share of them that `train --conformal` keeps apart, and test rows."""


def resplit(features: Path, learning: int, test: int, seed: int, work: Path) -> Path:
    """The same features with a column `split` drawn by chance; other rows, and those that lack an input, are left out."""
    folder = work / "resplit"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(features, folder)
    header = read_header(features)
    table = pq.read_table(features / ROWS)
    statuses = [table[c].to_pylist() for c in table.column_names if c.startswith("status:")]
    whole = [at for at, row in enumerate(zip(*statuses, strict=True)) if set(row) == {"ok"}]
    order = np.random.default_rng(seed).permutation(whole)
    words = np.full(len(table), "", dtype=object)
    words[order[:learning]], words[order[learning : learning + test]] = "train", "test"
    pq.write_table(table.set_column(table.column_names.index("split"), "split", pa.array(words.tolist())), folder / ROWS)
    seal(folder, header)
    return folder


def one(folder: Path, share: float, seed: int, work: Path) -> tuple[int, int, dict[str, Any]]:
    """Calibration rows, test rows, and the metrics."""
    model, report = work / "m.safetensors", work / "report"
    asked = ("-t", "category", "--conformal", str(share), "--seed", str(seed), "-q")
    with contextlib.redirect_stdout(io.StringIO()):
        assert run(["train", str(folder), "-o", str(model), *asked]) == 0
        assert run(["eval", str(model), str(folder), "-o", str(report), "--coverage", str(COVERAGE), "-q"]) == 0
    found = json.loads((report / "metrics.json").read_text())
    return found["doubt"]["coverage"]["calibration_rows"], found["rows"], found


def mean_band(sizes: list[tuple[int, int]], level: float) -> tuple[float, float]:
    """Of the mean coverage over independent resplits with (calibration, test) rows each."""
    laws = []
    for n, m in sizes:
        k = conformal.rank(n, COVERAGE)
        laws.append(betabinom(m, k, n + 1 - k).pmf(np.arange(m + 1)))
    reached = np.cumsum(reduce(np.convolve, laws))
    total = sum(m for _, m in sizes)
    low, high = (float(np.searchsorted(reached, q)) / total for q in ((1 - level) / 2, (1 + level) / 2))
    return low, high


def measure(name: str, features: Path, work: Path) -> bool:
    """All resplits of one data set; is the mean where chance allows it?"""
    learning, share, test = SIZES[name]
    started, sizes, found = time.monotonic(), [], []
    with ProcessPoolExecutor(PROCESSES, get_context("spawn")) as pool:
        results = list(pool.map(partial(_resplit, features, learning, share, test, work), range(RESPLITS)))
    for n, m, metrics in results:
        sizes.append((n, m))
        doubt = metrics["doubt"]
        found.append((round(doubt["coverage"]["value"] * m) / m, doubt["set_size"], doubt["empty"],
                      metrics["overall"]["accuracy"]["value"]))
    coverage, size, empty, accuracy = np.mean(found, axis=0)
    narrow, wide = mean_band(sizes, 0.95), mean_band(sizes, 0.99)
    inside = wide[0] <= coverage <= wide[1]
    n, m = sizes[0]
    print(f"{name}: {RESPLITS} resplits, {learning - n} training, {n} calibration and {m} test rows, "
          f"{time.monotonic() - started:.0f} s\n  mean coverage {coverage:.4f}; 95 % band {narrow[0]:.4f} to {narrow[1]:.4f}, "
          f"99 % band {wide[0]:.4f} to {wide[1]:.4f}: {'inside' if inside else 'OUTSIDE'}\n  mean set size {size:.3f}, "
          f"empty {empty:.3f}, accuracy {accuracy:.3f}; single resplits {min(f[0] for f in found):.3f} to "
          f"{max(f[0] for f in found):.3f}", flush=True)
    return inside


def _resplit(features: Path, learning: int, share: float, test: int, work: Path, seed: int) -> tuple[int, int, dict[str, Any]]:
    own = work / f"{features.name}-{seed}"
    own.mkdir()
    return one(resplit(features, learning, test, seed, own), share, seed, own)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        work, right = Path(name), True
        for number, (data, text) in enumerate(TEXT.items(), 1):
            features = Path(sys.argv[number]) if len(sys.argv) > number else work / data
            if not features.exists():
                manifest = Path(os.environ["MMTOOL_DATA"]) / f"{data}.csv"
                encode = ("-e", "image=effnet-lite0", "-e", f"{text}=minilm")
                assert run(["extract", str(manifest), "-o", str(features), *encode]) == 0
            right &= measure(data, features, work)
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
