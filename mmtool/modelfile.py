"""The format of model files: what a header must look like, the SHA-256 of it and of every tensor, and older formats.

    format 1    no digests
    format 2    `digests` in the metadata: SHA-256 of the header and of each tensor (see `sealing`)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmtool import sealing, tensorfile
from mmtool.errors import ArtefactError, StorageError
from mmtool.features.header import FUSION, IDENTITY, INPUT, MOST_INPUTS, OPTIONS, SLUG, WORD, migrated
from mmtool.schema import Rule, anything, either, fields, flag, listed, null, number, one_of, table, text, whole
from mmtool.strictjson import Unsound

FORMAT = 2
TRAIN = "train again, or copy the file again"
MOST_DIMS, MOST_LAYERS = 1 << 20, 64
COLUMN = text(10_000)
MEASURE = fields({"value": number(), "low": number(), "high": number()})
MEASURES = table(MEASURE, WORD, 10_000)
NUMBERS, COUNT, MAYBE = listed(number()), either(null, whole()), either(null, number())
CURVE = fields({"name": WORD, "x": one_of("l2", "epoch"), "at": NUMBERS, "held": NUMBERS, "best": number()},
               {"fit": NUMBERS, "column": COLUMN})
NAMED = fields({"name": WORD, "why": text()})
CANDIDATE = fields({"name": WORD, "kind": WORD, "inputs": listed(WORD, MOST_INPUTS), "value": number(), "low": number(),
                    "high": number()},
                   {"fusion": either(null, WORD), "hidden": listed(whole(1, MOST_DIMS), MOST_LAYERS), "loss": MAYBE,
                    "parameters": COUNT, "gap": either(null, MEASURE), "p_best": either(null, number(0, 1)), "chosen": flag,
                    "train_seconds": MAYBE, "predict_ms_per_row": MAYBE,
                    "settings": fields({}, {"given": table(anything, WORD)}, open_=True)}, open_=True)
COMPARED = fields({"metric": WORD, "greater_is_better": flag, "rows": whole(), "how": WORD,
                   "candidates": listed(CANDIDATE, 100_000)},
                  {"without_inputs": MAYBE, "skipped": listed(NAMED, 100_000), "folds": COUNT,
                   "ensemble": either(null, fields({"members": table(number(0), WORD), "value": number(), "low": number(),
                                                    "high": number()}))}, open_=True)
"""Of one target; comparison.json has it, too."""
SETTING = either(null, flag, number(), text(10_000))
ASKED = fields({}, {
    "fusion": WORD, "hidden": listed(whole(1, MOST_DIMS), MOST_LAYERS), "optimizer": WORD, "given": table(SETTING, WORD, 100),
    "dropout": number(0, 1), "modality_dropout": either(null, number(0, 1)), "task_options": table(text(10_000), WORD, 100),
    "folds": COUNT, "group": either(null, COLUMN), "conformal": either(null, number(0, 1)),
    "finetune": listed(WORD, MOST_INPUTS), "augment": listed(WORD, MOST_INPUTS), "seed": whole(-(1 << 63), 1 << 64),
    "bundle": flag, "search": whole(), "allow_random": flag}, open_=True)
KEYS: dict[str, Rule] = {
    "format": whole(1), "hidden": listed(whole(1, MOST_DIMS), MOST_LAYERS), "fusion": FUSION, "asked": ASKED,
    "inputs": table(fields({**INPUT, "weights": one_of("package", "trained", "bundled", "brought")}), SLUG, MOST_INPUTS),
    "tasks": table(fields({"name": WORD, "options": OPTIONS, "package": WORD, "labels": listed(COLUMN)}), COLUMN, 1000),
    "recipe": fields({"optimizer": WORD}, {"modality_dropout": number(0, 1)}, open_=True),
    "data": fields({"fingerprint": WORD, "train": whole(), "val": whole(), "test": whole(), "calib": whole(),
                    "split_made": flag, "upstream_learned": flag}),
    "metrics": fields({"measured_on": WORD, "overall": table(anything), "by_inputs": table(anything),
                       "baselines": table(anything)}, open_=True),
    "temperatures": table(table(number(1e-6, 1e6), WORD), COLUMN, 1000), "curves": listed(CURVE, 100_000),
    "versions": table(WORD, WORD, 1000), "tied": table(text(500), text(500)), "comparison": table(COMPARED, COLUMN, 1000),
    "upstream": either(fields({}), fields({"fusion": FUSION, "identity": IDENTITY})),
    "conformal": fields({}, {"rows": table(table(whole(1), WORD), COLUMN, 1000)}),
    "reference": table(fields({"held": whole()}), SLUG, MOST_INPUTS)}


def _from_1(header: dict[str, Any]) -> dict[str, Any]:
    """Format 2 has digests beside the header, and nothing else is new in it."""
    return {**header, "format": 2}


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}


@dataclass(frozen=True)
class Opened:
    """A model file whose header is sound. `digests`: of its tensors; None in format 1, which has none."""

    path: Path
    header: dict[str, Any]
    digests: dict[str, str] | None


def is_model(path: Path) -> bool:
    """Does the name say so?"""
    return path.suffix.lower() == ".safetensors"


def open_model(path: Path) -> Opened:
    """The header of a model file, verified and checked. Raises MMToolError for another file or format, and for damage."""
    if path.is_dir() or (path.exists() and not is_model(path)):
        raise ArtefactError(f"{path} is {'a folder' if path.is_dir() else 'no .safetensors file'}, not a model",
                            "make a model with `mmtool train`", code="E_ARTEFACT_KIND")
    if not path.exists():
        partial = path.with_name(path.name + ".partial")
        raise StorageError(f"{path} does not exist", f"{partial} is unfinished: run its train again" if partial.exists()
                           else "make one with `mmtool train`", code="E_NOT_FOUND")
    found = tensorfile.layout(path, TRAIN)
    if set(found.metadata) != {sealing.KEY}:
        raise ArtefactError(f"{path} is no model of mmtool", "make one with `mmtool train`", code="E_ARTEFACT_KIND")
    about = sealing.about_of(path, found.metadata, TRAIN)
    digests = sealing.unseal(path, about, found.tensors, TRAIN) if about.get("format") == FORMAT else None
    header = migrated(about, FORMAT, MIGRATIONS, path, TRAIN)
    try:
        _check(header)
        _check_tied(header["tied"], found.tensors)
    except Unsound as error:
        raise tensorfile.damaged(path, str(error), TRAIN) from None
    return Opened(path, header, digests)


def verified(path: Path) -> Opened:
    """The same, and its tensors are what was written, as far as the file can tell."""
    opened = open_model(path)
    if opened.digests is not None:
        sealing.verify(path, tensorfile.read(path, remedy=TRAIN)[0], opened.digests, TRAIN)
    return opened


def read_header(path: Path) -> dict[str, Any]:
    """The header alone; raises as `open_model` does."""
    return open_model(path).header


def _check(header: dict[str, Any]) -> None:
    anything(header, "the header")
    fields(KEYS)(header, "the header")
    columns, inputs = set(header["tasks"]), set(header["inputs"])
    if not columns or not inputs:
        raise Unsound("the header names no input, or no target")
    if set(header["temperatures"]) != columns:
        raise Unsound("the header has temperatures of other targets than it predicts")
    for kind in ("overall", "by_inputs", "baselines"):
        check_metrics(header["metrics"][kind], f"the header.metrics.{kind}", None if len(columns) == 1 else columns,
                      each=kind != "overall")
    if not set(header["conformal"].get("rows", {})) <= columns or not set(header["comparison"]) <= columns:
        raise Unsound("the header tells of a target that it does not predict")
    if not set(header["reference"]) <= (inputs if not header["upstream"] else {"fused"}):
        raise Unsound("the header has a reference of an input that it does not have")


def check_metrics(found: Any, place: str, columns: set[str] | None, *, each: bool) -> None:
    """A part of a table of metrics, with a level for the targets where there are several, and one for the subsets of `each`."""
    rule = table(MEASURES, WORD) if each else MEASURES
    if columns is None:
        rule(found, place)
    else:
        fields(dict.fromkeys(columns, rule))(found, place)


def _check_tied(tied: Mapping[str, str], tensors: Mapping[str, Any]) -> None:
    for other, name in tied.items():
        if name not in tensors or other in tensors:
            raise Unsound(f"the header says that {other[:80]!r} is the tensor {name[:80]!r}, and the file does not")
