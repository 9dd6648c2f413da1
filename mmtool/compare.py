"""`mmtool compare`: every fusion, every single input and simple heads on the same features and folds -> a report folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmtool import console, folders, opening, report
from mmtool.engine import be_deterministic, choose_device
from mmtool.errors import Interrupted, UsageError
from mmtool.locks import locked
from mmtool.settings import Settings
from mmtool.training import candidates, checks, comparing
from mmtool.training.keeping import Place
from mmtool.training.trainer import Trainer


@dataclass(frozen=True)
class Result:
    """The comparison of each target, as comparison.json has it, and how an extraction before it ended."""

    found: dict[str, dict[str, Any]]
    exit_code: int


def compare(name: str, output: Path, asked: Settings, wanted: tuple[str, ...], *, only_fusions: bool,
            ensemble: bool) -> Result:
    """Compare on features or a manifest; the test rows are left alone. Raises MMToolError where nothing can be compared."""
    report.check_report(output)
    device: torch.device = choose_device(asked.extraction.device)
    checks.check(asked, device)
    if "auto" in wanted:
        raise UsageError("-f auto is what `compare` does by itself", "leave -f out, or name fusions")
    with locked(output):
        return _compare(name, output, asked, wanted, device, only_fusions=only_fusions, ensemble=ensemble)


def _compare(name: str, output: Path, asked: Settings, wanted: tuple[str, ...], device: torch.device, *, only_fusions: bool,
             ensemble: bool) -> Result:
    be_deterministic(device)
    _, known = opening.fingerprint(name)
    opened = opening.open_data(name, asked, known)
    trainer = Trainer(opened, asked, device)
    candidates.check(wanted, {c: a.task for c, a in trainer.targets.items()})
    with folders.scratch() as folder:
        place = Place(folder / "compare.safetensors")
        place.begin("compare", {})
        try:
            ready = trainer.prepare(place)
            run = ready.run
            if opened.features is not None and trainer.learned(ready):
                console.warn("these features were made by weights that a model learned, perhaps from the same rows: what "
                             "follows is then wrong, too good or too bad")
            found, _ = comparing.compare(trainer, run, wanted, only_fusions=only_fusions, ensemble=ensemble,
                                         trials=asked.search)
        except Interrupted:  # what it had kept is gone with the folder
            raise Interrupted("interrupted") from None
    first = next(iter(found.values()))
    facts = [("data", name), ("rows", f"{len(trainer.learning)} that train or validate; "
                                      f"{len(trainer.split.test)} of the test were left alone"),
             ("inputs", ", ".join(sorted(set[str]().union(*(c["inputs"] for c in first["candidates"]))))),
             ("measured", first["how"]), ("seed", str(asked.seed))]
    report.write_comparison(output, found, facts, {c: a.name for c, a in trainer.targets.items()},
                            f"fusions and inputs of {Path(name).name or name}")
    return Result(found, trainer.exit_code)
