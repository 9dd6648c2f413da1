"""Manifests that are folders of files or WebDataset tar shards: files that share a stem make a row."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmtool.errors import DataError
from mmtool.manifest.rows import Blob, Cell, Row, to_cell
from mmtool.media.sniff import modality_of_name

SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
          "calib": "calib", "calibration": "calib"}


def folder_rows(folder: Path) -> Iterator[Row]:
    """`[SPLIT/][CLASS/.../]FILE`: columns id, image, audio, text, and label and split where folders give them."""
    files = sorted((p for p in folder.rglob("*") if p.is_file() and modality_of_name(p.name)
                    and not any(part.startswith(".") for part in p.relative_to(folder).parts)),
                   key=lambda p: p.relative_to(folder).as_posix())
    if not files:
        raise DataError(f"{folder} holds no picture, sound or text file", "name a table or a folder of media files",
                        code="E_MANIFEST")
    has_split = all(p.relative_to(folder).parts[0] in SPLITS for p in files)
    taken: dict[str, set[str]] = {}
    rows: dict[str, Row] = {}
    for path in files:
        name = path.relative_to(folder).as_posix()
        modality = modality_of_name(path.name) or ""
        key = name.rpartition(".")[0]
        if modality in taken.setdefault(key, set()):  # a.jpg beside a.png: two rows
            key = name
        taken.setdefault(key, set()).add(modality)
        row = rows.setdefault(key, {"id": key})
        row[modality] = name
        parts = Path(name).parts[1:] if has_split else Path(name).parts
        if has_split:
            row["split"] = SPLITS[Path(name).parts[0]]
        if len(parts) > 1:
            row["label"] = parts[0]
    for row in rows.values():
        if isinstance(text := row.get("text"), str):  # read now, so that only one text is in memory
            row["text"] = _text_file(folder, text)
        yield row


def _text_file(folder: Path, name: str) -> Blob:
    try:
        return Blob(name, (folder / name).read_bytes())
    except OSError as error:
        return Blob(name, b"", error.strerror or str(error))


def tar_rows(shards: Iterable[Path]) -> Iterator[Row]:
    """WebDataset: consecutive members with one stem are a row; `0001.left.jpg` goes to column `left`."""
    for shard in shards:
        row: Row = {}
        current = ""
        try:
            with tarfile.open(shard, "r|*") as tar:
                for member in tar:
                    if not member.isfile() or Path(member.name).name.startswith("."):
                        continue
                    folder, _, base = member.name.rpartition("/")
                    stem, _, suffix = base.partition(".")
                    key = f"{folder}/{stem}" if folder else stem
                    if row and current != key:  # not row["id"], which a member may state
                        yield row
                        row = {}
                    current = key
                    row.setdefault("id", key)
                    stream = tar.extractfile(member)
                    data = stream.read() if stream else b""
                    for column, cell in _member_cells(shard, member.name, suffix.lower(), data):
                        row[column] = cell
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DataError(f"{shard}: not a whole tar file ({error})", "write it again", code="E_MANIFEST") from error
        if row:
            yield row


def _member_cells(shard: Path, name: str, suffix: str, data: bytes) -> Iterator[tuple[str, Cell]]:
    last = suffix.rpartition(".")[2]
    if last == "json":
        try:
            value = json.loads(data)
        except ValueError as error:
            raise DataError(f"{shard}, member {name}: not JSON ({error})", code="E_MANIFEST") from error
        yield from ((k, to_cell(v)) for k, v in (value if isinstance(value, dict) else {suffix: value}).items())
    elif last in ("cls", "id"):
        yield ("label" if last == "cls" else "id"), to_cell(data.decode("utf-8", "replace").strip())
    else:
        modality = modality_of_name("x." + last)
        prefix = suffix.rpartition(".")[0]
        yield (prefix or modality or suffix or "data"), to_cell(data, f"{shard.name}/{name}")
