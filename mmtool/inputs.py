"""Which columns go through which encoders: as told with `-e`, or chosen from what the columns hold."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count, islice

from mmtool import console, plugins
from mmtool.errors import UsageError
from mmtool.manifest.open import Manifest
from mmtool.manifest.rows import Blob, Cell
from mmtool.media.sniff import modality_of_bytes, modality_of_name

DEFAULT_ENCODERS = {"image": ("effnet-lite0",), "text": ("minilm",), "audio": ("whisper-tiny", "spectral")}
"""The best encoder first, of those that work without options; a third party's is named with -e."""
NEVER_INPUTS = ("id", "split")
STARTER = "mmtool's plugins/mmtool-starter brings one"
SAMPLE_ROWS = 1000
LONGEST_NAME = 80
RESERVED = ("features.json", "rows.parquet", "errors.jsonl", "fused")
"""Files of a features folder, in which each input has a folder of its own, and the one input of fused features."""


@dataclass(frozen=True)
class Input:
    """One column of the manifest (for tables several) and the encoder that reads it, as written."""

    name: str
    columns: tuple[str, ...]
    encoder: str


def slug(text: str) -> str:
    """The text as an input's name: every character outside `[A-Za-z0-9_.-]` replaced by `_`, and not too long."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", text).strip(".")[:LONGEST_NAME] or "input"
    return name + "_" if name.lower() in RESERVED else name


def parse(text: str, columns: Sequence[str]) -> Input:
    """`[INPUT@]COLUMN[+COLUMN...]=ENCODER` -> Input. Raises UsageError, naming the columns there are."""
    for at in (m.start() for m in re.finditer("=", text)):
        left, encoder = text[:at], text[at + 1 :]
        name, sign, right = left.partition("@")
        for candidate, given in ((left, ""), (right, name)) if sign else ((left, ""),):
            if candidate in columns:
                return Input(slug(given or candidate), (candidate,), _named(encoder, text))
            parts = tuple(candidate.split("+"))
            if len(parts) > 1 and all(p in columns for p in parts):
                return Input(slug(given or candidate), parts, _named(encoder, text))
    if "=" not in text:
        raise UsageError(f"-e {text!r} is not COLUMN=ENCODER", f"columns: {', '.join(columns)}")
    left = text.partition("=")[0].rpartition("@")[2]
    missing = next((p for p in left.split("+") if p not in columns), left)
    raise UsageError(f"the manifest has no column {missing!r}", f"columns: {', '.join(columns)}")


def _named(encoder: str, text: str) -> str:
    if not encoder:
        raise UsageError(f"-e {text!r} names no encoder", "write COLUMN=ENCODER; `mmtool plugins list` shows them")
    return encoder


def parse_all(texts: Iterable[str], columns: Sequence[str]) -> list[Input]:
    """Every `-e`. Raises UsageError where two inputs have one name."""
    inputs = [parse(text, columns) for text in texts]
    names = Counter(i.name.casefold() for i in inputs)  # they are folders, and not every disk tells a from A
    if twice := next((i for i in inputs if names[i.name.casefold()] > 1), None):
        raise UsageError(f"two inputs are called {twice.name!r}", f"name one: -e NAME@{'+'.join(twice.columns)}=ENCODER")
    return inputs


def choose(manifest: Manifest, columns: Sequence[str]) -> tuple[list[Input], list[str]]:
    """The inputs of a manifest with no `-e`, and notes on the columns that were left out. Raises UsageError for none."""
    sample: dict[str, list[Cell]] = {c: [] for c in columns}
    for row in islice(manifest.rows(), SAMPLE_ROWS):
        for column, cell in row.items():
            if cell is not None:
                sample[column].append(cell)
    chosen: list[Input] = []
    notes: list[str] = []
    for column in columns:
        modality = None if column in NEVER_INPUTS else modality_of_column(sample[column])
        if modality is None:
            continue
        encoder = default_encoder(modality)
        if encoder is None:
            notes.append(f"column {column!r} holds {modality}, but no encoder for it is installed; left out ({STARTER})")
        else:
            chosen.append(Input(_unused(slug(column), chosen), (column,), encoder))
    if not chosen:
        raise UsageError("no column holds paths of pictures or sounds, or free text, that an installed encoder reads",
                         "; ".join([*notes, f"say which with -e COLUMN=ENCODER; columns: {', '.join(columns)}"]))
    return chosen, notes


def choose_aloud(manifest: Manifest, columns: Sequence[str]) -> list[Input]:
    """The same, and tells people what was chosen and left out."""
    chosen, notes = choose(manifest, columns)
    for note in notes:
        console.warn(note)
    console.say("encoders: " + " ".join(f"-e {shlex.quote(f'{i.name}={i.encoder}')}" for i in chosen))
    return chosen


def _unused(name: str, chosen: Sequence[Input]) -> str:
    taken = {i.name.casefold() for i in chosen}
    names = (name if n == 1 else f"{name}-{n}" for n in count(1))
    return next(n for n in names if n.casefold() not in taken)


def default_encoder(modality: str) -> str | None:
    """The best encoder that is installed for a modality."""
    installed = {p.name for p in plugins.found() if p.kind == "encoder"}
    return next((name for name in DEFAULT_ENCODERS.get(modality, ()) if name in installed), None)


def modality_of_column(cells: Sequence[Cell]) -> str | None:
    """image, audio or text for a column that reads as such; None for categories, numbers and the like."""
    if not cells:
        return None
    kinds = Counter(_modality_of_cell(cell) for cell in cells)
    kind, most = kinds.most_common(1)[0]
    if kind is None or most < 0.5 * len(cells):
        return None
    if kind == "text" and not is_free_text([str(c) for c in cells if isinstance(c, str)]) and \
            not isinstance(cells[0], Blob):
        return None
    return kind


def _modality_of_cell(cell: Cell) -> str | None:
    if isinstance(cell, Blob):
        return modality_of_bytes(cell.data) or modality_of_name(cell.name)
    assert cell is not None
    if cell.startswith("data:"):
        return cell[5:].partition("/")[0] if cell[5:11] in ("image/", "audio/") else "text"
    if len(cell) < 1024 and (by_name := modality_of_name(cell)) in ("image", "audio"):
        return by_name
    return "text"


def is_free_text(texts: Sequence[str]) -> bool:
    """Words, mostly different from row to row; not numbers, dates, codes or a handful of repeated values."""
    worded = sum(bool(re.search(r"[^\W\d_]{2,}", t)) for t in texts)
    several_words = sum(len(t.split()) > 1 for t in texts)
    distinct = len(set(texts)) / max(len(texts), 1)
    mean_chars = sum(map(len, texts)) / max(len(texts), 1)
    return worded >= 0.8 * len(texts) and (several_words >= 0.3 * len(texts) or mean_chars >= 40) \
        and (distinct > 0.3 or mean_chars >= 80)
