"""Manifests that are folders of files or WebDataset tar shards: files that share a stem make a row."""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmtool.errors import DataError, storage_error
from mmtool.manifest.rows import Blob, Cell, Row, json_value, to_cell
from mmtool.media.limits import Limits
from mmtool.media.sniff import modality_of_name

SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
          "calib": "calib", "calibration": "calib"}


MOST_BYTES = Limits().max_file_bytes
TOO_LARGE = f"it is over the limit of {MOST_BYTES} bytes"


def folder_rows(folder: Path) -> Iterator[Row]:
    """`[SPLIT/][CLASS/.../]FILE`: columns id, image, audio, text, and label and split where folders give them."""
    files = sorted(_media(folder), key=lambda p: p.relative_to(folder).as_posix())
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


def _media(folder: Path) -> Iterator[Path]:
    """Files whose names are a medium's, in a folder and below; never behind a link to a folder, since it may lead back.

    Raises StorageError for a folder that cannot be listed: its rows would be lost without a word.
    """
    def refuse(error: OSError) -> None:
        raise storage_error(error)

    for at, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and modality_of_name(name) and _is_regular(path := Path(at, name)):
                yield path


def _is_regular(path: Path) -> bool:
    """Also of a link; a pipe, a socket or a device is none, nor is a link to nothing or to itself."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _text_file(folder: Path, name: str) -> Blob:
    try:
        path = folder / name
        if path.stat().st_size > MOST_BYTES:
            return Blob(name, b"", TOO_LARGE)
        return Blob(name, path.read_bytes())
    except OSError as error:
        return Blob(name, b"", error.strerror or str(error))


_END: type[tarfile.HeaderError] = tarfile.EOFHeaderError  # type: ignore[attr-defined]
_BROKEN: type[tarfile.HeaderError] = tarfile.SubsequentHeaderError  # type: ignore[attr-defined]
"""The library takes this one for an error, and all others for the end."""


class _Member(tarfile.TarInfo):
    """A header of a tar file. The library takes a broken one, or none, for the end: rows would be lost without a word."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _Member:
        try:
            found = super().fromtarfile(tarfile_)
        except (_END, _BROKEN):  # two blocks of zeros, as there should be; or said already
            raise
        except tarfile.HeaderError as error:
            raise _BROKEN(f"at byte {tarfile_.offset}: {error}") from error
        if found.size < 0:
            raise _BROKEN(f"at byte {tarfile_.offset}: a size below 0")
        return found


@contextmanager
def _opened(shard: Path) -> Iterator[tarfile.TarFile]:
    """The shard as a stream; what gzip says of the whole is checked at its end."""
    with shard.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        f = gzip.GzipFile(fileobj=raw) if zipped else raw
        with tarfile.open(fileobj=f, mode="r|*", tarinfo=_Member) as tar:
            yield tar
        while zipped and f.read(1 << 20):
            pass


def tar_rows(shards: Iterable[Path]) -> Iterator[Row]:
    """WebDataset: consecutive members with one stem are a row; `0001.left.jpg` goes to column `left`.

    Nothing is unpacked: a member's name is a name only, and links and devices are no cells. Raises DataError for a shard that
    is not whole.
    """
    for shard in shards:
        row: Row = {}
        current = ""
        try:
            with _opened(shard) as tar:
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
                    for column, cell in _member_cells(shard, tar, member, suffix.lower()):
                        row[column] = cell
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise DataError(f"{shard}: not a whole tar file ({error})", "write it again", code="E_MANIFEST") from error
        if row:
            yield row


def _member_cells(shard: Path, tar: tarfile.TarFile, member: tarfile.TarInfo, suffix: str) -> Iterator[tuple[str, Cell]]:
    name, last = member.name, suffix.rpartition(".")[2]
    if member.size > MOST_BYTES and last in ("json", "cls", "id"):
        raise DataError(f"{shard}, member {name}: {member.size} bytes are over the limit of {MOST_BYTES}",
                        "take it out of the shard", code="E_MANIFEST_LIMIT")
    stream = tar.extractfile(member)
    assert stream is not None  # a regular file
    if too_large := member.size > MOST_BYTES:
        while stream.read(1 << 20):  # so that a size that the file does not have is seen
            pass
    data = b"" if too_large else stream.read()
    if last == "json":
        try:
            value = json_value(data)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{shard}, member {name}: not JSON ({error})", code="E_MANIFEST") from error
        yield from ((k, to_cell(v)) for k, v in (value if isinstance(value, dict) else {suffix: value}).items())
    elif last in ("cls", "id"):
        yield ("label" if last == "cls" else "id"), to_cell(data.decode("utf-8", "replace").strip())
    else:
        modality = modality_of_name("x." + last)
        prefix = suffix.rpartition(".")[0]
        cell = to_cell(data, f"{shard.name}/{name}") if not too_large else Blob(f"{shard.name}/{name}", b"", TOO_LARGE)
        yield (prefix or modality or suffix or "data"), cell
