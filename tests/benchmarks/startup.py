"""How long a command takes to start, as a ratio in one run: medians of interleaved runs.

    python tests/benchmarks/startup.py [--runs 7] [--json FILE]

Plain figures on stdout; `limit` is what the project promises. Nothing here fails: a benchmark is read, not asserted.
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
from importlib.metadata import version
from pathlib import Path

HELLO = """
import typer
app = typer.Typer()
@app.command()
def hello(name: str): print(name)
@app.command()
def bye(name: str): print(name)
app()
"""


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    photo = Path(__file__).parents[2] / "mmtool/samples/cat.jpg"
    python, mmtool = sys.executable, str(Path(sys.executable).with_name("mmtool"))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "hello.py").write_text(HELLO)
        commands = {
            "hello-world --help": [python, str(Path(folder) / "hello.py"), "--help"],
            "mmtool --help": [mmtool, "--help"],
            "mmtool plugins list": [mmtool, "plugins", "list"],
            "import torch": [python, "-c", "import torch"],
            "mmtool predict cat.jpg --labels a,b,c": [mmtool, "predict", str(photo), "--labels", "cat,dog,car"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for run in range(arguments.runs + 1):
            for name, command in commands.items():
                took = seconds(command)
                if run:  # the first one warms the disk
                    times[name].append(took)
    median = {name: statistics.median(values) for name, values in times.items()}
    ratios = [("mmtool --help", "hello-world --help", 1.5), ("mmtool plugins list", "hello-world --help", 2.0),
              ("mmtool predict cat.jpg --labels a,b,c", "import torch", 3.0)]
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {version('torch')}, "
          f"medians of {arguments.runs} interleaved runs")
    for name, value in median.items():
        print(f"{name:<40} {value:7.3f} s")
    for name, base, limit in ratios:
        print(f"{name} ÷ {base}: {median[name] / median[base]:.2f} (limit {limit})")
    if arguments.json:
        arguments.json.write_text(json.dumps({"median_s": median, "times_s": times}, indent=1))


if __name__ == "__main__":
    main()
