"""`mmtool compare` on stamps.csv: its seconds, and training side by side against a loop over the same runs.

    MMTOOL_DATA=... python tests/benchmarks/compare.py [FEATURES]

Three inputs (picture, text, French speech), 5 folds. First every fusion that is descended: the folds side by side, one thread,
against one network after the other by the same code (`loop`), and against `descend.train`, the loop that `train` has, both with
the threads that torch takes by itself; medians of interleaved runs. Then the whole command, from features that are there: these
fusions, also as a loop; every pooled fusion, every single input, every subset and the simple heads; and the fusions that take
tokens, each by itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mmtool import console, opening, plugins
from mmtool.allocator import keep_memory
from mmtool.cli.main import run
from mmtool.settings import Settings
from mmtool.training import comparing, contest, descend, together, workers
from mmtool.training.candidates import Candidate
from mmtool.training.graph import Graph
from mmtool.training.keeping import Place
from mmtool.training.live import Feed
from mmtool.training.trainer import Trainer

ROUNDS = 3
EPOCHS = int(os.environ.get("EPOCHS", "10"))
"""Of the timed trainings; the ratios do not depend on it."""
CPU = torch.device("cpu")


class Nothing:
    """Neither watches nor keeps."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *_: None


def fusions(takes: str) -> list[str]:
    found = [p for p in plugins.found() if p.kind == "fusion" and p.distribution == "mmtool"]
    return [p.name for p in found if plugins.load(p).takes == takes]


def command(features: Path, work: Path, names: list[str], *more: str) -> tuple[float, int]:
    """Seconds of a whole `mmtool compare`, and how many candidates it had."""
    start = time.perf_counter()
    assert run(["compare", str(features), "-t", "category", "-o", str(work / "r"), "-q",
                *(part for name in names for part in ("-f", name)), *more]) == 0
    seconds = time.perf_counter() - start
    return seconds, len(json.loads((work / "r/comparison.json").read_text())["targets"]["category"]["candidates"])


def match_of(features: Path, work: Path) -> contest.Contest:
    """The contest, with the folds and the budget that the command has, but for the epochs."""
    asked = Settings(targets=("category",), fusion="auto", given={"epochs": EPOCHS, "patience": EPOCHS})
    _, known = opening.fingerprint(str(features))
    trainer = Trainer(opening.open_data(str(features), asked, known), asked, CPU)
    place = Place(work / "b.safetensors")
    place.begin("benchmark", {})
    prepared = trainer.prepare(place)
    place.release()
    return contest.Contest(prepared.run, comparing.folds(trainer)[0])


def ones(match: contest.Contest, name: str) -> list[together.One] | None:
    """The fusion's networks, one a fold; None where they are solved for."""
    candidate = Candidate(name, "fusion", tuple(match.names), name)
    run_, parts, networks = match.networks(candidate)
    if run_.solvable(networks[0]):
        return None
    return [together.One(n, p, run_.recipe()) for n, p in zip(networks, parts, strict=True)]


def alone(each: list[together.One]) -> list[descend.Outcome]:
    return [descend.train(Graph(one.network, {}, {}), one.part, Feed([]), one.recipe, CPU, Nothing(), Nothing(),
                          [str(i) for i in range(len(one.part.table))], lambda _: None, begun=False) for one in each]


def timed(work: Callable[[list[together.One]], list[descend.Outcome]], each: list[together.One],
          threads: int) -> tuple[float, list[descend.Outcome]]:
    torch.set_num_threads(threads)
    start = time.perf_counter()
    found = work(each)
    return time.perf_counter() - start, found


def ways(match: contest.Contest, name: str, threads: int) -> tuple[dict[str, float], float] | None:
    """Median seconds of each way, and the largest difference of a held-out loss."""
    if ones(match, name) is None:
        return None
    kinds: dict[str, tuple[Any, int]] = {
        "together": (lambda each: together.train(each, CPU), 1),
        "loop": (lambda each: [together.train([one], CPU)[0] for one in each], threads),
        "descend": (alone, threads)}
    took: dict[str, list[float]] = {kind: [] for kind in kinds}
    curves = {}
    for _ in range(ROUNDS):
        for kind, (work, count) in kinds.items():
            seconds, found = timed(work, ones(match, name) or [], count)
            took[kind].append(seconds)
            curves[kind] = torch.tensor([outcome.curve for outcome in found])
    return {k: statistics.median(v) for k, v in took.items()}, float((curves["together"] - curves["descend"]).abs().max())


def one_by_one(features: Path, work: Path, names: list[str]) -> float:
    """Seconds of the command as a loop would have it: one process with all threads, one network after the other."""
    most, threads, train = workers.MOST, workers.one_thread, together.train
    workers.MOST, workers.one_thread = 1, contextlib.nullcontext  # type: ignore[assignment]
    together.train = lambda runs, device: [train([one], device)[0] for one in runs]
    try:
        return command(features, work, names, "--only-fusions")[0]
    finally:
        workers.MOST, workers.one_thread, together.train = most, threads, train


def told(seconds: dict[str, float]) -> str:
    ratios = [seconds[kind] / seconds["together"] for kind in ("loop", "descend")]
    return " ".join(f"{number:9.2f}" for number in (*seconds.values(), *ratios))


def main() -> None:
    threads = torch.get_num_threads()
    console.set_quiet(True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        features = Path(sys.argv[1]) if len(sys.argv) > 1 else work / "features"
        if not features.exists():
            assert run(["extract", str(Path(os.environ["MMTOOL_DATA"]) / "stamps.csv"), "-o", str(features), "-q",
                        "-e", "image=effnet-lite0", "-e", "text=minilm", "-e", "speech_fr=whisper-tiny"]) == 0
        print(f"torch {torch.__version__}, {threads} threads", flush=True)
        keep_memory()
        match = match_of(features, work)
        total = dict.fromkeys(("together", "loop", "descend"), 0.0)
        heads = ("together", "loop", "descend", "loop ÷", "descend ÷")
        print(f"{'fusion':12} " + " ".join(f"{head:>9}" for head in heads) + "  largest difference of a loss")
        descended = []
        for fusion in fusions("pooled"):
            if (measured := ways(match, fusion, threads)) is None:
                continue
            found, far = measured
            descended.append(fusion)
            for kind, seconds in found.items():
                total[kind] += seconds
            print(f"{fusion:12} {told(found)}  {far:.1e}", flush=True)
        print(f"{'sum':12} {told(total)}", flush=True)
        torch.set_num_threads(threads)
        ours, loop = command(features, work, descended, "--only-fusions")[0], one_by_one(features, work, descended)
        print(f"compare of these {len(descended)}: {ours:.1f} s, as a loop {loop:.1f} s, ratio {loop / ours:.2f}", flush=True)
        seconds, count = command(features, work, fusions("pooled"))
        print(f"compare, pooled fusions, inputs, subsets, heads: {seconds:.1f} s for {count} candidates x 5 folds", flush=True)
        for fusion in fusions("tokens"):
            print(f"compare -f {fusion} --only-fusions (one token an input): "
                  f"{command(features, work, [fusion], '--only-fusions')[0]:.1f} s", flush=True)


if __name__ == "__main__":
    main()
