"""Opening any manifest as a stream of rows, and the scan that every long run begins with."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from json.encoder import encode_basestring_ascii
from pathlib import Path

from mmtool import console
from mmtool.errors import DataError, StorageError, UsageError
from mmtool.manifest import archives, delimited, parquet
from mmtool.manifest.lines import lines, marked
from mmtool.manifest.rows import Blob, Cell, Row, json_value, text_of, to_cell

TABLES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".parquet", ".pq")
TARS = (".tar", ".tar.gz", ".tgz")
HASHED_CHARS = 1 << 16
"""Rows of so many characters are hashed at once, which gives what one after the other would."""


@dataclass(frozen=True)
class Manifest:
    """A table of samples. `rows()` starts a new pass; relative paths in it start at `base`."""

    name: str
    base: Path
    notes: tuple[str, ...]
    rows: Callable[[], Iterator[Row]]


def is_manifest(name: str) -> bool:
    """Would `open_manifest` take it, as far as its name tells?"""
    return name == "-" or Path(name).is_dir() or name.lower().endswith(TABLES + TARS)


def open_manifest(name: str) -> Manifest:
    """A manifest by its path, or `-`. Raises MMToolError for what is not there or is no table."""
    if name == "-":
        return _open_stdin()
    path = Path(name)
    if not name:
        raise UsageError("the manifest's name is empty", "give a file or a folder; . is this one")
    if not path.exists():
        raise StorageError(f"{name} does not exist", "check the path of the manifest", code="E_NOT_FOUND")
    if not (path.is_dir() or path.is_file()):
        raise StorageError(f"{name} is neither a file nor a folder",
                           "a manifest is read more than once; - reads JSONL from a pipe", code="E_NOT_REGULAR")
    lower = path.name.lower()
    base = path if path.is_dir() else path.parent
    if path.is_dir():
        shards = sorted(p for p in path.iterdir() if p.name.lower().endswith(TARS))
        if shards:
            return Manifest(name, base, (), lambda: archives.tar_rows(shards))
        return Manifest(name, base, (), lambda: archives.folder_rows(path))
    if lower.endswith(TARS):
        return Manifest(name, base, (), lambda: archives.tar_rows([path]))
    if lower.endswith((".jsonl", ".ndjson")):
        return Manifest(name, base, (), lambda: _json_rows(path))
    if lower.endswith((".parquet", ".pq")):
        return Manifest(name, base, (), lambda: parquet.rows(path))
    if lower.endswith((".csv", ".tsv", ".tab", ".txt")):
        encoding, note = delimited.encoding_of(path)
        return Manifest(name, base, (note,) if note else (),
                        lambda: (row for _, row in delimited.columns_and_rows(path, encoding)[1]))
    raise UsageError(f"{name} is no manifest", "a manifest is .csv, .tsv, .jsonl, .parquet, .tar, a folder, or -")


def open_aloud(name: str) -> Manifest:
    """The same, and says aloud what is to be noted about it."""
    manifest = open_manifest(name)
    for note in manifest.notes:
        console.warn(note)
    return manifest


def _open_stdin() -> Manifest:
    if sys.stdin is None:
        raise UsageError("- reads JSONL from stdin, and stdin is closed", "give a file, or a pipe")
    spool = tempfile.NamedTemporaryFile(prefix="mmtool-", suffix=".jsonl")  # noqa: SIM115  lives as long as the manifest
    shutil.copyfileobj(sys.stdin.buffer, spool)
    spool.flush()
    return Manifest("-", Path.cwd(), (), lambda: _json_rows(Path(spool.name), "stdin"))


def json_row(line: bytes | str, where: str) -> Row:
    """One line of JSONL -> a row. Raises MMToolError for what is no object."""
    try:
        value = json_value(line)
        if isinstance(value, dict):
            return {text_of(k) or "": to_cell(v) for k, v in value.items()}
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error})", "each line must be one object", code="E_MANIFEST") from error
    raise DataError(f"{where}: a JSON {type(value).__name__}, not an object", "each line must be one object",
                    code="E_MANIFEST")


def _json_rows(path: Path, name: str = "") -> Iterator[Row]:
    with path.open("rb") as f:
        encoding = marked(f.read(4)) or "utf-8"
    for number, line in enumerate(lines(path, encoding, name), 1):
        if line.strip():
            yield json_row(line, f"{name or path}, line {number}")


@dataclass(frozen=True)
class Scan:
    """What one pass over a manifest tells: columns in order of appearance, rows, and a hash of the content."""

    columns: tuple[str, ...]
    rows: int
    sha256: str


def scan(manifest: Manifest) -> Scan:
    """Read the whole manifest once, in constant memory but for 8 bytes a row. Raises MMToolError for duplicate ids."""
    columns: dict[str, None] = {}
    digest = hashlib.sha256()
    hashes = array("q")
    records: list[str] = []
    held = 0
    names: tuple[str, ...] = ()
    heads: list[str] = []
    for number, row in enumerate(manifest.rows()):
        if tuple(row) != names:
            names = tuple(row)
            heads = [("{" if at == 0 else ", ") + json.dumps(name) + ": " for at, name in enumerate(names)]
            columns.update(dict.fromkeys(names))
        record = "".join([head + _json(cell) for head, cell in zip(heads, row.values(), strict=True)]) + "}" if row else "{}"
        records.append(record)
        held += len(record)
        if held > HASHED_CHARS:
            digest.update("".join(records).encode())
            records.clear()
            held = 0
        hashes.append(hash(row_id(row, number)))
    if not hashes:
        raise DataError(f"{manifest.name} has no rows", "there is nothing to read", code="E_MANIFEST")
    digest.update("".join(records).encode())
    _refuse_duplicates(manifest, hashes)
    return Scan(tuple(columns), len(hashes), digest.hexdigest())


def _json(cell: Cell) -> str:
    """As `json.dumps` writes it, which takes most of its time to begin."""
    if isinstance(cell, Blob):
        return f'"{hashlib.sha256(cell.data).hexdigest()}"'
    return "null" if cell is None else encode_basestring_ascii(cell)


def row_id(row: Row, number: int) -> str:
    """The row's `id`, or its number from 0 where it has none."""
    cell = row.get("id")
    return str(number) if cell is None else text_of(cell) or ""


def ids_and_rows(manifest: Manifest, first: int = 0) -> Iterator[tuple[str, Row]]:
    """Every row with its id, from the row `first` on."""
    for number, row in enumerate(islice(manifest.rows(), first, None), first):
        yield row_id(row, number), row


def filtered(manifest: Manifest, only: Callable[[Row], bool]) -> Manifest:
    """The rows of a manifest for which `only` is true, with the ids that they have in the whole."""
    def rows() -> Iterator[Row]:
        for name, row in ids_and_rows(manifest):
            if only(row):
                yield {**row, "id": name}

    return replace(manifest, rows=rows)


def _refuse_duplicates(manifest: Manifest, hashes: array[int]) -> None:
    """`hashes`: Python's own, of every id, which are sorted in place. Equal ones are looked at once more, as texts."""
    import numpy as np

    values = np.frombuffer(hashes, dtype=np.int64)
    values.sort()
    repeated = set(values[1:][values[1:] == values[:-1]].tolist())
    if not repeated:
        return
    places: dict[str, list[int]] = {}
    for number, row in enumerate(manifest.rows()):
        name = row_id(row, number)
        if hash(name) in repeated:
            places.setdefault(name, []).append(number)
    named = [f"{name!r} (rows {', '.join(map(str, at[:3]))})" for name, at in places.items() if len(at) > 1]
    if named:
        more = f" and {len(named) - 5} more" if len(named) > 5 else ""
        raise DataError(f"{manifest.name}: {len(named)} ids occur more than once: {', '.join(named[:5])}{more}",
                        "give each row its own id, or drop the column (rows are then numbered)", code="E_MANIFEST")
