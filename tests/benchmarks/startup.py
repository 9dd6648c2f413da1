"""How long a command takes to start, and a warm one to answer a line, as ratios in one run: medians of interleaved runs.

    python tests/benchmarks/startup.py [--runs 5] [--json FILE]

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
from typing import Any

HELLO = """
import typer
app = typer.Typer()
@app.command()
def hello(name: str): print(name)
@app.command()
def bye(name: str): print(name)
app()
"""


PHOTO = Path(__file__).parents[2] / "mmtool/samples/cat.jpg"
TEXTS = ("a cat on a sofa", "a dog in the park", "she purrs all day", "he barks at night", "a kitten", "a puppy")
ROWS = 20


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def trained(folder: Path) -> Path:
    """A model of picture and text, effnet-lite0 and minilm."""
    table, model = folder / "train.csv", folder / "m.safetensors"
    rows = [f"{PHOTO},{TEXTS[i % 6]} {i},{'dog' if i % 2 else 'cat'}" for i in range(40)]
    table.write_text("\n".join(["image,text,label", *rows]) + "\n")
    seconds([sys.executable, "-m", "mmtool", "train", str(table), "-t", "label", "-o", str(model), "-q",
             "-e", "image=effnet-lite0", "-e", "text=minilm"])
    return model


def measure_cold(model: Path, folder: Path, runs: int = 5) -> dict[str, Any]:
    """Seconds of whole commands, and how they stand to what they are compared with: `ratios` has [value, limit]."""
    (folder / "hello.py").write_text(HELLO)
    mmtool = [sys.executable, "-m", "mmtool"]
    commands = {
        "hello-world --help": [sys.executable, str(folder / "hello.py"), "--help"],
        "mmtool --help": [*mmtool, "--help"],
        "mmtool plugins list": [*mmtool, "plugins", "list"],
        "import torch": [sys.executable, "-c", "import torch"],
        "predict zero-shot": [*mmtool, "predict", str(PHOTO), "--labels", "cat,dog,car"],
        "predict -m": [*mmtool, "predict", str(PHOTO), "--text", "a cat", "-m", str(model)],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for run in range(runs + 1):
        for name, command in commands.items():
            took = seconds(command)
            if run:  # the first one warms the disk
                times[name].append(took)
    median = {name: statistics.median(values) for name, values in times.items()}
    pairs = [("mmtool --help", "hello-world --help", 1.5), ("mmtool plugins list", "hello-world --help", 2.0),
             ("predict zero-shot", "import torch", 2.5), ("predict -m", "import torch", 2.5)]
    return {"median_s": median, "times_s": times, "ratios": {f"{n} ÷ {b}": [median[n] / median[b], x] for n, b, x in pairs}}


class Lines:
    """stdin that holds the lines of one turn at a time."""

    def __init__(self) -> None:
        self.turns: list[bytes] = []
        self.buffer = self

    def read1(self, size: int) -> bytes:
        """What is there; nothing at the end."""
        return self.turns.pop(0) if self.turns else b""

    def close(self) -> None:
        """As a forked reader does."""


def measure_warm(model: Path, turns: int = 10) -> dict[str, Any]:
    """`predict -` per row ÷ the bare forward of the same cells, ready and one by one, in turns of 20 rows in one process."""
    from mmtool import allocator

    allocator.keep_memory()
    import torch

    from mmtool import cells, console, encoding, predict, predict_model, waiting
    from mmtool.cells import Source
    from mmtool.model import load
    from mmtool.readers import Kept

    image, text = encoding.build("effnet-lite0").encoder, encoding.build("minilm").encoder
    rows = [{"image": str(PHOTO), "text": f"{TEXTS[i % 6]} {i}"} for i in range(ROWS)]
    ready = [(e, cells.prepare(cells.load(row[e.modality], source)[0], source, e)) for row in rows for e in (image, text)
             for source in [Source(e.modality, Path())]]
    given = b"".join(json.dumps(row).encode() + b"\n" for row in rows)

    @torch.inference_mode()
    def bare() -> None:
        for encoder, cell in ready:
            encoder.pool(encoder(cell.unsqueeze(0), torch.tensor([len(cell)])))

    out: dict[str, Any] = {"threads": torch.get_num_threads()}
    with Kept() as kept, open(os.devnull, "w") as nowhere:
        for name in ("zero-shot", "-m"):
            sys.stdin = lines = Lines()  # type: ignore[assignment]
            if name == "-m":
                found = predict_model._lines_from_stdin(load(model), predict.Settings(), None, kept)
            else:
                talk = predict._Conversation(predict.Settings(), ["cat", "dog", "car"], kept)
                found = waiting.answers(lines, talk.ask, talk.answer, {})  # type: ignore[arg-type]
            took = []
            for _ in range(turns + 1):
                lines.turns.append(given)
                started = time.perf_counter()
                for _ in rows:
                    nowhere.write(console.to_json(next(found)) + "\n")
                    nowhere.flush()
                between = time.perf_counter()
                bare()
                took.append(((between - started) / ROWS, (time.perf_counter() - between) / ROWS))
            ours, forward = (statistics.median(column) for column in zip(*took[1:], strict=True))
            ratio = statistics.median(a / b for a, b in took[1:])
            out[name] = {"row_s": ours, "forward_s": forward, "ratio": ratio, "limit": 1.2}
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {version('torch')}, "
          f"load {os.getloadavg()[0]:.1f}, medians of {arguments.runs} interleaved runs")
    with tempfile.TemporaryDirectory() as folder:
        model = trained(Path(folder))
        cold = measure_cold(model, Path(folder), arguments.runs)
        for name, value in cold["median_s"].items():
            print(f"{name:<40} {value:7.3f} s")
        for name, (ratio, limit) in cold["ratios"].items():
            print(f"{name}: {ratio:.2f} (limit {limit})", flush=True)
        warm = measure_warm(model)
    for name in ("zero-shot", "-m"):
        found = warm[name]
        print(f"warm predict - {name}: {found['row_s'] * 1e3:.1f} ms a row ÷ bare forward {found['forward_s'] * 1e3:.1f} ms: "
              f"{found['ratio']:.2f} (limit {found['limit']}), {warm['threads']} threads")
    if arguments.json:
        arguments.json.write_text(json.dumps({"cold": cold, "warm": warm}, indent=1))


if __name__ == "__main__":
    main()
