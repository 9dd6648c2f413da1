"""The small runs that faults are put into. Each has a folder of its own: out/, cache/ and tmp/; inputs are beside it."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from faults.runs import Ran, Server, environment

LETTERS = ("-e", "a=tiny-letters", "-e", "b=tiny-letters")
LEARNED = ("-e", "a=tiny-learned", "-e", "b=tiny-letters", "--epochs", "2", "--batch-rows", "4", "--dropout", "0.2")
DESCENT = ("--optimizer", "adamw", "-f", "gated", "--epochs", "3", "--batch-rows", "4", "--dropout", "0.2",
           "--modality-dropout", "0.2")


@dataclass(frozen=True)
class Scenario:
    """One command. `before`: commands that fill out/ first; {data}, {features}, {model}, ... stand for the inputs."""

    name: str
    argv: tuple[str, ...]
    result: str
    """What it writes, below out/."""
    before: tuple[tuple[str, ...], ...] = ()
    whole: bool = True
    """Does the folder that it writes appear as one? A report's files each do."""
    timed: bool = False
    """Does the result hold times, so that no two are equal?"""


def _extract(name: str, *more: str, data: str = "{data}", before: tuple[tuple[str, ...], ...] = ()) -> Scenario:
    return Scenario(name, ("extract", data, "-o", "{out}/f", *more), "f", before)


def _train(name: str, data: str, *more: str, before: tuple[tuple[str, ...], ...] = ()) -> Scenario:
    return Scenario(name, ("train", data, "-t", "label", "-o", "{out}/m.safetensors", *more), "m.safetensors", before)


OTHER = ("extract", "{data}", "-o", "{out}/f", "-e", "a=tiny-letters", "--tokens")
ALL = {s.name: s for s in (
    _extract("extract", *LETTERS, "--workers", "0"),
    _extract("extract-readers", *LETTERS, "--workers", "1"),
    _extract("extract-replacing", *LETTERS, "--no-cache", before=(OTHER,)),
    _extract("extract-shards", *LETTERS, "--workers", "0", "--tokens", data="{long}"),
    _train("train-solved", "{features}"),
    _train("train-replacing", "{features}", before=(("train", "{features}", "-t", "other", "-o", "{out}/m.safetensors"),)),
    _train("train-descent", "{features}", *DESCENT),
    _train("train-folds", "{features}", *DESCENT, "--epochs", "1", "--folds", "2"),
    _train("train-manifest", "{data}", *LEARNED, "--workers", "0"),
    Scenario("fuse", ("fuse", "{features}", "-o", "{out}/f", "-f", "concat"), "f", (OTHER,)),
    Scenario("predict-jsonl", ("predict", "{data}", "-m", "{model}", "-o", "{out}/p.jsonl"), "p.jsonl"),
    Scenario("predict-csv", ("predict", "{features}", "-m", "{model}", "-o", "{out}/p.csv"), "p.csv",
             (("predict", "{features}", "-m", "{model}", "-o", "{out}/p.csv", "--abstain-below", "0.99"),)),
    Scenario("predict-parquet", ("predict", "{features}", "-m", "{model}", "-o", "{out}/p.parquet"), "p.parquet"),
    Scenario("eval", ("eval", "{model}", "{data}", "-o", "{out}/r"), "r",
             (("eval", "{model}", "{features}", "-o", "{out}/r", "--split", "all"),), whole=False),
    Scenario("compare", ("compare", "{data}", "-t", "label", "-o", "{out}/r", *LETTERS, "-f", "concat", "-f", "gated",
                         "--epochs", "1", "--folds", "2", "--only-fusions"), "r", whole=False, timed=True),
)}


class Place:
    """A folder with the inputs, and `case/` for the run. `server` runs the commands."""

    def __init__(self, root: Path, server: Server) -> None:
        self.root, self.server, self.case = root, server, root / "case"
        root.mkdir(parents=True, exist_ok=True)
        self.names = {"out": self.case / "out", "data": _table(root / "data.jsonl", 24),
                      "long": _table(root / "long.jsonl", 520), "features": root / "features",
                      "model": root / "model.safetensors"}
        self.env = environment(self.case / "cache", self.case / "tmp", MMTOOL_CHECKPOINT_SECONDS="0")
        self.clear()
        self.sure(("extract", "{data}", "-o", "{features}", *LETTERS))
        self.sure(("train", "{features}", "-t", "label", "-o", "{model}"))
        self.clear()

    def argv(self, argv: tuple[str, ...]) -> list[str]:
        """With the paths filled in."""
        return [a.format(**self.names) for a in argv]

    def run(self, argv: tuple[str, ...], **more: object) -> Ran:
        """One command in `case/`."""
        return self.server.run(self.argv(argv), self.env, self.root, self.root / "log", **more)  # type: ignore[arg-type]

    def sure(self, argv: tuple[str, ...]) -> Ran:
        """One command that must succeed."""
        ran = self.run(argv)
        assert ran.code == 0, f"{' '.join(argv)} -> {ran.code}: {ran.err}"
        return ran

    def clear(self) -> None:
        """An empty `case/`."""
        shutil.rmtree(self.case, ignore_errors=True)
        for name in ("out", "cache", "tmp"):
            (self.case / name).mkdir(parents=True)

    def begin(self, scenario: Scenario) -> None:
        """What is there before the command runs; made once, then copied."""
        made = self.root / "before" / scenario.name
        if not made.exists():
            self.clear()
            for argv in scenario.before:
                self.sure(argv)
            shutil.copytree(self.case, made)
        shutil.rmtree(self.case, ignore_errors=True)
        shutil.copytree(made, self.case)


def _table(path: Path, rows: int) -> Path:
    """Texts a and b, of which some are missing or bad, and a label that a tells."""
    rng = random.Random(0)
    lines = []
    for i in range(rows):
        a, b = rng.choice("az"), rng.choice(["a", "zz", "" if i % 5 == 0 else "xyz"])
        lines.append({"id": f"r{i}", "a": a + str(i), "b": b, "label": "high" if a == "z" else "low", "other": rng.choice("xy"),
                      "split": "test" if i % 4 == 0 else "val" if i % 4 == 1 else "train"})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
