"""What a table of 1,000,000 rows costs beside its encoder: rows a second, the scan when a run is resumed, peak memory.

    python tests/benchmarks/scale.py [--rows 1000000] [--no-cache] [--json FILE]

The encoder does next to nothing, so what is measured is all the rest. Every figure is of the real command in a process of its
own, with a cache and a folder that are thrown away. `limit` is what the project promises; nothing here fails.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

FEW = 10_000
ENCODER = '''
import torch
from torch import Tensor
from mmtool.api import Encoder, Tokens

class Nothing(Encoder):
    """Eight zeros for each text."""
    api, modality, dim, pretrained = 1, "text", 8, True

    def prepare(self, cell: str) -> Tensor:
        return torch.zeros(1)

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        return Tokens(torch.zeros(len(x), 1, 8), torch.ones(len(x), 1, dtype=torch.bool))
'''
METADATA = "Metadata-Version: 2.1\nName: mmtool-scale\nVersion: 0.1\n"
ENTRY = "[mmtool.encoders]\nscale-nothing = mmtool_scale:Nothing\n"


@dataclass
class Run:
    """One command: seconds, CPU seconds of it and of its readers, peak memory of it and of its largest reader in MiB."""

    seconds: float
    parent_cpu: float = 0.0
    reader_cpu: float = 0.0
    parent_mib: float = 0.0
    reader_mib: float = 0.0


def install(folder: Path) -> None:
    """The encoder as a package in a folder for PYTHONPATH."""
    about = folder / "mmtool_scale-0.1.dist-info"
    about.mkdir(parents=True)
    (folder / "mmtool_scale.py").write_text(ENCODER)
    (about / "METADATA").write_text(METADATA)
    (about / "entry_points.txt").write_text(ENTRY)


def table(path: Path, rows: int) -> Path:
    """`rows` rows of an id, a label and a text of a few characters, every one another."""
    with path.open("w") as f:
        f.write("id,label,text\n")
        f.writelines(f"sample-{i},{'even' if i % 2 == 0 else 'odd'},text {i}\n" for i in range(rows))
    return path


def _used(process: int) -> tuple[float, float]:
    """CPU seconds and VmHWM in MiB; zeros where the process is gone or the system tells none."""
    with suppress(OSError, StopIteration):
        ticks = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        peak = next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), peak
    return 0.0, 0.0


def _children(process: int) -> list[int]:
    with suppress(OSError):
        return [int(n) for task in Path(f"/proc/{process}/task").iterdir() for n in (task / "children").read_text().split()]
    return []


def run(place: Path, arguments: list[str], *, until: threading.Event | None = None) -> Run:
    """`mmtool ARGUMENTS`; ended by Ctrl-C where `until` is set."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(place / "plugin"), os.environ.get("PYTHONPATH", "")]),
                   "MMTOOL_CACHE": str(place / "cache")}
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "mmtool", *arguments], env=environment, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True)
    found = Run(0.0)
    readers: dict[int, float] = {}
    while process.poll() is None:
        cpu, peak = _used(process.pid)
        found.parent_cpu, found.parent_mib = max(found.parent_cpu, cpu), max(found.parent_mib, peak)
        for child in _children(process.pid):
            cpu, peak = _used(child)
            readers[child], found.reader_mib = max(readers.get(child, 0.0), cpu), max(found.reader_mib, peak)
        if until is not None and until.is_set():
            process.terminate()
            until = None
        time.sleep(0.02)
    found.seconds, found.reader_cpu = time.monotonic() - started, sum(readers.values())
    told = process.stderr.read() if process.stderr else ""
    if process.returncode not in (0, 130):
        raise SystemExit(f"mmtool {' '.join(arguments)} ended with {process.returncode}:\n{told}")
    return found


def extract(place: Path, manifest: Path, output: Path, more: list[str], until: threading.Event | None = None) -> Run:
    return run(place, ["extract", str(manifest), "-o", str(output), "-e", "text=scale-nothing", "--quiet", *more], until=until)


def resumed(place: Path, manifest: Path, output: Path, rows: int, more: list[str]) -> tuple[float, Run]:
    """Interrupt a run when 99 % of the rows are there, and go on: seconds to the first new shard, and the rest of the run."""
    partial = output.with_name(output.name + ".partial") / ".parts"
    enough, seen = _shards(rows - rows // 100), threading.Event()
    _watch(lambda: (partial / f"{enough - 1:05d}.parquet").exists(), seen)
    extract(place, manifest, output, more, seen)
    done = len(list(partial.glob("*.parquet")))
    first, started = threading.Event(), time.monotonic()
    at: list[float] = []
    _watch(lambda: (partial / f"{done:05d}.parquet").exists() or output.exists(), first, at)
    second = extract(place, manifest, output, more)
    first.wait(1)
    return at[0] - started, second


def _shards(rows: int) -> int:
    """Whole shards that so many rows fill."""
    from mmtool.features.format import shard_rows

    number = 0
    while (rows := rows - shard_rows(number, pooled=True)) >= 0:
        number += 1
    return number


def _watch(there: object, event: threading.Event, at: list[float] | None = None) -> None:
    def look() -> None:
        while not there():  # type: ignore[operator]
            time.sleep(0.01)
        if at is not None:
            at.append(time.monotonic())
        event.set()

    threading.Thread(target=look, daemon=True).start()


def measure(rows: int = 1_000_000, *, cached: bool = True, folder: Path | None = None) -> dict[str, float]:
    """Rows a second of the whole command, seconds until a resumed run has its first new shard, and how memory grows.

    `folder`: where about 150 bytes a row are written.
    """
    place = Path(tempfile.mkdtemp(prefix="mmtool-scale-", dir=folder))
    more = [] if cached else ["--no-cache"]
    try:
        install(place / "plugin")
        few, many = table(place / "few.csv", FEW), table(place / "many.csv", rows)
        extract(place, few, place / "warm", more)  # bytecode, the disk
        shutil.rmtree(place / "cache", ignore_errors=True)
        small = extract(place, few, place / "small", more)
        shutil.rmtree(place / "cache", ignore_errors=True)
        large = extract(place, many, place / "large", more)
        info = run(place, ["info", str(place / "large")])
        shutil.rmtree(place / "cache", ignore_errors=True)
        scan, _ = resumed(place, many, place / "again", rows, more)
        return {"rows": rows, "seconds": large.seconds, "small_seconds": small.seconds, "rows_per_second": rows / large.seconds,
                "parent_us_per_row": (large.parent_cpu - small.parent_cpu) / max(rows - FEW, 1) * 1e6,
                "readers_us_per_row": (large.reader_cpu - small.reader_cpu) / max(rows - FEW, 1) * 1e6,
                "resume_scan_seconds": scan, "small_mib": small.parent_mib, "large_mib": large.parent_mib,
                "memory_ratio": large.parent_mib / small.parent_mib,
                "reader_small_mib": small.reader_mib, "reader_large_mib": large.reader_mib,
                "reader_memory_ratio": large.reader_mib / small.reader_mib if small.reader_mib else 0.0,
                "info_seconds": info.seconds, "info_mib": info.parent_mib}
    finally:
        shutil.rmtree(place, ignore_errors=True)


LIMITS = {"rows_per_second": ">= 20000", "resume_scan_seconds": "<= 10", "memory_ratio": "<= 1.1",
          "reader_memory_ratio": "<= 1.1"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--no-cache", action="store_true")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {version('torch')}, "
          f"load {os.getloadavg()[0]:.1f}, {arguments.rows} rows, median of {arguments.runs}")
    found = [measure(arguments.rows, cached=not arguments.no_cache) for _ in range(arguments.runs)]
    median = {name: statistics.median(one[name] for one in found) for name in found[0]}
    for name, value in median.items():
        limit = f"   (limit {LIMITS[name]})" if name in LIMITS else ""
        print(f"{name:<22} {value:12.2f}{limit}")
    if arguments.json:
        arguments.json.write_text(json.dumps(median, indent=1))


if __name__ == "__main__":
    main()
