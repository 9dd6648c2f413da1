"""What `train` and `eval` begin with: features, as they are or extracted from a manifest first."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mmtool import console, inputs
from mmtool.errors import UsageError
from mmtool.extract import Settings as ExtractSettings
from mmtool.extract import extract
from mmtool.extraction.sources import Headers
from mmtool.features.format import HEADER
from mmtool.features.reader import Features
from mmtool.manifest.open import open_manifest, scan
from mmtool.matching import shared_inputs
from mmtool.model import Model
from mmtool.training import targets


@contextmanager
def open_features(name: str, target: str | None, settings: ExtractSettings) -> Iterator[tuple[Features, int]]:
    """A features folder as it is; a manifest is extracted first, through the cache, without inputs that read the target."""
    if (Path(name) / HEADER).is_file():
        if settings.encode:
            raise UsageError(f"{name} is a features folder, which needs no -e", "leave -e out, or give the manifest")
        yield Features(Path(name)), 0
        return
    manifest = open_manifest(name)
    columns = scan(manifest).columns
    if settings.encode or settings.like is not None:
        chosen = inputs.parse_all(settings.encode, columns)
    else:
        chosen, notes = inputs.choose(manifest, columns)
        for note in notes:
            console.warn(note)
    if target is not None:
        column = targets.parse(target, columns)[0]
        for item in [i for i in chosen if column in i.columns]:
            console.warn(f"input {item.name!r} reads the target column {column!r} and is dropped")
            chosen.remove(item)
    if not chosen and settings.like is None:
        raise UsageError("no input is left", "name some with -e COLUMN=ENCODER")
    texts = tuple(f"{i.name}@{'+'.join(i.columns)}={i.encoder}" for i in chosen)
    with tempfile.TemporaryDirectory(prefix="mmtool-") as folder:
        result = extract(name, Path(folder) / "features", replace(settings, encode=texts))
        yield Features(result.features), result.exit_code


def inputs_without(features: Features, column: str) -> list[str]:
    """The inputs that do not read the target; says which do."""
    reading = [n for n in features.inputs if column in features.header["inputs"][n]["columns"]]
    for name in reading:
        console.warn(f"input {name!r} reads the target column {column!r} and is dropped")
    kept = [n for n in features.inputs if n not in reading]
    if not kept:
        raise UsageError(f"every input reads the target column {column!r}", "extract another column")
    return kept


@contextmanager
def open_for(model: Model, name: str, settings: ExtractSettings) -> Iterator[tuple[Features, list[str]]]:
    """The features that a model reads, and which of its inputs are there: as they are, or extracted by its encoders."""
    if (Path(name) / HEADER).is_file():
        features = Features(Path(name))
        yield features, shared_inputs(model, features.inputs, name)
        return
    manifest = open_manifest(name)
    columns = scan(manifest).columns
    entries = model.header["inputs"]
    names = shared_inputs(model, [n for n in model.inputs if set(entries[n]["columns"]) <= set(columns)], name)
    headers = Headers(str(name), {n: entries[n] for n in names}, model.assets)
    with tempfile.TemporaryDirectory(prefix="mmtool-") as folder:
        yield Features(extract(name, Path(folder) / "features", replace(settings, like=headers)).features), names


def row_hashes(features: Features, names: Sequence[str], target: str, rows: Sequence[int]) -> Tensor:
    """Eight bytes that say what each row holds in the columns of these inputs and the target, `[N, 8]`, uint8."""
    columns = sorted({c for n in names for c in features.header["inputs"][n]["columns"]} | {target})
    cells = [features.rows[c].to_pylist() for c in columns]
    digests = [hashlib.blake2b(json.dumps([column[r] for column in cells]).encode(), digest_size=8).digest() for r in rows]
    return torch.tensor([list(digest) for digest in digests], dtype=torch.uint8).reshape(-1, 8)
