"""`mmtool train`: features, or a manifest, and target columns -> a model file."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from mmtool import console, encoding, opening, report, settings
from mmtool.bounded import check_finite, check_state
from mmtool.devices import watched
from mmtool.engine import be_deterministic, choose_device
from mmtool.errors import DeviceError, Interrupted, MMToolError, StorageError, UsageError
from mmtool.features.format import numerics
from mmtool.locks import locked
from mmtool.model import FORMAT, Model, is_model
from mmtool.settings import Settings
from mmtool.strictjson import Unsound
from mmtool.training import checks
from mmtool.training.descend import LOSS
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
    if output.is_dir():
        raise StorageError(f"{output} is a folder", "-o takes a file; choose another -o", code="E_OUTPUT")
    if not output.absolute().parent.is_dir():
        raise StorageError(f"{output}: the folder {output.absolute().parent} does not exist", "make it, or choose another -o",
                           code="E_NOT_FOUND")
    with locked(output):
        try:
            model, exit_code = _train(name, output, asked, device)
        except KeyboardInterrupt:
            kept = Place(output).kept()
            raise Interrupted("interrupted; the same command goes on where it stopped" if kept else
                              "interrupted; nothing was to be kept yet, and the same command begins anew") from None
    _report(model)
    return Result(model, exit_code)


def _train(name: str, output: Path, asked: Settings, device: torch.device) -> tuple[Model, int]:
    data, known = opening.fingerprint(name)
    opened = opening.open_data(name, asked, known)
    trainer = Trainer(opened, asked, device)
    same = ("workers", "use_cache", "max_bad", "device")  # they change no model; the device counts as what it stands for
    extraction = {k: str(v) for k, v in asked.extraction.__dict__.items() if k not in same}
    plan = [data, opened.encoders, trainer.plugins, settings.kept(asked), extraction, FORMAT, numerics(device, "fp32"),
            {library: version(library) for library in LIBRARIES}]
    place = Place(output)
    threads = torch.get_num_threads()
    facts = place.begin(encoding.fingerprint(plan), {"threads": threads})
    torch.set_num_threads(facts["threads"])
    be_deterministic(device)
    try:
        model = _go(trainer, place)
        model.save(output)  # where that fails, what was learned stays for the same command
        place.remove()
    finally:
        torch.set_num_threads(threads)
    return model, trainer.exit_code


def _go(trainer: Trainer, place: Place) -> Model:
    """The model; the folder beside it goes where the same command would fail again, and nothing in it is of use."""
    try:
        with watched("training", "free some, lower --batch-rows, or use --device cpu"):
            model = trainer.go(place)
            _refuse_nan(model)
            return model
    except Interrupted:
        raise
    except MMToolError as error:
        kept = sorted(p.name for p in place.folder.glob("part-*.safetensors"))
        if error.code == LOSS and kept:
            error.hint += f"; the last good state is {place.folder / kept[-1]} until the next run"
        elif isinstance(error, DeviceError):
            error.hint += "; the same command goes on where it stopped"
        else:
            place.remove()
        raise


def _refuse_nan(model: Model) -> None:
    """Raises MMToolError where a weight is no number, as of an input that no held-out row has."""
    try:
        check_state(model.network, model.network.state_dict())
        for name, weights in model.weights.items():
            check_finite(weights, f"{name}/", masks=True)
    except Unsound as error:
        raise MMToolError(f"the model: {error}", "lower --lr", code=LOSS) from error


def _report(model: Model) -> None:
    console.say(f"measured {report.where(model.header['metrics']['measured_on'])}; 95 % intervals in brackets:")
    for column, task in model.tasks.items():
        report.show(model.metrics(column), (task.main_metric, *report.SHOWN), title=column if len(model.tasks) > 1 else "")
        found = model.metrics(column)
        whole = found["overall"].get(task.main_metric)
        nothing = found["baselines"].get("without_inputs", {}).get(task.main_metric)
        if whole is not None and nothing is not None:
            better = whole["low"] > nothing["value"] if task.greater_is_better else whole["high"] < nothing["value"]
            if not better:
                console.warn(f"{column}: the model is not clearly better than an answer that sees no input "
                             f"({task.main_metric} {whole['value']:.3f}, without inputs {nothing['value']:.3f})")
    if model.header["data"]["upstream_learned"]:
        console.warn("these features were made by what was learned before, perhaps from the same rows: the numbers above "
                     "are then wrong, too good or too bad; believe `eval` on rows that no model saw")
