"""Peak memory of `mmtool extract` with MiniLM, all texts different: 100,000 rows against 1,000.

    python tests/benchmarks/extract_memory.py [--rows 100000] [--json FILE]

The peak of the largest process, as the kernel counts it. Texts are a few tokens long, since it is rows that are many.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import harness
from extract_text import table
from harness import Row

FEW = 1_000
PROMISED = 1.1


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    """One row."""
    many = arguments.rows or (5_000 if arguments.quick else 100_000)

    def peak(rows: int) -> float:
        with TemporaryDirectory() as name:
            path = table(Path(name) / "texts.csv", [f"no {i}" for i in range(rows)])
            return harness.mmtool("extract", path, "-o", Path(name) / "f", "-e", "text=minilm", "--no-cache", "-q").peak_mb

    small, large = peak(FEW), peak(many)
    yield Row(f"peak memory of extract, {many} ÷ {FEW} rows", large, "limit", "MB", limit=small, promised=PROMISED,
              at_most=True)


if __name__ == "__main__":
    harness.program(__doc__, measure, add=lambda parser: parser.add_argument("--rows", type=int))
