"""`mmtool predict -m MODEL`: files, a manifest, a features folder or JSON lines, with any subset of the model's inputs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import tee
from pathlib import Path
from typing import Any

from torch import Tensor

from mmtool import console, devices, doubt, fused, predictions
from mmtool.api import Tokens
from mmtool.engine import Engine, choose_batch_size, choose_device
from mmtool.errors import MMToolError, UsageError
from mmtool.explain.inputs import check as check_explainable
from mmtool.explain.inputs import explain as explain_inputs
from mmtool.explain.overlay import Overlays
from mmtool.extraction import sources
from mmtool.extraction.blocks import run_blocks
from mmtool.features.format import BLOCK_ROWS, HEADER, numerics, status_column
from mmtool.features.reader import Features
from mmtool.inference.choice import choose_backend
from mmtool.manifest.open import Manifest, ids_and_rows, is_manifest, json_row, open_aloud, row_id, scan
from mmtool.manifest.rows import Row
from mmtool.matching import check_features, shared_inputs
from mmtool.model import Model, load
from mmtool.network import take
from mmtool.predict import MODALITIES, Settings, alone, file_rows
from mmtool.ragged import Ragged
from mmtool.readers import Kept
from mmtool.training.data import inputs_of


def predict_with_model(path: Path, arguments: Sequence[str], settings: Settings) -> int:
    """Predict and print (or write with -o) one object a row; returns the exit code."""
    if settings.labels is not None or settings.encode:
        raise UsageError("--labels and -e belong to a prediction without a model", "the model knows its labels and encoders")
    model = load(path)
    doubt.ask(model, settings.coverage, settings.abstain_below)
    overlays = _overlays(model, settings)
    if "-" in arguments:
        alone(arguments, settings)
        with Kept() as kept:
            return predictions.stream(_lines_from_stdin(model, settings, overlays, kept), settings.output)
    if len(arguments) == 1 and (Path(arguments[0]) / HEADER).is_file():
        alone(arguments, settings)
        return predictions.stream(_from_features(model, Path(arguments[0]), explain=settings.explain), settings.output)
    if any(is_manifest(a) for a in arguments):
        alone(arguments, settings)
        return predictions.stream(_from_manifest(model, arguments[0], settings, overlays), settings.output)
    rows = [(name, place(model, row)) for name, row in file_rows(arguments, settings.text, settings.cells)]
    online = Online(model, list(rows[0][1]), Path(), settings, overlays)
    with console.progress("explain" if settings.explain else "predict", len(rows)) as advance:
        found = []
        for line in online.answer(rows, len(rows)):
            found.append(line)
            advance(1)
    return predictions.tell(found, settings.output, as_json=settings.as_json, top=settings.top)


def _overlays(model: Model, settings: Settings) -> Overlays | None:
    """Where explanations put their pictures; None where nothing is to be explained."""
    if not settings.explain:
        return None
    check_explainable(model)
    return Overlays(settings.output)


def place(model: Model, row: Row) -> Row:
    """A row keyed by input, column or modality -> keyed by column. Raises UsageError for a key that fits no input."""
    entries = model.header["inputs"]
    columns = {c for entry in entries.values() for c in entry["columns"]}
    placed: Row = {}
    for key, cell in row.items():
        if key in columns or key == "id":
            column = key
        elif key in entries and len(entries[key]["columns"]) == 1:
            column = entries[key]["columns"][0]
        else:
            of_kind = [n for n in model.inputs if entries[n]["modality"] == key and len(entries[n]["columns"]) == 1]
            if len(of_kind) != 1:
                fact = f"two inputs read {key}: {', '.join(of_kind)}" if of_kind else f"the model has no input {key!r}"
                told = ", ".join(f"{n} ({entries[n]['modality']})" for n in model.inputs)
                raise UsageError(fact, f"name one with --input NAME=CELL; inputs: {told}")
            column = entries[of_kind[0]]["columns"][0]
        if column in placed:
            raise UsageError(f"column {column!r} is given twice")
        placed[column] = cell
    return placed


class Online:
    """The model's encoders for the inputs that some columns make possible, loaded once."""

    def __init__(self, model: Model, columns: Sequence[str], base: Path, settings: Settings,
                 overlays: Overlays | None = None, kept: Kept | None = None) -> None:
        entries = model.header["inputs"]
        names = [n for n in model.inputs if set(entries[n]["columns"]) & set(columns)]
        manifest = Manifest("the rows", base, (), lambda: iter(()))
        wanted = sorted({c for n in names for c in entries[n]["columns"]})
        headers = model.headers(names, "the model")
        self.model, self.settings, self.kept = model, settings, kept
        self.device = choose_device(settings.device)
        weights = {n: p for n, p in sources.parse_weights(settings.weights).items() if n in names or n not in model.inputs}
        self.readings = sources.like(headers, manifest, wanted, weights, limits=settings.limits, seed=settings.seed,
                                     device=self.device)
        self.engines = {r.name: Engine(r.built.encoder, self.device, "fp32",
                                       choose_batch_size("auto", self.device, r.source.modality),
                                       f"input {r.name!r}, encoder {r.built.spec}") for r in self.readings}
        self.explainer = None
        if overlays is not None:
            from mmtool.explain.rows import Explainer

            self.explainer = Explainer(model, self.readings, self.engines, self.as_tokens, overlays)

    def as_tokens(self, name: str, rows: Sequence[Tensor | None]) -> Tokens:
        """What an input's encoder made of some cells, as the model takes it."""
        width = self.model.header["inputs"][name]["dim"]
        if self.model.takes == "tokens":
            return Ragged.of(rows, width)
        kept = [None if row is None else Tokens.from_rows([row]).mean().float() for row in rows]
        return Tokens.from_rows(kept, width)

    def answer(self, rows: Iterable[tuple[str, Row]], total: int, *, caching: bool = False) -> Iterator[dict[str, Any]]:
        """The predictions of `total` rows, in their order."""
        backend = choose_backend("auto", self.device, "fp32", total)
        stamp = numerics(self.device, "fp32", backend)
        stamps = {r.name: r.stamp(stamp) for r in self.readings} if caching else None
        again: Iterator[tuple[str, Row]] = iter(())
        if self.explainer is not None:
            rows, again = tee(rows)
        for part, encoded in run_blocks(self.readings, self.engines, rows, total, stamps=stamps, kept=self.kept,
                                        backend=backend):
            tokens = {name: self.as_tokens(name, result.rows) for name, result in encoded.items()}
            statuses = {name: result.statuses for name, result in encoded.items()}
            found = lines(self.model, part.ids, tokens, statuses)
            yield from found if self.explainer is None else self.explainer.rows(found, again, tokens)


def lines(model: Model, ids: Sequence[str], tokens: dict[str, Tokens], statuses: dict[str, list[str]],
          used: Sequence[Sequence[str]] | None = None) -> Iterator[dict[str, Any]]:
    """One object a row: the prediction, the inputs used, what the model is worth with them, and bad cells."""
    unlike = model.unlike(tokens, used)
    for at, (name, prediction) in enumerate(zip(ids, model.predict(tokens, used), strict=True)):
        line = {"id": name, **prediction, **({"unlike": unlike[at]} if unlike[at] else {})}
        below = line.get("targets", {model.columns[0]: line})
        for column, found in below.items():
            if (known := model.measured(column, prediction["inputs"])) is not None:
                found["measured"] = {known[0]: known[1]}
        bad = {n: s[at] for n, s in statuses.items() if s[at] not in ("ok", "missing")}
        yield {**line, "errors": bad} if bad else line


def _from_features(model: Model, folder: Path, *, explain: bool) -> Iterator[dict[str, Any]]:
    features = Features(folder)
    names = shared_inputs(model, features.inputs, str(folder))
    if explain and names == ["fused"]:
        raise UsageError(f"{folder} holds fused features, which do not tell one input's part from another's",
                         "give --explain the manifest, or the features that were fused")
    check_features(model, features, names)
    if explain:
        console.say(f"{folder} holds no cells: only what each input contributes is told; a manifest tells where within it")
    ids = features.rows["id"].to_pylist()
    shown = sorted(features.header["upstream"]["inputs"]) if names == ["fused"] else names
    statuses = {n: features.rows[status_column(n)].to_pylist() for n in shown}
    for start in range(0, len(features), BLOCK_ROWS):
        at = range(start, min(start + BLOCK_ROWS, len(features)))
        used = fused.used_inputs(features, at) if names == ["fused"] else None
        tokens = inputs_of(features, names, at, model.takes)
        found = lines(model, ids[at.start : at.stop], tokens, {n: s[at.start : at.stop] for n, s in statuses.items()}, used)
        for number, line in enumerate(found):
            if explain:
                explain_inputs(model, take(tokens, [number]), line)
            yield line


def _from_manifest(model: Model, name: str, settings: Settings, overlays: Overlays | None) -> Iterator[dict[str, Any]]:
    manifest = open_aloud(name)
    about = scan(manifest)
    entries = model.header["inputs"]
    names = shared_inputs(model, [n for n in model.inputs if set(entries[n]["columns"]) & set(about.columns)], name)
    columns = [c for n in names for c in entries[n]["columns"]]
    online = Online(model, columns, manifest.base, settings, overlays)
    found = online.answer(ids_and_rows(manifest), about.rows, caching=settings.use_cache)
    yield from console.counted("predict", about.rows, found)


def _lines_from_stdin(model: Model, settings: Settings, overlays: Overlays | None, kept: Kept) -> Iterator[dict[str, Any]]:
    """One answer a line, as soon as the line is there; a bad line is answered too, with what is wrong with it."""
    online: dict[tuple[str, ...], Online] = {}
    for number, line in enumerate(sys.stdin.buffer):
        if not line.strip():
            continue
        name = str(number)
        try:
            row = json_row(line, f"stdin, line {number + 1}")
            name = row_id(row, number)
            placed = place(model, {k: v for k, v in row.items() if k in _readable(model)})
            key = tuple(sorted(set(placed) - {"id"}))
            if not key:
                raise UsageError(f"stdin, line {number + 1}: none of the model's inputs ({', '.join(model.inputs)})")
            if key not in online:
                online[key] = Online(model, key, Path(), settings, overlays, kept)
            yield from online[key].answer([(name, placed)], 1)
        except MMToolError as error:
            if error.code == devices.FAILED:  # every further line would fail
                raise
            yield {"id": name, "prediction": None, "probability": None, "probabilities": {}, "inputs": [],
                   "errors": {"line": f"{error.code}: {error}"}}


def _readable(model: Model) -> set[str]:
    """Keys of a JSON line that mean something to the model; others, such as the target, are passed over."""
    return {*model.inputs, *MODALITIES, *(c for e in model.header["inputs"].values() for c in e["columns"])}
