"""Rows of the table from the benchmarks that have figures of their own: start-up, scale, training.

    python tests/benchmarks/others.py startup|scale|train_scale|train_disk|train_stamps [--rows N] [--json FILE]

A module or a function that is not there is an error here, which run.py names and passes over.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import harness
from harness import Row


def startup(arguments: argparse.Namespace) -> Iterator[Row]:
    """Whole commands against the least that they could take, and a warm one against the bare forward."""
    module = import_module("startup")
    with TemporaryDirectory() as name:
        model = module.trained(Path(name))
        cold = module.measure_cold(model, Path(name), runs=2 if arguments.quick else 5)
        middle = cold["median_s"]
        for what, (_, promised) in cold["ratios"].items():
            mine, _, other = what.partition(" ÷ ")
            yield Row(f"cold {what}", middle[mine], "limit", "s", limit=middle[other], promised=promised, at_most=True,
                      runs={"ours": cold["times_s"][mine], "limit": cold["times_s"][other]})
        warm = module.measure_warm(model, 3 if arguments.quick else 10)
    for way in ("zero-shot", "-m"):
        yield Row(f"warm predict - ({way}), a row ÷ bare forward", warm[way]["row_s"], "limit", "s",
                  limit=warm[way]["forward_s"], promised=warm[way]["limit"], at_most=True,
                  note="image and text, rows one by one")


def scale(arguments: argparse.Namespace) -> Iterator[Row]:
    """The promised figures are no ratios: rows a second and seconds are held against what is promised for 1,000,000 rows."""
    rows = arguments.rows or (50_000 if arguments.quick else 300_000)
    module = import_module("scale")
    told = module.measure(rows)
    rate = (rows - module.FEW) / (told["seconds"] - told["small_seconds"])
    yield Row(f"extract of {rows} rows, encoder that does nothing", rate, "limit", "rows/s", limit=20_000, promised=1.0,
              note=f"limit: as promised; after the first {module.FEW} rows, whole command {told['seconds']:.1f} s")
    yield Row(f"resume scan of {rows} rows", told["resume_scan_seconds"], "limit", "s", limit=10, promised=1.0, at_most=True,
              note="limit: as promised")
    yield Row(f"peak memory, {rows} ÷ 10000 rows", told["large_mib"], "limit", "MB", limit=told["small_mib"], promised=1.1,
              at_most=True)


def train_scale(arguments: argparse.Namespace) -> Iterator[Row]:
    """An epoch over features of three inputs; `--rows 100000` is what is promised."""
    rows = arguments.rows or (10_000 if arguments.quick else 20_000)
    os.environ["OMP_NUM_THREADS"] = "1"  # threads that wait spend CPU seconds
    told = import_module("train_scale").measure_epoch(rows)
    yield Row(f"epoch of training on {rows} x 3 x 512 features ÷ plain loop", told["epoch"], "plain", "CPU s",
              plain=told["plain_loop"], limit=told["sum"], at_most=True, note="limit: reading every value once")


def train_disk(arguments: argparse.Namespace) -> Iterator[Row]:
    """Training from features on disk that memory does not hold: with memory limited, and without."""
    rows = arguments.rows or 1_000_000
    told = import_module("train_scale").measure_disk(rows)
    for name in ("free", "limited"):
        if told[name]["code"]:
            raise harness.Failed(f"train with memory {name} ended with {told[name]['code']}: {told[name]['said'].strip()}")
    yield Row(f"train, {rows} x 512 from disk, memory limited ÷ free", told["limited"]["seconds"], "limit", "s",
              limit=told["free"]["seconds"], at_most=True,
              note=f"{told['features_mb']} MB of features, limit of {told['limit_mb']} MB")


def train_stamps(arguments: argparse.Namespace) -> Iterator[Row]:
    """`train` on features of stamps.csv and scikit-learn's search for the same strength, in one process each round."""
    module = import_module("train_stamps")
    from mmtool.cli.main import run
    from mmtool.features.reader import Features

    with TemporaryDirectory() as name:
        work = Path(name)
        folder = work / "features"
        data = Path(os.environ["MMTOOL_DATA"]) / "stamps.csv"
        harness.mmtool("extract", data, "-o", folder, "-e", "image=effnet-lite0", "-e", "text=minilm", "-q")
        seconds: dict[str, list[float]] = {"ours": [], "peer": [], "whole": []}
        scores = []
        for seed in range(1 if arguments.quick else 3):
            train = ["train", str(folder), "--target", "category", "-o", str(work / "m.safetensors"), "--seed", str(seed), "-q"]
            seconds["ours"].append(_seconds(lambda train=train: run(train)))
            seconds["whole"].append(harness.mmtool(*train).seconds)
            mine = module.ours(folder, seed, work)["accuracy"]["value"]
            started = time.perf_counter()
            scores.append((mine, module.theirs(Features(folder), seed)[0]))
            seconds["peer"].append(time.perf_counter() - started)
    middle = harness.medians(seconds)
    yield Row("train on features ÷ LogisticRegressionCV", middle["ours"], "peer", "s", peer=middle["peer"], promised=1.0,
              at_most=True, runs=seconds, note=f"accuracy {', '.join(f'{a:.3f} to {b:.3f}' for a, b in scores)}; as a whole "
                                               f"command {middle['whole']:.1f} s")


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    assert work() == 0
    return time.perf_counter() - started


SUBJECTS = {"startup": startup, "scale": scale, "train_scale": train_scale, "train_disk": train_disk,
            "train_stamps": train_stamps}

if __name__ == "__main__":
    harness.program(__doc__, lambda arguments: SUBJECTS[arguments.subject](arguments),
                    add=lambda parser: (
        parser.add_argument("subject", choices=list(SUBJECTS)), parser.add_argument("--rows", type=int)))
