"""features.json: what it must look like, the SHA-256 of every other file of the folder in it, and older formats.

    format 1    SHA-256 of the shards only
    format 2    `files`: SHA-256 of every file beside the shards; `digest`: of features.json itself, without `digest`
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmtool import files
from mmtool.errors import ArtefactError, storage_error
from mmtool.features.format import ASSETS, ERRORS, FORMAT, FRONT, HEADER, ROWS, WEIGHTS
from mmtool.schema import anything, either, fields, flag, like, listed, null, number, one_of, table, text, whole
from mmtool.sealing import altered, sha256_of_file, sha256_of_json
from mmtool.strictjson import Unsound, strict_json
from mmtool.tensorfile import damaged, open_plain

AGAIN = "extract again"
MOST_DIMS, MOST_INPUTS, MOST_BYTES = 1 << 20, 1000, 1 << 28
SLUG = like(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}", "an input's name, of letters, digits, '_', '.' and '-'")
WORD, SUM = text(1000), like(r"[0-9a-f]{64}", "a SHA-256")
PATH_OPTION = fields({"file": like(r"[^/\\\x00-\x1f]{1,255}", "the base name of a file"), "sha256": SUM})
SCALAR = either(null, flag, number(), text(10_000))
OPTIONS = table(either(SCALAR, PATH_OPTION), WORD, 1000)
IDENTITY = fields({"name": WORD, "options": table(SCALAR, WORD, 1000), "revision": whole(-(1 << 31), 1 << 31), "weights": WORD,
                   "assets": SUM})
INPUT = {"columns": listed(text(10_000), 100_000), "modality": WORD, "encoder": text(10_000), "package": WORD,
         "options": OPTIONS, "identity": IDENTITY, "pooled": flag, "dim": whole(1, MOST_DIMS),
         "dtype": one_of("float32", "float16", "bfloat16"), "limits": table(number(0), WORD, 100), "fitted": flag}
FUSION = fields({"name": WORD, "options": table(SCALAR, WORD, 1000)})
RULE = fields({
    "format": whole(1), "base": text(10_000), "rows": whole(), "columns": listed(text(10_000)), "manifest": WORD,
    "block_rows": whole(1, 1 << 31), "inputs": table(fields(INPUT, {"weights": WORD}), SLUG, MOST_INPUTS), "numerics": anything,
    "shards": listed(fields({"rows": whole(1, 1 << 31), "sha256": table(SUM, SLUG, MOST_INPUTS)})),
    "files": table(SUM, text(300), 4 * MOST_INPUTS), "digest": either(SUM, one_of(""))}, {
    "upstream": fields({"inputs": table(fields(INPUT, {"weights": WORD}), SLUG, MOST_INPUTS),
                        "front": fields({"fusion": FUSION, "identity": IDENTITY})})})


def _from_1(header: dict[str, Any]) -> dict[str, Any]:
    """Only the shards' sums were written; an empty digest says that nothing else can be verified."""
    return {**header, "format": 2, "files": {}, "digest": ""}


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}
"""From each older format to the next one."""


def migrated(header: Any, current: int, steps: dict[int, Callable[[dict[str, Any]], dict[str, Any]]], name: Path,
             remedy: str) -> dict[str, Any]:
    """A header as `current` has it. Raises ArtefactError for a newer format, for none, and for one that is read no more."""
    version = header.get("format") if isinstance(header, dict) else None
    if type(version) is not int or version < 1:
        raise damaged(name, "it states no format", remedy)
    if version > current:
        raise ArtefactError(f"{name} has format {version}, this mmtool reads {current} and older", "upgrade mmtool",
                            code="E_ARTEFACT_VERSION")
    while version < current:
        if version not in steps:
            raise ArtefactError(f"{name} has format {version}, which this mmtool reads no more", remedy,
                                code="E_ARTEFACT_VERSION")
        header = steps[version](header)
        version += 1
    return dict(header)


def read_header(folder: Path) -> dict[str, Any]:
    """The header of a features folder, verified and checked; of an older format with an empty `digest`.

    Raises ArtefactError, StorageError.
    """
    path = folder / HEADER
    try:
        with open_plain(path) as f:
            data = f.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise Unsound("it is too large")
        found = strict_json(data)
        newest = isinstance(found, dict) and found.get("format") == FORMAT
        header = migrated(found, FORMAT, MIGRATIONS, path, AGAIN)
        if newest and header.get("digest") != digest_of(header):
            raise altered(path, "the file", AGAIN)
        _check(header)
        return header
    except Unsound as error:
        raise damaged(path, str(error), AGAIN) from None
    except OSError as error:
        raise storage_error(error) from error


def _check(header: dict[str, Any]) -> None:
    RULE(header, "the header")
    inputs = header["inputs"]
    if header.get("upstream") and set(inputs) != {"fused"}:
        raise Unsound("it is of fused features, which have one input, 'fused'")
    if header["rows"] != sum(shard["rows"] for shard in header["shards"]):
        raise Unsound(f"it states {header['rows']} rows, and others for its shards")
    for at, shard in enumerate(header["shards"]):
        if set(shard["sha256"]) != set(inputs):
            raise Unsound(f"shard {at} has other inputs than the header")
    if strange := sorted(set(header["files"]) - set(_names(inputs))):
        raise Unsound(f"it names the file {strange[0]!r}, which is none of features")


def digest_of(header: dict[str, Any]) -> str:
    """SHA-256 of all that a header says besides."""
    return sha256_of_json({k: v for k, v in header.items() if k != "digest"})


def _names(inputs: Any) -> list[str]:
    return [ROWS, ERRORS, *(f"{name}/{file}" for name in sorted(inputs) for file in (ASSETS, WEIGHTS, FRONT))]


def seal(folder: Path, header: dict[str, Any]) -> None:
    """Write features.json, the last file of a folder, with the SHA-256 of every other one."""
    there = [name for name in _names(header["inputs"]) if (folder / name).exists()]
    header = {**header, "files": {name: sha256_of_file(folder / name) for name in there}}
    files.write_json(folder / HEADER, {**header, "digest": digest_of(header)})
