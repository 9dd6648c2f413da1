"""What every benchmark shares: rows of the table, medians of interleaved runs, whole commands, and what the machine is.

A benchmark is a module `NAME.py` here whose `measure(...)` returns rows; as a program it writes them with `--json FILE`, after
each one, so that what is measured stays when time is over.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeVar

ROOT = Path(__file__).parents[2]
LIBRARIES = ("torch", "torchvision", "timm", "openvino", "sentence-transformers", "scikit-learn", "numpy", "pillow",
             "simplejpeg")
FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_tile", "asimd", "sve")
Other = Literal["plain", "peer", "limit"]
T = TypeVar("T")


@dataclass
class Row:
    """One line of the table: our figure, and the one it is divided by, which is the one that `against` names.

    `promised` is the least ratio, or the most where `at_most`; None where the figure is only stated.
    """

    what: str
    ours: float
    against: Other
    unit: str
    plain: float | None = None
    peer: float | None = None
    limit: float | None = None
    promised: float | None = None
    at_most: bool = False
    note: str = ""
    runs: dict[str, list[float]] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Ours ÷ what it is held against."""
        other = getattr(self, self.against)
        assert other, f"{self.what}: no figure of the {self.against}"
        return self.ours / float(other)

    @property
    def kept(self) -> bool | None:
        """Does the ratio keep the promise? None where there is none."""
        if self.promised is None:
            return None
        return self.ratio <= self.promised if self.at_most else self.ratio >= self.promised

    def as_json(self) -> dict[str, Any]:
        """Every field, the ratio, and whether the promise is kept."""
        return {**asdict(self), "ratio": self.ratio, "kept": self.kept}

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Row:
        """What `as_json` gave; raises TypeError or KeyError for what is no row."""
        return cls(**{k: v for k, v in given.items() if k not in ("ratio", "kept")})


@dataclass
class Finished:
    """A command that ended well: what it printed, its wall seconds, and the peak memory of its largest process."""

    out: str
    seconds: float
    peak_mb: float


class Failed(Exception):
    """A command that did not end well; the last lines that it wrote."""


def interleave(runs: Mapping[str, Callable[[], T]], rounds: int, *, until: float = float("inf")) -> dict[str, list[T]]:
    """Each run once a round, so that what slows the machine for a while slows them all; the first round always happens.

    `until`: on `time.monotonic()`; a further round begins only where it would end before, if it took as long as the last.
    """
    found: dict[str, list[T]] = {name: [] for name in runs}
    for _ in range(rounds):
        started = time.monotonic()
        for name, run in runs.items():
            found[name].append(run())
        if 2 * time.monotonic() - started > until:
            break
    return found


def medians(found: Mapping[str, Iterable[float]]) -> dict[str, float]:
    """The median of each run's figures."""
    return {name: statistics.median(values) for name, values in found.items()}


def command(arguments: list[str], *, env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> Finished:
    """Run it to its end; raises Failed. It is alone in what it measures: start-up and imports count."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        started = time.perf_counter()
        process = subprocess.Popen(arguments, stdout=out, stderr=err, text=True, env={**os.environ, **(env or {})}, cwd=cwd)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        for file in (out, err):
            file.seek(0)
        printed, said = out.read(), err.read()
    if process.returncode:
        last = (said or printed).strip().splitlines()[-3:]
        raise Failed(f"{' '.join(arguments[:6])} ... ended with {process.returncode}: {' | '.join(last)}")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return Finished(printed, seconds, usage.ru_maxrss / unit)


def script(name: str, *arguments: object, env: Mapping[str, str] | None = None) -> Any:
    """The JSON that another module of this folder prints as a program of its own; raises Failed."""
    ran = command([sys.executable, str(Path(__file__).with_name(name)), *map(str, arguments)], env=env)
    return json.loads(ran.out.splitlines()[-1])


def mmtool(*arguments: object, env: Mapping[str, str] | None = None) -> Finished:
    """`mmtool ARGUMENTS` as a whole command, by the interpreter that runs this; raises Failed."""
    return command([sys.executable, "-m", "mmtool", *map(str, arguments)], env=env)


def cache_folder() -> Path:
    """Where what is made once stays: MMTOOL_BENCH, or .cache/bench in the repository."""
    folder = Path(os.environ.get("MMTOOL_BENCH") or ROOT / ".cache/bench").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def data_folder() -> Path | None:
    """The real data, MMTOOL_DATA, where they are."""
    given = os.environ.get("MMTOOL_DATA")
    return Path(given) if given and Path(given).is_dir() else None


def has(package: str) -> bool:
    """Is this distribution installed?"""
    return installed(package) != "none"


def installed(package: str) -> str:
    """Its version, or `none`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def machine() -> dict[str, Any]:
    """Cores, processor, the vector units that matter, memory, load, versions and threads."""
    return {"system": platform.platform(terse=True), "processor": _cpuinfo("model name") or platform.processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "flags": [f for f in FLAGS if f in (_cpuinfo("flags") or _cpuinfo("Features")).split()],
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "load": [round(x, 2) for x in os.getloadavg()], "python": platform.python_version(),
            "versions": {name: installed(name) for name in LIBRARIES},
            "torch_threads": _torch_threads(), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS")}


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def _torch_threads() -> int | None:
    try:
        return int(command([sys.executable, "-c", "import torch; print(torch.get_num_threads())"]).out)
    except (Failed, ValueError):
        return None


def program(doc: str | None, measure: Callable[[argparse.Namespace], Iterator[Row]], *,
            add: Callable[[argparse.ArgumentParser], object] = lambda parser: None) -> None:
    """A benchmark as a program: `--json FILE`, `--quick`, `--seconds N` (stop repeating then), and what `add` adds."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="fewer runs of less work, for CI")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="repeat nothing after these")
    add(parser)
    arguments = parser.parse_args()
    arguments.until = time.monotonic() + arguments.seconds
    rows: list[Row] = []
    for row in measure(arguments):
        rows.append(row)
        print(f"{row.what}: {row.ours:.4g} {row.unit}, {row.against} {getattr(row, row.against):.4g}, ratio {row.ratio:.3g}"
              f"{'; ' + row.note if row.note else ''}", flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps([r.as_json() for r in rows], indent=1))
