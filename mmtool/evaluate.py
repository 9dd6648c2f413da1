"""`mmtool eval`: a model on rows, or predictions of any tool, against a target column -> a report folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from mmtool import console, costs, doubt, fused, info, opening, report, worth
from mmtool.api import Task, Tokens
from mmtool.errors import ArtefactError, DataError, UsageError
from mmtool.extract import Settings as ExtractSettings
from mmtool.features.format import status_column
from mmtool.features.reader import Features
from mmtool.inputs import NEVER_INPUTS, modality_of_column
from mmtool.locks import locked
from mmtool.manifest.open import Manifest, ids_and_rows, open_manifest
from mmtool.manifest.rows import Row
from mmtool.matching import check_features
from mmtool.model import Model, is_model, load
from mmtool.network import having, key_of, only, subsets, take
from mmtool.predictionfile import read_predictions
from mmtool.training import data as training_data
from mmtool.training import measure, splits, targets
from mmtool.training.solve import one_thread

COVERAGE = 0.9
"""That is measured of a model with calibration rows, where no other is asked for."""


@dataclass(frozen=True)
class Settings:
    """What the command line says. `split` is test or all; `target` belongs to predictions, a model knows its own.

    `by_input`: what is each input worth, by the chosen `metric` or the task's main one?
    """

    split: str = "test"
    target: str | None = None
    by_input: bool = False
    metric: str | None = None
    seed: int = 0
    extraction: ExtractSettings = field(default_factory=ExtractSettings)
    coverage: float | None = None
    abstain_below: float | None = None


@dataclass(frozen=True)
class Result:
    """The metrics as in metrics.json, and how an extraction before them ended."""

    metrics: dict[str, Any]
    exit_code: int = 0


def evaluate(what: Path, data: str, output: Path, settings: Settings) -> Result:
    """Score a model, or predictions of any tool, and write the report."""
    report.check_report(output)
    with locked(output):
        return (evaluate_model if is_model(what) else evaluate_predictions)(what, data, output, settings)


def evaluate_model(path: Path, name: str, output: Path, settings: Settings) -> Result:
    """A model on the rows of features or of a manifest. Raises MMToolError where no row is left to score."""
    if settings.target is not None:
        raise UsageError("a model knows its targets", "leave --target out; it belongs to predictions")
    if settings.split not in ("test", "all"):
        raise UsageError(f"--split {settings.split!r} is not known", "use test or all")
    model = load(path)
    if settings.by_input:
        fused_only = model.upstream is not None and opening.is_features(name) and Features(Path(name)).inputs == ["fused"]
        worth.check(model, settings.metric, fused=fused_only or model.inputs == ["fused"])
    known = any(model.conformal.values())
    doubt.ask(model, COVERAGE if settings.coverage is None and known else settings.coverage, settings.abstain_below)
    with opening.open_for(model, name, settings.extraction, settings.split) as (features, names, code):
        check_features(model, features, names)
        with one_thread():
            scored = _score(model, features, names, settings)
        about = _about_model(path, name, model, features, f"{scored.rows} {scored.which}")
        if settings.by_input:
            costs.add(model, features, names, scored, about, settings.extraction)
        report.write(output, scored, about)
    return Result(scored.metrics, code)


def _about_model(path: Path, name: str, model: Model, features: Features, scored: str) -> report.About:
    status = {n: status_column(n) for n in model.inputs if status_column(n) in features.rows.column_names}
    ids = features.rows["id"].to_pylist()
    columns = {n: features.rows[c].to_pylist() for n, c in status.items()}
    statuses = {str(i): {n: found[at] for n, found in columns.items()} for at, i in enumerate(ids)}
    curves = {c: [x for x in model.header["curves"] if x.get("column", c) == c] for c in model.columns}
    made = {"rows": "trained on rows", "measured": "when trained, measured"}
    facts = [("model", str(path)), ("data", name), ("scored", scored),
             *((made.get(k, k), v) for k, v in info.summary({"kind": "model", **model.header})[1:])]
    tasks = {c: e["name"] for c, e in model.header["tasks"].items()}

    def rows(wanted: set[str]) -> dict[str, Row]:
        if not opening.is_features(name):  # the manifest, since it alone has the bytes of cells that are no paths
            return {i: row for i, row in ids_and_rows(open_manifest(name)) if i in wanted} if name != "-" else {}
        table = features.rows.select([c for c in ("id", *features.header["columns"]) if c in features.rows.column_names])
        return {str(i): table.slice(at, 1).to_pylist()[0] for at, i in enumerate(ids) if str(i) in wanted}

    return report.About(f"{path.name} on {Path(name).name or name}", facts, model.header["inputs"], rows,
                        Path(features.header["base"]), tasks, curves, statuses, model.header["comparison"])


def _columns_as_inputs(manifest: Manifest, columns: list[str]) -> dict[str, dict[str, Any]]:
    """The columns that a page can show of a manifest without a model: media and text."""
    sample = list(islice(manifest.rows(), 200))
    found = {}
    for column in columns:
        modality = modality_of_column([cell for row in sample if (cell := row.get(column)) is not None])
        if modality is not None and column not in NEVER_INPUTS:
            found[column] = {"columns": [column], "modality": modality, "limits": {}}
    return found


def _score(model: Model, features: Features, names: list[str], settings: Settings) -> report.Scored:
    for column in model.columns:
        if column not in features.header["columns"]:
            raise DataError(f"{features.folder} has no column {column!r}, which the model predicts",
                            "add it, or use `predict`")
    cells = {c: features.rows[c].to_pylist() for c in model.columns}
    readable = {c: set(targets.readable(task, c, cells[c], some=len(model.columns) == 1)) for c, task in model.tasks.items()}
    if not any(readable.values()):
        raise DataError(f"no row has a target that can be read ({', '.join(model.columns)})", "check the columns")
    rows, which = _rows(model, features, names, sorted(set[int]().union(*readable.values())), settings.split)
    inputs = training_data.inputs_of(features, names, rows, model.takes)
    used = fused.used_inputs(features, rows) if names == ["fused"] else measure.used_in(inputs)
    usable = [at for at in range(len(rows)) if used[at]]
    notes = []
    if len(usable) < len(rows):
        notes.append(f"{len(rows) - len(usable)} of {len(rows)} rows have no usable input and are not scored")
    if not usable:
        raise DataError(f"no row of {which} has a usable input", "see errors.jsonl of the features")
    inputs, rows, used = take(inputs, usable), [rows[at] for at in usable], [used[at] for at in usable]
    told = used if names == ["fused"] else None
    predictions = model.predictions(inputs, told)
    by_subset = _by_fused(model, inputs, used) if told else _by_subset(model, inputs, names)
    parts, asked = {}, {}
    for column, task in model.tasks.items():
        at = [i for i, row in enumerate(rows) if row in readable[column]]
        truth = {i: cells[column][rows[i]] for i in at}
        if not at:
            notes.append(f"no scored row has a {column}")
            continue
        notes += _unseen(task, column, list(truth.values()))
        own = {key: [(p, truth[i]) for i, p in found[column] if i in truth] for key, found in by_subset.items()}
        by_inputs = {key: ([p for p, _ in pairs], [t for _, t in pairs]) for key, pairs in own.items() if pairs}
        chosen = [predictions[column][i] for i in at]
        found = measure.tables(task, (chosen, list(truth.values())), by_inputs, settings.seed)
        scores = model.conformal.get(column, {})
        if doubted := doubt.measured(model.doubt, task, scores, chosen, list(truth.values()), by_inputs):
            found["doubt"] = doubted
        ids = [features.rows["id"][rows[i]].as_py() for i in at]
        parts[column] = report.Part(task, found, ids, chosen, list(truth.values()))
        asked[column] = (at, list(truth.values()))
    for note in notes:
        console.warn(note)
    if settings.by_input:
        for column, found in worth.measure(model, inputs, asked, settings.metric, settings.seed).items():
            parts[column].found["worth"] = found
    return report.Scored(parts, len(rows), which, notes, len(model.columns) > 1)


Subsets = dict[str, dict[str, list[tuple[int, dict[str, Any]]]]]
"""For each subset of inputs and target column: row numbers, and what is predicted for them."""


def _by_subset(model: Model, inputs: dict[str, Tokens], names: list[str]) -> Subsets:
    found: Subsets = {}
    for subset in subsets(names):
        at = having(inputs, subset)
        if len(at):
            predicted = model.predictions(only(take(inputs, at), subset))
            found[key_of(subset)] = {c: list(zip(at.tolist(), p, strict=True)) for c, p in predicted.items()}
    return found


def _by_fused(model: Model, inputs: dict[str, Tokens], used: list[list[str]]) -> Subsets:
    """What is fused cannot be taken apart: rows are told apart by the inputs that they had."""
    found: Subsets = {}
    for key in sorted({key_of(row) for row in used}):
        at = [i for i, row in enumerate(used) if key_of(row) == key]
        if len(at) < measure.LEAST_ROWS:
            continue
        predicted = model.predictions(take(inputs, at), [used[i] for i in at])
        found[key] = {c: list(zip(at, p, strict=True)) for c, p in predicted.items()}
    return found


def _rows(model: Model, features: Features, names: list[str], rows: list[int], split: str) -> tuple[list[int], str]:
    if split == "all":
        _warn_of_known(model, features, rows)
        return rows, "all rows"
    if "split" in features.header["columns"]:
        test = splits.read(features.rows["split"].to_pylist(), rows, need_train=False).test
        if not test:
            raise DataError("no row with a target has split test", "score every row: --split all")
        _warn_of_known(model, features, test)
        return test, "rows with split test"
    columns = opening.hashed_columns(model.header["inputs"], model.columns)
    if absent := [c for c in columns if c not in features.header["columns"]]:
        raise DataError(f"without a column 'split' and without {absent[0]!r}, nothing tells which rows trained the model",
                        "score every row: --split all")
    known = {bytes(h) for h in model.trained.tolist()}
    hashes = opening.row_hashes([features.rows[c].to_pylist() for c in columns], rows).tolist()
    left = [row for row, h in zip(rows, hashes, strict=True) if bytes(h) not in known]
    console.say(f"no column 'split': {len(rows) - len(left)} of {len(rows)} rows trained the model, or equal one that did, "
                "and are not scored")
    if not left:
        raise DataError("every row trained the model", "its out-of-fold metrics are in `mmtool info MODEL`; or --split all")
    return left, "rows that did not train the model"


def _warn_of_known(model: Model, features: Features, rows: list[int]) -> None:
    """Rows that are scored should not have trained the model."""
    columns = opening.hashed_columns(model.header["inputs"], model.columns)
    if set(columns) <= set(features.header["columns"]):
        known = {bytes(h) for h in model.trained.tolist()}
        hashes = opening.row_hashes([features.rows[c].to_pylist() for c in columns], rows).tolist()
        if count := sum(bytes(h) in known for h in hashes):
            console.warn(f"{count} of {len(rows)} scored rows trained the model, or equal one that did: "
                         "what it is worth on new rows is less than these numbers")


def _unseen(task: Task, column: str, truth: Sequence[str]) -> list[str]:
    known = set(task.labels)
    unseen = [t for t in truth if task.stratum(t) and t not in known]
    return [f"{len(unseen)} rows have a {column} that training never saw, such as {unseen[0]!r}: they count as wrong"] \
        if unseen else []


def evaluate_predictions(path: Path, manifest: str, output: Path, settings: Settings) -> Result:
    """Predictions of any tool (JSONL) against a manifest, matched by id."""
    if settings.target is None:
        raise UsageError("predictions are scored against a column", "name it: --target COLUMN[=TASK]")
    if settings.by_input:
        raise UsageError("--by-input hides inputs from a model; predictions are made already", "give the model")
    if settings.coverage is not None or settings.abstain_below is not None:
        raise UsageError("--coverage and --abstain-below belong to a model", "leave them out")
    predictions = read_predictions(path)
    opened = open_manifest(manifest)
    table = dict(ids_and_rows(opened))
    if unknown := [p["id"] for p in predictions if p["id"] not in table]:
        raise ArtefactError(f"{path}: {len(unknown)} ids are not in {manifest}, first {unknown[0]!r}", "give its own manifest",
                            code="E_ARTEFACT_MISMATCH")
    if twice := [i for i, n in Counter(p["id"] for p in predictions).items() if n > 1]:
        raise ArtefactError(f"{path}: {len(twice)} ids occur more than once, first {twice[0]!r}",
                            "give each row one prediction", code="E_PREDICTIONS")
    columns = list(dict.fromkeys(c for row in table.values() for c in row))
    which, wanted = "rows", set(table)
    if settings.split == "test" and "split" in columns and (tested := {i for i, row in table.items() if opening.is_test(row)}):
        which, wanted = "rows with split test", tested
    given = len(predictions)
    predictions = [p for p in predictions if p["id"] in wanted]
    if len(predictions) < given:
        console.say(f"{given - len(predictions)} of {given} predictions are not of {which} and are not scored (--split all)")
    if not predictions:
        raise ArtefactError(f"{path} has no prediction of {which}", "score every row: --split all", code="E_PREDICTIONS")
    column, text = targets.parse(settings.target, columns)
    predictions = [p if "prediction" in p else _of_target(path, p, column) for p in predictions]
    cells = [None if (cell := table[p["id"]].get(column)) is None else str(cell) for p in predictions]
    asked = targets.build(column, text, [c for c in cells if c is not None and not targets.is_empty(c)], {})
    rows = targets.readable(asked.task, column, cells)
    empty = [r for r in rows if predictions[r]["prediction"] is None]
    notes = [f"{len(empty)} of {len(rows)} predictions are null and are not scored"] if empty else []
    if len(predictions) < len(wanted):
        notes.append(f"{len(predictions)} of {len(wanted)} {which} have a prediction; the others are not scored")
    notes += _odd(asked.name, [predictions[r] for r in rows], {c for r in rows if (c := cells[r]) is not None})
    for note in notes:
        console.warn(note)
    rows = [r for r in rows if predictions[r]["prediction"] is not None]
    truth = [c for r in rows if (c := cells[r]) is not None]
    if not rows:
        raise ArtefactError(f"{path} holds no prediction that can be scored", "check the ids and --target",
                            code="E_PREDICTIONS")
    asked.task.fit(truth)
    chosen = [predictions[r] for r in rows]
    try:
        found = measure.tables(asked.task, (chosen, truth), {}, settings.seed)
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise ArtefactError(f"{path} does not hold predictions of {asked.name} ({error})",
                            "name the task: --target COLUMN=TASK, or mend the file", code="E_PREDICTIONS") from error
    part = report.Part(asked.task, found, [p["id"] for p in chosen], chosen, truth)
    scored = report.Scored({column: part}, len(rows), which, notes, several=False)
    facts = [("predictions", str(path)), ("data", manifest), ("scored", f"{len(rows)} {which}")]
    about = report.About(f"{path.name} against {column} of {Path(manifest).name}", facts,
                         _columns_as_inputs(opened, columns), lambda ids: {i: table[i] for i in ids}, opened.base,
                         {column: asked.name})
    report.write(output, scored, about)
    return Result(scored.metrics)


def _odd(task: str, predictions: list[dict[str, Any]], known: set[str]) -> list[str]:
    """What looks wrong in another tool's predictions, in words."""
    notes = []
    if task == "classify":
        strange = [p["prediction"] for p in predictions if p["prediction"] is not None and str(p["prediction"]) not in known]
        if strange:
            notes.append(f"{len(strange)} predictions are labels that no scored row has, such as {strange[0]!r}")
    for prediction in predictions:
        found = prediction.get("probabilities") or {}
        numbers = [p for p in found.values() if isinstance(p, int | float)] if isinstance(found, dict) else []
        if any(not 0 <= p <= 1 for p in numbers) or (task == "classify" and numbers and abs(sum(numbers) - 1) > 0.01):
            notes.append(f"the probabilities of {prediction['id']!r} are none: log loss and the like mean little")
            break
    return notes


def _of_target(path: Path, line: dict[str, Any], column: str) -> dict[str, Any]:
    """What a line of several targets says of one."""
    found = line["targets"].get(column)
    if not isinstance(found, dict) or "prediction" not in found:
        raise ArtefactError(f"{path}: the prediction of {line['id']!r} says nothing of {column!r}",
                            f"name one of {', '.join(line['targets'])}", code="E_PREDICTIONS")
    return {**{k: v for k, v in line.items() if k != "targets"}, **found}
