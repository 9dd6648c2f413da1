"""`mmtool eval`: a model on rows, or predictions of any tool, against a target column -> a report folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmtool import console, opening, report
from mmtool.api import Task
from mmtool.errors import MMToolError, UsageError
from mmtool.extract import Settings as ExtractSettings
from mmtool.features.reader import Features
from mmtool.manifest.open import ids_and_rows, open_manifest
from mmtool.matching import check_features
from mmtool.model import Model, load
from mmtool.network import having, key_of, only, subsets, take
from mmtool.training import data as training_data
from mmtool.training import measure, splits, targets
from mmtool.training.solve import one_thread


@dataclass(frozen=True)
class Settings:
    """What the command line says. `split` is test or all; `target` belongs to predictions, a model knows its own."""

    split: str = "test"
    target: str | None = None
    seed: int = 0
    extraction: ExtractSettings = field(default_factory=ExtractSettings)


def evaluate_model(path: Path, name: str, output: Path, settings: Settings) -> dict[str, Any]:
    """A model on the rows of features or of a manifest. Raises MMToolError where no row is left to score."""
    if settings.split not in ("test", "all"):
        raise UsageError(f"--split {settings.split!r} is not known", "use test or all")
    report.check_report(output)
    model = load(path)
    with opening.open_for(model, name, settings.extraction) as (features, names):
        check_features(model, features, names)
        with one_thread():
            metrics, predictions = _score(model, features, names, settings)
    report.write_report(output, metrics, predictions)
    return metrics


def _score(model: Model, features: Features, names: list[str],
           settings: Settings) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    column = model.header["task"]["target"]
    if column not in features.header["columns"]:
        raise MMToolError(f"{features.folder} has no column {column!r}, which the model predicts", "add it, or use `predict`")
    cells = features.rows[column].to_pylist()
    rows = targets.readable(model.task, column, cells)
    rows, which = _rows(model, features, names, column, rows, settings.split)
    inputs = training_data.pooled(features, names, rows)
    usable = [at for at in range(len(rows)) if any(bool(t.present[at]) for t in inputs.values())]
    if len(usable) < len(rows):
        console.warn(f"{len(rows) - len(usable)} of {len(rows)} rows have no usable input and are not scored")
    if not usable:
        raise MMToolError(f"no row of {which} has a usable input", "see errors.jsonl of the features")
    inputs, rows = take(inputs, usable), [rows[at] for at in usable]
    truth = [cells[r] for r in rows]
    _say_unseen(model.task, truth)
    predictions = model.predict(inputs)
    by_inputs = {}
    for subset in subsets(names):
        at = having(inputs, subset)
        if len(at):
            kept = only(take(inputs, at), subset)
            by_inputs[key_of(subset)] = (model.predict(kept), [truth[i] for i in at.tolist()])
    found = measure.tables(model.task, (predictions, truth), by_inputs, settings.seed)
    ids = features.rows["id"].to_pylist()
    lines = [{"id": ids[row], **p, "target": t} for row, p, t in zip(rows, predictions, truth, strict=True)]
    return {**found, "rows": len(rows), "scored": which}, lines


def _rows(model: Model, features: Features, names: list[str], column: str, rows: list[int],
          split: str) -> tuple[list[int], str]:
    if split == "all":
        return rows, "all rows"
    if "split" in features.header["columns"]:
        test = splits.read(features.rows["split"].to_pylist(), rows, need_train=False).test
        if not test:
            raise MMToolError(f"no row of {features.folder} with a target has split test", "score every row: --split all")
        return test, "rows with split test"
    whole = sorted(model.header["inputs"])
    if names != whole:
        raise MMToolError("without a column 'split', and without every input of the model, nothing tells which rows trained it",
                          "score every row: --split all")
    known = {bytes(h) for h in model.trained.tolist()}
    hashes = opening.row_hashes(features, names, column, rows).tolist()
    left = [row for row, h in zip(rows, hashes, strict=True) if bytes(h) not in known]
    console.say(f"no column 'split': {len(rows) - len(left)} of {len(rows)} rows trained the model, or equal one that did, "
                "and are not scored")
    if not left:
        raise MMToolError("every row trained the model", "its out-of-fold metrics are in `mmtool info MODEL`; or --split all")
    return left, "rows that did not train the model"


def _say_unseen(task: Task, truth: Sequence[str]) -> None:
    known = set(task.labels)
    unseen = [t for t in truth if task.stratum(t) and t not in known]
    if unseen:
        console.warn(f"{len(unseen)} rows have a label that training never saw, such as {unseen[0]!r}: they count as wrong")


def evaluate_predictions(path: Path, manifest: str, output: Path, settings: Settings) -> dict[str, Any]:
    """Predictions of any tool (JSONL) against a manifest, matched by id."""
    if settings.target is None:
        raise UsageError("predictions are scored against a column", "name it: --target COLUMN[=TASK]")
    report.check_report(output)
    predictions = _read_predictions(path)
    table = dict(ids_and_rows(open_manifest(manifest)))
    if unknown := [p["id"] for p in predictions if p["id"] not in table]:
        raise MMToolError(f"{path}: {len(unknown)} ids are not in {manifest}, first {unknown[0]!r}", "give its own manifest")
    columns = list(dict.fromkeys(c for row in table.values() for c in row))
    column, text = targets.parse(settings.target, columns)
    cells = [None if (cell := table[p["id"]].get(column)) is None else str(cell) for p in predictions]
    asked = targets.build(column, text, [c for c in cells if c is not None and not targets.is_empty(c)], {})
    rows = targets.readable(asked.task, column, cells)
    empty = [r for r in rows if predictions[r]["prediction"] is None]
    if empty:
        console.warn(f"{len(empty)} of {len(rows)} predictions are null and are not scored")
    rows = [r for r in rows if predictions[r]["prediction"] is not None]
    truth = [c for r in rows if (c := cells[r]) is not None]
    if not rows:
        raise MMToolError(f"{path} holds no prediction that can be scored", "check the ids and --target")
    asked.task.fit(truth)
    found = measure.tables(asked.task, ([predictions[r] for r in rows], truth), {}, settings.seed)
    metrics = {**found, "rows": len(rows), "scored": "predictions"}
    report.write_report(output, metrics, [{**predictions[r], "target": t} for r, t in zip(rows, truth, strict=True)])
    return metrics


def _read_predictions(path: Path) -> list[dict[str, Any]]:
    out = []
    try:
        with path.open(encoding="utf-8") as f:
            for number, line in enumerate(f, 1):
                if line.strip():
                    value = json.loads(line)
                    if not isinstance(value, dict) or not {"id", "prediction"} <= set(value):
                        raise MMToolError(f"{path}, line {number}: no object with id and prediction", "one a line is needed")
                    out.append({**value, "id": str(value["id"])})
    except (OSError, ValueError) as error:
        raise MMToolError(f"{path} cannot be read as JSON lines ({error})", "give a predictions file") from error
    if not out:
        raise MMToolError(f"{path} holds no prediction", "predict again")
    return out
