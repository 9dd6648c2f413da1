"""What `train` and `eval` begin with: features, as they are or extracted from a manifest first, and inputs read as cells."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtool import cells, console, encoding, folders, inputs
from mmtool.encoding import Built
from mmtool.errors import DataError, MMToolError, UsageError
from mmtool.extract import Settings as ExtractSettings
from mmtool.extract import extract
from mmtool.features.format import HEADER, status_column
from mmtool.features.reader import Features
from mmtool.inputs import Input
from mmtool.manifest.archives import SPLITS
from mmtool.manifest.open import Manifest, Scan, filtered, ids_and_rows, open_aloud, open_manifest, scan
from mmtool.manifest.rows import Row, text_of
from mmtool.matching import shared_inputs
from mmtool.model import Model
from mmtool.settings import Settings
from mmtool.texts import Named, Texts
from mmtool.training import targets


@dataclass(frozen=True)
class Wanted:
    """An input that is read as cells, with its encoder as it begins."""

    item: Input
    built: Built
    finetune: bool


@dataclass
class Opened:
    """The rows that `train` starts from. Inputs in `wanted` are read as cells, those in `to_extract` by `extract`."""

    name: str
    columns: tuple[str, ...]
    features: Features | None
    manifest: Manifest | None
    wanted: list[Wanted] = field(default_factory=list)
    to_extract: list[Input] = field(default_factory=list)
    encoders: list[Any] = field(default_factory=list)
    """What tells the encoders, as they are installed, from others."""
    _read: dict[str, Texts] = field(default_factory=dict)

    def __len__(self) -> int:
        if self.manifest is None and self.features is not None:
            return len(self.features)
        return len(self._texts["id"])

    @cached_property
    def _texts(self) -> dict[str, list[str | None]]:
        assert self.manifest is not None
        names = tuple(dict.fromkeys(("id", *self.columns)))
        found: dict[str, list[str | None]] = {c: [] for c in names}
        for name, row in ids_and_rows(self.manifest):
            for column, kept in found.items():
                kept.append(text_of(name if column == "id" else row.get(column)))
        return found

    def extract(self, folder: Path, settings: ExtractSettings) -> None:
        """Fill `features` with the frozen inputs, or take what an earlier run left whole in `folder`."""
        if not self.to_extract:
            return
        if not (folder / "features" / HEADER).exists():
            texts = tuple(f"{i.name}@{'+'.join(i.columns)}={i.encoder}" for i in self.to_extract)
            assert self.manifest is not None
            # `train` judges bad cells, with those that it reads itself
            settings = replace(settings, encode=texts, max_bad="100%", kept=False)
            extract(self.manifest, folder / "features", settings)
        self.features = Features(folder / "features")

    @property
    def frozen(self) -> list[str]:
        """Names of the inputs whose features are there, sorted; those that are fine-tuned too."""
        return [] if self.features is None else self.features.inputs

    def ids(self, rows: Sequence[int]) -> Sequence[str]:
        """Of some rows; of features they stay where they are, until one is looked at."""
        column = self.column("id")
        return Named(column, rows) if isinstance(column, Texts) else [column[r] or "" for r in rows]

    def column(self, column: str) -> Sequence[str | None]:
        """A column as written."""
        if self.manifest is not None:
            return self._texts[column]
        assert self.features is not None
        if column not in self._read:
            self._read[column] = Texts(self.features.rows[column])
        return self._read[column]

    def statuses(self, name: str) -> list[str]:
        """How each cell of an upstream input of fused features fared."""
        assert self.features is not None
        found: list[str] = self.features.rows[status_column(name)].to_pylist()
        return found

    def raws(self, item: Input, modality: str, rows: Sequence[int]) -> Iterator[cells.Raw]:
        """The cells of an input in some rows, ascending, as the manifest has them."""
        assert self.manifest is not None
        wanted = set(rows)
        return (cells.raw_of(row, item.columns, modality)
                for number, (_, row) in enumerate(ids_and_rows(self.manifest)) if number in wanted)


def is_features(name: str) -> bool:
    """Is it a features folder?"""
    return (Path(name) / HEADER).is_file()


def fingerprint(name: str) -> tuple[Any, Callable[[], tuple[Manifest, Scan]]]:
    """What tells the data from other data, and a function for the manifest that it is."""
    if is_features(name):
        return hashlib.sha256((Path(name) / HEADER).read_bytes()).hexdigest(), lambda: _no_manifest(name)
    manifest = open_manifest(name)
    about = scan(manifest)
    return [about.sha256, str(manifest.base.resolve())], lambda: (manifest, about)


def _no_manifest(name: str) -> tuple[Manifest, Scan]:
    raise UsageError(f"{name} is a features folder, which holds no cells", "give the manifest")


def open_data(name: str, settings: Settings, known: Callable[[], tuple[Manifest, Scan]]) -> Opened:
    """A features folder, or a manifest with its inputs parted into those to extract and those to read as cells.

    Inputs that read a target are left out, aloud.
    """
    if is_features(name):
        if settings.extraction.encode:
            raise UsageError(f"{name} is a features folder, which needs no -e", "leave -e out, or give the manifest")
        if settings.extraction.tokens:
            raise UsageError(f"{name} is a features folder, which has its tokens or has not", "leave --tokens out; it "
                             "belongs to `extract`")
        if settings.finetune or settings.augment:
            what = "fine-tune" if settings.finetune else "augment"
            raise UsageError(f"{name} is a features folder: nothing is left to {what}", "give the manifest")
        features = Features(Path(name))
        return Opened(name, tuple(features.header["columns"]), features, None)
    manifest, about = known()
    for note in manifest.notes:
        console.warn(note)
    wanted, frozen, encoders = _part(_choose(manifest, about, settings), settings)
    return Opened(name, about.columns, None, manifest, wanted, frozen, encoders)


def _choose(manifest: Manifest, about: Scan, settings: Settings) -> list[Input]:
    columns = about.columns
    if settings.extraction.encode:
        chosen = inputs.parse_all(settings.extraction.encode, columns)
    else:
        chosen = inputs.choose_aloud(manifest, columns)
    for text in settings.targets:
        column = targets.parse(text, columns)[0]
        for item in [i for i in chosen if column in i.columns]:
            console.warn(f"input {item.name!r} reads the target column {column!r} and is dropped")
            chosen.remove(item)
    if not chosen:
        raise UsageError("no input is left", "name some with -e COLUMN=ENCODER")
    names = [i.name for i in chosen]
    for option, given in (("--finetune", settings.finetune), ("--augment", [a.partition("=")[0] for a in settings.augment])):
        if unknown := [n for n in given if n not in names]:
            raise UsageError(f"{option} {unknown[0]}: there is no such input", f"inputs: {', '.join(names)}")
    return chosen


def _part(chosen: Sequence[Input], settings: Settings) -> tuple[list[Wanted], list[Input], list[Any]]:
    """Inputs that are read as cells, and those that are extracted; a fine-tuned one is both, to begin from.

    The last list tells their encoders, as they are installed, from others.
    """
    wanted, frozen, encoders = [], [], []
    for item in chosen:
        finetune = item.name in settings.finetune
        built = encoding.build(item.encoder, seed=settings.seed, load=finetune)
        fits, random = built.encoder.needs_fit(), not built.encoder.pretrained
        if finetune and (built.encoder.weights_sha256 or not any(p.requires_grad for p in built.encoder.parameters())) \
                and not fits:
            raise no_weights(item.name, built)
        if fits or finetune or (random and not settings.extraction.allow_random):
            if len(item.columns) > 1 and built.encoder.modality != "table":
                raise UsageError(f"encoder {built.name!r} reads one column, not {len(item.columns)}",
                                 "join columns only for the table encoder")
            wanted.append(Wanted(item, built, finetune))
        if not fits and not (random and not settings.extraction.allow_random):
            frozen.append(item)
        encoders.append([item.name, item.columns, built.name, built.package, encoding.plain_options(built.options),
                         built.encoder.revision, encoding.source_sha256(built.encoder)])
    return wanted, frozen, encoders


def no_weights(name: str, built: Built) -> MMToolError:
    """What is wrong where such an encoder is to be fine-tuned."""
    return DataError(f"input {name!r}: encoder {built.spec} has no weights that PyTorch could train",
                     f"leave --finetune {name} out, or take another encoder")


def inputs_without(found: Sequence[str], entries: dict[str, dict[str, Any]], columns: Sequence[str]) -> list[str]:
    """The inputs that do not read a target; says which do."""
    kept = list(found)
    for column in columns:
        for name in [n for n in kept if column in entries[n]["columns"]]:
            console.warn(f"input {name!r} reads the target column {column!r} and is dropped")
            kept.remove(name)
    return kept


@contextmanager
def open_for(model: Model, name: str, settings: ExtractSettings, split: str) -> Iterator[tuple[Features, list[str], int]]:
    """The features that a model reads, which of its inputs are there, and how an extraction of them ended.

    Of a manifest with a column `split` only the rows of `split` test are read, where only they are wanted.
    """
    if is_features(name):
        features = Features(Path(name))
        yield features, shared_inputs(model, features.inputs, name), 0
        return
    manifest = open_aloud(name)
    columns = scan(manifest).columns
    if not set(model.columns) & set(columns):
        raise DataError(f"{name} has no column {model.columns[0]!r}, which the model predicts", "add it, or use `predict`")
    entries = model.header["inputs"]
    names = shared_inputs(model, [n for n in model.inputs if set(entries[n]["columns"]) <= set(columns)], name)
    tested = any(is_test(row) for row in manifest.rows())
    read = filtered(manifest, is_test) if split == "test" and "split" in columns and tested else manifest
    with folders.scratch() as folder:
        result = extract(read, folder / "features", replace(settings, like=model.headers(names, "the model")))
        yield Features(result.features), names, result.exit_code


def is_test(row: Row) -> bool:
    """Does the column `split` say so?"""
    return SPLITS.get(str(row.get("split")).strip().lower()) == "test"


def row_hashes(columns: Sequence[Sequence[str | None]], rows: Sequence[int]) -> Tensor:
    """Eight bytes that say what each row holds in these columns, `[N, 8]`, uint8."""
    digests = bytearray()
    for r in rows:
        digests += hashlib.blake2b(json.dumps([column[r] for column in columns]).encode(), digest_size=8).digest()
    return torch.frombuffer(digests, dtype=torch.uint8).reshape(-1, 8) if digests else torch.zeros(0, 8, dtype=torch.uint8)


def hashed_columns(entries: dict[str, dict[str, Any]], target_columns: Sequence[str]) -> list[str]:
    """The columns whose cells tell rows apart: of the inputs and the targets, sorted."""
    return sorted({c for entry in entries.values() for c in entry["columns"]} | set(target_columns))
