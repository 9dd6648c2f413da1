"""`mmtool train`: features, or a manifest, and a target column -> a model file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from mmtool import console, encoding, opening, plugins, report, specs
from mmtool.errors import MMToolError, UsageError
from mmtool.extract import Settings as ExtractSettings
from mmtool.features.reader import Features
from mmtool.model import FORMAT, Model, is_model
from mmtool.network import Network
from mmtool.training import data as training_data
from mmtool.training import descend, exact, measure, splits, targets
from mmtool.training.descend import Recipe
from mmtool.training.solve import one_thread
from mmtool.training.splits import Split
from mmtool.training.targets import Asked

INNER_FOLDS = 5
FOLD_ROWS = 5000
"""Up to so many training rows, held-out rows come from folds, so that every row is used; above, one part is enough."""
LIBRARIES = ("mmtool", "torch", "numpy", "scipy", "safetensors")


@dataclass(frozen=True)
class Settings:
    """What the command line says of a run. `optimizer` auto: solved exactly where that is possible, else AdamW."""

    target: str
    fusion: str = "concat"
    optimizer: str = "auto"
    recipe: Recipe = field(default_factory=Recipe)
    dropout: float = 0.0
    modality_dropout: float | None = None
    task_options: dict[str, str] = field(default_factory=dict)
    folds: int | None = None
    group: str | None = None
    extraction: ExtractSettings = field(default_factory=ExtractSettings)


@dataclass(frozen=True)
class Result:
    """The model and how the extraction before it ended."""

    model: Model
    exit_code: int


def train(name: str, output: Path, settings: Settings) -> Result:
    """Train a model and write it. Raises MMToolError for data that cannot be learned from."""
    if settings.optimizer not in ("auto", *descend.OPTIMIZERS):
        raise UsageError(f"--optimizer {settings.optimizer!r} is not known", "use auto, " + ", ".join(descend.OPTIMIZERS))
    if not is_model(output):
        raise UsageError(f"-o {output}: a model's name ends in .safetensors", f"write -o {output}.safetensors")
    if settings.folds is not None and settings.folds < 2:
        raise UsageError(f"--folds {settings.folds} leaves nothing to hold out", "use at least 2")
    if not output.absolute().parent.is_dir():
        raise MMToolError(f"{output}: the folder {output.absolute().parent} does not exist", "make it, or choose another -o")
    with opening.open_features(name, settings.target, settings.extraction) as (features, code), one_thread():
        model = train_on(features, settings)
    model.save(output)
    _report(model)
    return Result(model, code)


def train_on(features: Features, settings: Settings) -> Model:
    """The part of `train` that starts from features."""
    table = features.rows
    column, text = targets.parse(settings.target, features.header["columns"])
    names = opening.inputs_without(features, column)
    cells = table[column].to_pylist()
    seed = settings.recipe.seed
    present = [c for c in cells if not targets.is_empty(c)]
    asked = targets.build(column, text, present, settings.task_options)
    rows = targets.readable(asked.task, column, cells)
    split = _split(features, rows, [asked.task.stratum(cells[r]) for r in rows], settings)
    learning = sorted(split.train + split.val)
    asked.task.fit([cells[r] for r in learning])
    network = _maker(features, names, asked, settings)
    data = training_data.load(features, names, learning, asked.task, [cells[r] for r in learning])
    _refuse_empty(names, data)
    pairs, how = _pairs(features, split, learning, [asked.task.stratum(cells[r]) for r in learning], settings,
                        solved=_is_solved(network(), settings))
    networks, final, recipe = _fit(network, data, pairs, how, settings)
    by_number = {at: cells[row] for at, row in enumerate(learning)}
    held = [(data.rows(out), out) for _, out in pairs]
    metrics, temperatures = measure.on_held(networks, held, by_number, seed)
    entries = {n: features.header["inputs"][n] for n in names}
    header = {
        "format": FORMAT, "inputs": entries, "temperatures": temperatures, "recipe": {**recipe, "seed": seed},
        "fusion": {"name": settings_fusion(settings).name, "options": _fusion_options(settings)},
        "task": {"name": asked.name, "options": asked.options, "target": column, "package": asked.package,
                 "labels": list(asked.task.labels)},
        "data": {"fingerprint": encoding.fingerprint([entries, [s["sha256"] for s in features.header["shards"]],
                                                      [cells[r] for r in learning]]),
                 "train": len(split.train), "val": len(split.val), "test": len(split.test), "split_made": split.made},
        "metrics": {**metrics, "measured_on": how},
        "versions": {library: version(library) for library in LIBRARIES}}
    return Model(header, final, {n: features.assets(n) for n in names}, opening.row_hashes(features, names, column, learning))


def settings_fusion(settings: Settings) -> plugins.Found:
    """The fusion plugin that was asked for."""
    return plugins.find(specs.parse(settings.fusion).name, "fusion")


def _fusion_options(settings: Settings) -> dict[str, Any]:
    return specs.bind(plugins.load(settings_fusion(settings)), specs.parse(settings.fusion))


def _maker(features: Features, names: Sequence[str], asked: Asked, settings: Settings) -> exact.NetworkMaker:
    dims = {n: features.header["inputs"][n]["dim"] for n in names}
    cls, options = plugins.load(settings_fusion(settings)), _fusion_options(settings)
    if cls.returns == "tokens" or asked.task.needs == "tokens":
        raise MMToolError(f"fusion {settings.fusion!r} returns {cls.returns}, task {asked.name!r} needs {asked.task.needs}",
                          "choose another fusion")

    def make() -> Network:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.recipe.seed)
            task = plugins.load(plugins.find(asked.name, "task"))(**asked.options)
            task.set_assets(asked.task.assets())
            return Network(dims, cls(dims, **options), task, settings.dropout)
    return make


def _is_solved(network: Network, settings: Settings) -> bool:
    return settings.optimizer == "auto" and not settings.dropout and exact.applies(network)


def _refuse_empty(names: Sequence[str], data: training_data.Data) -> None:
    for name in names:
        there = int(data.inputs[name].present.sum())
        if not there:
            raise MMToolError(f"input {name!r} is missing in every training row", "leave it out, or check its column")


def _split(features: Features, rows: list[int], strata: list[str], settings: Settings) -> Split:
    groups = _groups(features, rows, settings)
    if "split" in features.header["columns"]:
        return splits.read(features.rows["split"].to_pylist(), rows)
    if settings.folds is not None:
        return Split(rows, [], [], made=True)
    parts = splits.folds(rows, strata, groups, splits.TEST_SHARE, settings.recipe.seed)
    train = sorted(r for part in parts[1:] for r in part)
    console.say(f"no column 'split': {len(parts[0])} of {len(rows)} rows are kept for the test")
    return Split(train, [], sorted(parts[0]), made=True)


def _groups(features: Features, rows: Sequence[int], settings: Settings) -> list[str] | None:
    if settings.group is None:
        return None
    if settings.group not in features.header["columns"]:
        raise UsageError(f"--group: there is no column {settings.group!r}",
                         f"columns: {', '.join(features.header['columns'])}")
    cells = features.rows[settings.group].to_pylist()
    return [f"row {r}" if cells[r] is None else f"group {cells[r]}" for r in rows]


def _pairs(features: Features, split: Split, learning: list[int], strata: list[str], settings: Settings, *,
           solved: bool) -> tuple[list[tuple[list[int], list[int]]], str]:
    """Pairs of (fit, held-out) positions in `learning`, and what the held-out rows are."""
    everyone = list(range(len(learning)))
    groups = _groups(features, learning, settings)
    k = settings.folds
    if k is None and split.val and (not solved or len(learning) > FOLD_ROWS):
        val = set(split.val)
        fit = [i for i in everyone if learning[i] not in val]
        return [(fit, [i for i in everyone if learning[i] in val])], f"{len(val)} validation rows"
    if k is None and solved and len(learning) <= FOLD_ROWS:
        k = min(INNER_FOLDS, len(learning) if groups is None else len(set(groups)))
    parts = splits.folds(everyone, strata, groups, k or splits.VAL_SHARE, settings.recipe.seed)
    held = parts if k else parts[:1]
    how = f"out of fold, {k} folds" if k else f"{len(parts[0])} validation rows, made"
    return [([i for i in everyone if i not in out], part) for part in held for out in [set(part)]], how


def _fit(make: exact.NetworkMaker, data: training_data.Data, pairs: list[tuple[list[int], list[int]]], how: str,
         settings: Settings) -> tuple[list[Network], Network, dict[str, Any]]:
    everyone = list(range(len(data)))
    if _is_solved(make(), settings):
        dropout = settings.modality_dropout or 0.0
        networks, final, strengths = exact.train(make, data, pairs, everyone, dropout)
        console.say(f"solved by L-BFGS; L2 strength {exact.describe(strengths)}, chosen on {how}")
        return networks, final, {"optimizer": "lbfgs", "l2": strengths, "modality_dropout": dropout, "held_out": how}
    recipe = replace(settings.recipe, optimizer="adamw" if settings.optimizer == "auto" else settings.optimizer,
                     modality_dropout=0.1 if settings.modality_dropout is None else settings.modality_dropout)
    networks, epochs = [], []
    for number, (fit, held) in enumerate(pairs, 1):
        network, epoch, loss = descend.train(make(), data.rows(fit), data.rows(held), recipe)
        console.say(f"part {number} of {len(pairs)}: best epoch {epoch}, held-out loss {loss:.4f}")
        networks.append(network)
        epochs.append(epoch)
    final = networks[0]
    if len(pairs) > 1:
        final = descend.train(make(), data, None, replace(recipe, epochs=sorted(epochs)[len(epochs) // 2]))[0]
    return networks, final, {**recipe.__dict__, "dropout": settings.dropout, "best_epochs": epochs, "held_out": how}


def _report(model: Model) -> None:
    console.say(f"measured on {model.header['metrics']['measured_on']}, 95 % intervals:")
    report.show(model.header["metrics"], (model.task.main_metric, *report.SHOWN))
