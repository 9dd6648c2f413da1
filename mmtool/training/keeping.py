"""The folder beside an unfinished model: what a killed `train` left there, the same command goes on from.

    MODEL.partial/plan.json            what is being made; another plan starts anew
    MODEL.partial/features/            extracted from the manifest
    MODEL.partial/cells/               decoded cells of the inputs that are trained
    MODEL.partial/part-0.safetensors   the state of one training: weights, moments, where it stands
"""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch import Tensor

from mmtool import console, files, folders, sealing, stopping
from mmtool.errors import ArtefactError, Interrupted, StorageError

PLAN = "plan.json"
SECONDS = "MMTOOL_CHECKPOINT_SECONDS"
"""Seconds between two checkpoints, 5 by default, and at least twenty times as long as one takes."""


class Place:
    """The partial folder of one model; whoever uses it holds the lock of the model."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output.absolute().with_name(output.name + ".partial")
        self.stop = threading.Event()

    def begin(self, plan: str, facts: dict[str, Any]) -> dict[str, Any]:
        """Go on with what has this plan, else start anew with these `facts`; returns the facts that hold.

        Raises StorageError for a folder of that name that is none of ours.
        """
        files.sweep(self.folder.parent)
        for folder in (self.folder, self.folder / "cells"):
            files.sweep(folder)
        if self.folder.exists() and not (self.folder / PLAN).is_file() and any(self.folder.iterdir()):
            raise StorageError(f"{self.folder} is in the way and is no unfinished model", "move it away", code="E_OUTPUT")
        folders.make_folder(self.folder)
        before = sealing.read_json(self.folder / PLAN)
        if before is not None and before.get("plan") == plan:
            if self.kept():
                console.say(f"going on from what {self.folder.name} holds")
            return dict(before["facts"])
        if any(self.folder.iterdir()):  # nothing that is kept says of itself which run it is of
            console.say(f"{self.folder} was left by another run{'' if before else ', or is damaged'}; starting anew")
            folders.remove(self.folder)
            folders.make_folder(self.folder)
        sealing.write_json(self.folder / PLAN, {"plan": plan, "facts": facts})
        return facts

    def kept(self) -> bool:
        """Is there anything besides the plan to go on from?"""
        return self.folder.is_dir() and any(p.name != PLAN for p in self.folder.iterdir())

    def remove(self) -> None:
        """The model is written: nothing has to be kept."""
        folders.remove(self.folder)

    def keeper(self, name: int | str) -> Keeper:
        """That of one training of the run; no two may have one name."""
        return Keeper(self.folder / f"part-{name}.safetensors", self.stop)

    def signals(self) -> AbstractContextManager[None]:
        """The first Ctrl-C or SIGTERM lets a step end and the state be kept; a second one ends at once."""
        return stopping.after_step(self.stop)


class Keeper:
    """The state of one training, in a file that is replaced whole."""

    def __init__(self, path: Path, stop: threading.Event) -> None:
        self.path, self.stop = path, stop
        self.last, self.took = time.monotonic(), 0.0
        self.every = float(os.environ.get(SECONDS, "5"))

    def load(self) -> dict[str, Any] | None:
        """`tensors` and `facts` as they were kept; None where nothing was, or where it is damaged."""
        if not self.path.exists():
            return None
        try:
            tensors, about = sealing.read_sealed(self.path)
            return {"tensors": tensors, "facts": json.loads(about["facts"])}
        except (ArtefactError, StorageError, KeyError, TypeError, ValueError) as error:
            told = error.message if isinstance(error, ArtefactError | StorageError) else f"{self.path} is damaged ({error!r})"
            console.warn(f"{told}; this part starts anew")
            return None

    def due(self) -> bool:
        """Is it time to keep the state again?"""
        return self.stop.is_set() or time.monotonic() - self.last > max(self.every, 20 * self.took if self.every else 0)

    def keep(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Keep it. Raises Interrupted where the run was asked to end."""
        started = time.monotonic()
        kept = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        files.write_bytes(self.path, sealing.sealed(kept, {"facts": json.dumps(facts)}))  # of which some may be infinite
        self.last = time.monotonic()
        self.took = self.last - started
        if self.stop.is_set():
            raise Interrupted("interrupted; the same command goes on where it stopped")
