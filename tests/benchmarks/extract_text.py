"""`mmtool extract` with MiniLM against sentence-transformers' `encode` at its defaults, on the same rows.

    MMTOOL_DATA=... python tests/benchmarks/extract_text.py [--json FILE]

Short texts are titles and keywords of clip art, long ones several of these in a row; without the data, words at random. Ours
are rows a second after the first 256 of the whole command, theirs of one call after loading and warming up.
"""

from __future__ import annotations

import argparse
import csv
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import harness
from extract_images import FIRST, same, shard_rate
from harness import Row

PROMISED = 1.3
JOINED = 6
"""Short texts in a long one, some 100 tokens."""


def texts() -> list[str]:
    """Some 5,000 different ones, in an order without meaning."""
    rng = random.Random(0)
    data = harness.data_folder()
    if data is not None and (data / "clipart.csv").exists():
        with (data / "clipart.csv").open(encoding="utf-8", newline="") as f:
            found = sorted({f"{row['title']}: {row['keywords'].replace('|', ', ')}" for row in csv.DictReader(f)})
    else:
        words = ("red", "old", "small", "house", "tree", "photo", "of", "the", "under", "dog", "cat", "ship", "cloud", "paper")
        found = sorted({" ".join(rng.choices(words, k=rng.randint(3, 25))) for _ in range(5000)})
    rng.shuffle(found)
    return found[:5000]


def table(path: Path, rows: list[str]) -> Path:
    """`id,text` of these."""
    with path.open("w", encoding="utf-8", newline="") as f:
        csv.writer(f).writerows([("id", "text"), *enumerate(rows)])
    return path


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    """Short texts, and long ones."""
    short = texts()
    kinds = {"short": short[:1536] if arguments.quick else short}
    if not arguments.quick:
        kinds["long"] = ["; ".join(short[i:i + JOINED]) for i in range(1024)]
    for kind, rows in kinds.items():
        with TemporaryDirectory() as name:
            work = Path(name)
            path = table(work / "texts.csv", rows)
            whole: list[float] = []

            def ours(work: Path = work, path: Path = path, count: int = len(rows), whole: list[float] = whole) -> float:
                shutil.rmtree(work / "features", ignore_errors=True)
                ran = harness.mmtool("extract", path, "-o", work / "features", "-e", "image@text=minilm", "--no-cache", "-q")
                whole.append(ran.seconds)
                return shard_rate(work / "features/image", count)

            def theirs(work: Path = work, path: Path = path) -> float:
                return float(harness.script("sentence_loop.py", path, work / "plain.npy", env={"HF_HUB_OFFLINE": "1"})["rate"])

            runs = harness.interleave({"ours": ours, "peer": theirs}, 1 if arguments.quick else 3, until=arguments.until)
            middle = harness.medians(runs)
            yield Row(f"extract minilm, {kind} texts ÷ sentence-transformers", middle["ours"], "peer", "rows/s",
                      peer=middle["peer"], promised=PROMISED, runs=runs,
                      note=f"{len(rows)} rows, rate after {FIRST}; least cosine {same(work):.6f}; whole command "
                           f"{harness.medians({'s': whole})['s']:.1f} s")


if __name__ == "__main__":
    harness.program(__doc__, measure)
