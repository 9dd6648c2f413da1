"""`mmtool train`: features, or a manifest, and target columns -> a model file."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from mmtool import console, encoding, opening, report, settings
from mmtool.engine import be_deterministic, choose_device
from mmtool.errors import Interrupted, MMToolError, UsageError
from mmtool.model import FORMAT, Model, is_model
from mmtool.settings import Settings
from mmtool.training import checks
from mmtool.training.keeping import Place
from mmtool.training.recording import LIBRARIES
from mmtool.training.trainer import Trainer


@dataclass(frozen=True)
class Result:
    """The model and how the extraction before it ended."""

    model: Model
    exit_code: int


def train(name: str, output: Path, asked: Settings) -> Result:
    """Train a model and write it; goes on from what a killed run left. Raises MMToolError for data that cannot be learned."""
    device = choose_device(asked.extraction.device)
    checks.check(asked, device)
    if not is_model(output):
        raise UsageError(f"-o {output}: a model's name ends in .safetensors", f"write -o {output}.safetensors")
    if not output.absolute().parent.is_dir():
        raise MMToolError(f"{output}: the folder {output.absolute().parent} does not exist", "make it, or choose another -o")
    data, known = opening.fingerprint(name)
    opened = opening.open_data(name, asked, known)
    trainer = Trainer(opened, asked, device)
    extraction = {k: str(v) for k, v in asked.extraction.__dict__.items() if k not in ("workers", "use_cache")}
    plan = [data, asked.targets, settings.kept(asked), extraction, device.type, FORMAT,
            {library: version(library) for library in LIBRARIES}]
    place = Place(output)
    threads = torch.get_num_threads()
    facts = place.begin(encoding.fingerprint(plan), {"threads": threads})
    torch.set_num_threads(facts["threads"])
    be_deterministic(device)
    try:
        model = trainer.go(place)
        model.save(output)
        place.remove()
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the same command goes on where it stopped") from None
    except Interrupted:
        raise
    except MMToolError:
        place.remove()
        raise
    finally:
        place.release()
        torch.set_num_threads(threads)
    _report(model)
    return Result(model, opened.exit_code)


def _report(model: Model) -> None:
    console.say(f"measured on {model.header['metrics']['measured_on']}, 95 % intervals:")
    for column, task in model.tasks.items():
        report.show(model.metrics(column), (task.main_metric, *report.SHOWN), title=column if len(model.tasks) > 1 else "")
