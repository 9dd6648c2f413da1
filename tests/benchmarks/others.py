"""Rows of the table from the benchmarks that have figures of their own: start-up, scale, training.

    python tests/benchmarks/others.py startup|scale|train_scale|train_stamps [--json FILE]

A module or a function that is not there is an error here, which run.py names and passes over.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import harness
from harness import Row


def startup(arguments: argparse.Namespace) -> Iterator[Row]:
    """Whole commands against the least that they could take."""
    runs = {"torch": [sys.executable, "-c", "import torch"],
            "predict": [sys.executable, "-m", "mmtool", "predict", str(harness.ROOT / "mmtool/samples/cat.jpg"),
                        "--labels", "cat,dog,car"]}
    for each in runs.values():
        harness.command(each)  # warms the disk
    found = harness.interleave({n: (lambda c=c: harness.command(c).seconds) for n, c in runs.items()},
                               3 if arguments.quick else 7, until=arguments.until)
    middle = harness.medians(found)
    yield Row("cold predict ÷ import torch", middle["predict"], "limit", "s", limit=middle["torch"], promised=2.5, at_most=True,
              runs=found)
    module = import_module("startup")
    with TemporaryDirectory() as name:
        told = module.measure_warm(module.trained(Path(name)))
    for way in ("zero-shot", "-m"):
        yield Row(f"warm predict - ({way}), a row ÷ bare forward", told[way]["row_s"], "limit", "s",
                  limit=told[way]["forward_s"], promised=1.2, at_most=True, note="image and text, rows one by one")


def scale(arguments: argparse.Namespace) -> Iterator[Row]:
    """The promised figures are no ratios: rows a second and seconds are held against what is promised."""
    rows = 50_000 if arguments.quick else 1_000_000
    told = import_module("scale").measure(rows)
    yield Row(f"extract of {rows} rows, encoder that does nothing", told["rows_per_second"], "limit", "rows/s", limit=20_000,
              promised=1.0, note=f"limit: as promised; resume scan {told['resume_scan_seconds']:.2f} s")
    yield Row(f"resume scan of {rows} rows", told["resume_scan_seconds"], "limit", "s", limit=10, promised=1.0, at_most=True,
              note="limit: as promised")
    yield Row(f"peak memory, {rows} ÷ 10000 rows", told["large_mib"], "limit", "MB", limit=told["small_mib"], promised=1.1,
              at_most=True)


def train_scale(arguments: argparse.Namespace) -> Iterator[Row]:
    """An epoch of 100,000 x 3 x 512, and training from 1,000,000 x 512 on disk."""
    module = import_module("train_scale")
    told = module.measure_epoch(20_000 if arguments.quick else 100_000)
    yield Row("epoch of training on 3 x 512 features ÷ plain loop", told["epoch"], "plain", "CPU s", plain=told["plain_loop"],
              limit=told["sum"], at_most=True, note="limit: reading every value once")
    if not arguments.quick:
        told = module.measure_disk()
        free, bound = ({k: v for k, v in told[n].items() if isinstance(v, float | int)} for n in ("free", "limited"))
        yield Row("train, 1000000 x 512 from disk, memory limited ÷ free", bound["seconds"], "limit", "s",
                  limit=free["seconds"], at_most=True,
                  note=f"{told['features_mb']} MB of features under a limit of {told['limit_mb']} MB")


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


SUBJECTS = {"startup": startup, "scale": scale, "train_scale": train_scale, "train_stamps": train_stamps}

if __name__ == "__main__":
    harness.program(__doc__, lambda arguments: SUBJECTS[arguments.subject](arguments),
                    add=lambda parser: parser.add_argument("subject", choices=list(SUBJECTS)))
