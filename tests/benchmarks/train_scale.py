"""`train` on features that are too many to load: an epoch of 100,000 x 3 x 512, and 1,000,000 x 512 from disk.

    OMP_NUM_THREADS=1 python tests/benchmarks/train_scale.py [epoch|disk]

Features are made with the project's own writer, 10 classes, and removed afterwards. The epoch is that of `-f gated`, by
descent; beside it stand a sum over the same bytes, and a plain loop in bare torch over tensors in memory with the same
network, optimizer and batch size. The disk part trains the default linear head in a process whose anonymous memory is
sampled, and again under a limit of it (`ulimit -d`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch

from mmtool.extraction.blocks import Encoded
from mmtool.extraction.folder import Partial
from mmtool.features.format import BLOCK_ROWS, FORMAT, numerics, shard_rows
from mmtool.features.part import Part

CLASSES, DIM = 10, 512
LIMIT_MB = 1900
"""Of writable memory, 800 of which a process with torch and pyarrow states before it reads; 2 GB of features are trained on."""
EPOCHS = 3


def make(folder: Path, rows: int, inputs: int, dim: int = DIM, *, split: bool = True, missing: float = 0.0,
         classes: int = CLASSES) -> Path:
    """Features of `inputs` inputs, float32, that tell a row's class in part; a share of the cells is missing."""
    names, chance = [f"in{i}" for i in range(inputs)], torch.Generator().manual_seed(0)
    centres = torch.randn(inputs, classes, dim, generator=chance) / 12
    partial, shards, start = Partial(folder, pooled=True), [], 0
    partial.begin({"plan": "made"})
    columns = ["id", *(f"column_{n}" for n in names), "label", *(["split"] if split else [])]
    while start < rows:
        count = min(shard_rows(len(shards), pooled=True), rows - start)
        part = Part(ids=[str(start + i) for i in range(count)])
        label = torch.randint(classes, (count,), generator=chance)
        words = ["test" if i % 10 == 0 else "val" if i % 10 == 1 else "train" for i in range(start, start + count)]
        part.rows = [{"id": i, "label": f"c{c}", **({"split": s} if split else {})}
                     for i, c, s in zip(part.ids, label.tolist(), words, strict=True)]
        encoded = {}
        for at, name in enumerate(names):
            x = torch.randn(count, dim, generator=chance) + centres[at][label]
            there = (torch.rand(count, generator=chance) >= missing).tolist()
            part.statuses[name] = ["ok" if ok else "missing" for ok in there]
            kept = [row.unsqueeze(0) if ok else None for row, ok in zip(x.unbind(), there, strict=True)]
            encoded[name] = [Encoded(kept, part.statuses[name])]
        partial.write(len(shards), part, encoded, torch.float32, columns)
        shards.append({"rows": count, "sha256": part.notes["sha256"]})
        start += count
    identity = {"name": "made", "options": {}, "revision": 1, "weights": "0" * 64, "assets": "0" * 64}
    entry = {"modality": "made", "encoder": "made", "package": "made 1", "options": {}, "identity": identity, "pooled": True,
             "dim": dim, "dtype": "float32", "limits": {}, "fitted": False}
    header = {"format": FORMAT, "base": ".", "rows": rows, "columns": columns, "manifest": "made", "block_rows": BLOCK_ROWS,
              "inputs": {n: {**entry, "columns": [f"column_{n}"]} for n in names},
              "numerics": numerics(torch.device("cpu"), "fp32"), "shards": shards}
    partial.finish(header, {n: (f"column_{n}",) for n in names})
    return folder


def _train(features: Path, *options: str, limit_mb: int | None = None) -> dict[str, Any]:
    """The whole command: seconds, seconds of processors, its greatest anonymous memory, and what it said."""
    command = [sys.executable, "-m", "mmtool", "train", str(features), "--target", "label", "-o",
               str(features.with_name("model.safetensors")), "--device", "cpu", *options]
    if limit_mb is not None:
        command = ["bash", "-c", f"ulimit -d {1024 * limit_mb}; exec \"$@\"", "bash", *command]
    started, before = time.monotonic(), os.times()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        peaks, done = {"RssAnon": 0, "RssFile": 0}, threading.Event()

        def watch() -> None:
            while not done.wait(0.05):
                try:
                    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
                except OSError:
                    return
                for line in lines:
                    if (name := line.partition(":")[0]) in peaks:
                        peaks[name] = max(peaks[name], int(line.split()[1]))

        watcher = threading.Thread(target=watch)
        watcher.start()
        said = process.communicate()[1]
        done.set()
        watcher.join()
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return {"seconds": round(time.monotonic() - started, 2), "code": process.returncode,
            "cpu_seconds": round(spent, 2),
            "anonymous_mb": peaks["RssAnon"] // 1024, "mapped_mb": peaks["RssFile"] // 1024, "said": said}


def _epoch_seconds(features: Path, epochs: int) -> float:
    """CPU seconds of one epoch: those of a run of several less those of one of a single epoch."""
    found = []
    for count in (1, 1 + epochs):
        run = _train(features, "-f", "gated", "--epochs", str(count), "-q")
        assert run["code"] == 0, run["said"]
        found.append(run["cpu_seconds"])
    return (found[1] - found[0]) / epochs


def _sum_seconds(xs: list[torch.Tensor]) -> float:
    started = time.process_time()
    for x in xs:
        x.sum()
    return time.process_time() - started


def _plain_seconds(xs: list[torch.Tensor], y: torch.Tensor, rows: torch.Tensor, held: torch.Tensor) -> float:
    """What a good user of PyTorch writes: the same network and steps, over tensors in memory, judged on the held-out rows."""
    from torch import nn

    from mmtool.api import Tokens
    from mmtool.fusions.gated import Gated
    from mmtool.training.recipe import batch_size

    scale = [(x[:1024].mean(0), x[:1024].std(0)) for x in xs]
    net = Gated({f"in{i}": x.shape[1] for i, x in enumerate(xs)})
    head = nn.Linear(net.dim, CLASSES)
    weights = [*net.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.05)

    def outputs(at: torch.Tensor) -> torch.Tensor:
        parts = [(x[at] - mean) / std for x, (mean, std) in zip(xs, scale, strict=True)]
        tokens = {f"in{i}": Tokens.pooled(x) for i, x in enumerate(parts)}
        return head(net(tokens).mean())

    started = time.process_time()
    order = rows[torch.randperm(len(rows))]
    for at in order.split(batch_size(len(y))):
        loss = nn.functional.cross_entropy(outputs(at), y[at])
        loss.item()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        for at in held.split(4096):
            nn.functional.cross_entropy(outputs(at), y[at])
    return time.process_time() - started


def measure_epoch(rows: int = 100_000) -> dict[str, Any]:
    """CPU seconds of an epoch of 3 x 512, of which 80 % of the rows are learned from and 10 % held out, and of its limits."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("MMTOOL_SCRATCH")) as name:
        features = make(Path(name) / "features", rows, 3)
        xs = [torch.randn(rows, DIM) for _ in range(3)]
        y, numbers = torch.randint(CLASSES, (rows,)), torch.arange(rows)
        found: dict[str, list[float]] = {"epoch": [], "plain_loop": [], "sum": []}
        for _ in range(3):
            found["epoch"].append(_epoch_seconds(features, EPOCHS))
            found["plain_loop"].append(_plain_seconds(xs, y, numbers[numbers % 10 > 1], numbers[numbers % 10 == 1]))
            found["sum"].append(_sum_seconds(xs))
    middle = {k: round(sorted(v)[1], 3) for k, v in found.items()}
    return {**middle, "epoch_to_plain_loop": round(middle["epoch"] / middle["plain_loop"], 3)}


def measure_disk(rows: int = 1_000_000) -> dict[str, Any]:
    """The default head on `rows` x 512: seconds, and memory, free and limited."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("MMTOOL_SCRATCH")) as name:
        features = make(Path(name) / "features", rows, 1)
        size = sum(p.stat().st_size for p in features.glob("in0/*")) / 1e6
        found = {"free": _train(features, "-q"), "limited": _train(features, "-q", limit_mb=LIMIT_MB)}
    return {"features_mb": round(size), "limit_mb": LIMIT_MB, **found}


def main() -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}", flush=True)
    for name, measure in (("epoch", measure_epoch), ("disk", measure_disk)):
        if sys.argv[1:] in ([], [name]):
            print(json.dumps({name: measure()}, indent=1), flush=True)


if __name__ == "__main__":
    main()
