"""Runs that are slow on purpose, so that a signal or a second run meets them at work, and what must hold of them after."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from faults import judging
from faults.runs import Child, Ran, ended, session, until
from faults.scenarios import Place

SLOW = ("-e", "a=faults-slow", "-e", "b=tiny-letters")
LEARNED = ("-e", "a=faults-learned", "-e", "b=tiny-letters", "--epochs", "3", "--batch-rows", "4", "--dropout", "0.2",
           "--modality-dropout", "0.2", "--augment", "a=drop,swap")
DESCENT = ("--optimizer", "adamw", "-f", "gated", "--epochs", "20", "--patience", "20", "--batch-rows", "2")
LATEST = 20.0
"""Seconds after which a run that was asked to end should have, on a machine that does much else; 5 are promised."""


@dataclass(frozen=True)
class Work:
    """A command and the file or folder (a pattern below case/) that shows that it is at work."""

    argv: tuple[str, ...]
    result: str
    sign: str
    sleep: float = 0.0
    resumes: bool = True
    """Does the same command go on, rather than begin again?"""


WORKS = {
    "extract": Work(("extract", "{data}", "-o", "{out}/f", *SLOW, "--workers", "0"), "f", "log.jsonl", 0.3),
    "extract-readers": Work(("extract", "{data}", "-o", "{out}/f", *SLOW, "--workers", "2"), "f", "log.jsonl", 0.5),
    "train-solved": Work(("train", "{wide}", "-t", "label", "-o", "{out}/m.safetensors", "--folds", "20"), "m.safetensors",
                         "out/*m.safetensors.partial/plan.json", resumes=False),
    "train-descent": Work(("train", "{features}", "-t", "label", "-o", "{out}/m.safetensors", *DESCENT), "m.safetensors",
                          "out/*m.safetensors.partial/part-0.safetensors"),
    "train-manifest": Work(("train", "{data}", "-t", "label", "-o", "{out}/m.safetensors", *LEARNED, "--workers", "0"),
                           "m.safetensors", "out/*m.safetensors.partial/part-0.safetensors", 0.3),
    "compare": Work(("compare", "{data}", "-t", "label", "-o", "{out}/r", *SLOW, "-f", "concat", "-f", "gated", "--epochs", "1",
                     "--folds", "2", "--only-fusions"), "r", "log.jsonl", 0.5, resumes=False),
    "eval": Work(("eval", "{slow_model}", "{data}", "-o", "{out}/r"), "r", "log.jsonl", 1.0, resumes=False),
    "predict": Work(("predict", "{data}", "-m", "{slow_model}", "-o", "{out}/p.jsonl"), "p.jsonl", "log.jsonl", 0.5,
                    resumes=False),
}


def ready(place: Place) -> Place:
    """With a model that reads slow cells, made once."""
    model = place.root / "slow.safetensors"
    if "slow_model" not in place.names:
        place.names["slow_model"] = model
        place.names["wide"] = place.root / "wide"
        place.sure(("train", "{data}", "-t", "label", "-o", "{slow_model}", *SLOW))
        place.sure(("extract", "{long}", "-o", "{wide}", "-e", "a=tiny-letters", "-e", "b=tiny-letters"))
    place.clear()
    place.env = {**place.env, "FAULTS_LOG": str(place.case / "log.jsonl"), "FAULTS_SLEEP": "0"}
    return place


def start(place: Place, work: Work, *, log: str = "log", sleep: float | None = None) -> Child:
    """Begin it slowly; returns when it is at work."""
    env = {**place.env, "FAULTS_SLEEP": str(work.sleep if sleep is None else sleep)}
    child = place.server.start(place.argv(work.argv), env, place.root, place.root / log)

    until(lambda: any(place.case.glob(work.sign)), f"{work.sign}; {child.err}")
    return child


def end(child: Child, number: int) -> tuple[Ran, float]:
    """Ask it to end; what came of it and after how many seconds. No process of it may stay."""
    asked = time.monotonic()
    os.kill(child.pid, number)
    ran = child.wait(60)
    seconds = time.monotonic() - asked
    assert ended(child.pid, 5), f"processes stay: {session(child.pid)}"
    return ran, seconds


def left(place: Place) -> list[str]:
    """What lies about in the folder of temporary files."""
    return sorted(p.name for p in (place.case / "tmp").iterdir() if not p.name.startswith("torchinductor_"))


def shared_memory() -> set[str]:
    """What is in /dev/shm."""
    return {p.name for p in Path("/dev/shm").glob("*")}


def result(place: Place, work: Work) -> dict[str, str]:
    """The SHA-256 of each file of the result."""
    return judging.below(judging.tree(place.case), f"out/{work.result}")


def straight(place: Place, work: Work, keep: dict[tuple[str, ...], dict[str, str]]) -> dict[str, str]:
    """The result of an undisturbed run, made once."""
    if work.argv not in keep:
        place.clear()
        place.sure(work.argv)
        keep[work.argv] = result(place, work)
        place.clear()
    return keep[work.argv]


BOTH = [signal.SIGINT, signal.SIGTERM]
