"""The features folder as version 2 lays it out.

    features.json              header: format, base, inputs, numerics, rows, shards, SHA-256 of all
    rows.parquet               id, every manifest column as written, and `status:INPUT` for each input
    errors.jsonl               one object a bad cell: id, input, column, path, code, reason
    INPUT/00000.safetensors    values [sum T, D] and lengths [N]; T = 0 where the cell is missing or bad
    INPUT/assets.safetensors   what the encoder learned in `fit`, where it did
    INPUT/weights.safetensors  the encoder's weights, where a model brought them (`extract -m`)
    fused/front.safetensors    of fused features: what is needed to make them from raw cells (see `fuse`)
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtool import files
from mmtool.errors import StorageError

FORMAT = 2
ENGINE_REVISION = 2
"""Bumped when batches are run in another way, with other last bits; part of the features' numerics."""
BLOCK_ROWS = 256
"""Consecutive manifest rows that are batched among themselves only."""
HEADER, ROWS, ERRORS = "features.json", "rows.parquet", "errors.jsonl"
PROGRESS = ".progress.json"
"""In a folder that is being filled, and for an instant after it has its name."""
ASSETS, WEIGHTS, FRONT = "assets.safetensors", "weights.safetensors", "front.safetensors"
OF_INPUT = re.compile(rf"[0-9]{{5,}}\.safetensors|{'|'.join(map(re.escape, (ASSETS, WEIGHTS, FRONT)))}")
"""The files in an input's folder."""


def status_column(name: str) -> str:
    """The column of rows.parquet that tells how an input's cell fared: ok, missing, or the reason it failed."""
    return f"status:{name}"


def shard_rows(number: int, *, pooled: bool) -> int:
    """Rows of shard `number`: small at first, so that little is lost to a kill; larger later, where all are pooled."""
    return BLOCK_ROWS * (1 if number < 32 or not pooled else 4 if number < 128 else 16)


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"{number:05d}.safetensors"


def write_shard(path: Path, rows: Sequence[Tensor | None], dtype: torch.dtype) -> str:
    """Rows `[T_i, D]` (None: T = 0) as one file, `[0, 0]` where all are None; returns its SHA-256."""
    given = [row for row in rows if row is not None]
    values = torch.cat(given) if given else torch.zeros(0, 0, dtype=dtype)
    lengths = torch.tensor([0 if row is None else row.shape[0] for row in rows], dtype=torch.int64)
    return files.write_tensors(path, {"values": values, "lengths": lengths})


def check_target(folder: Path) -> None:
    """May features be written there? Raises MMToolError for a file, or a folder that holds anything else."""
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError:
        raise StorageError(f"{folder}: a path whose bytes are not UTF-8, which Parquet files cannot have", "choose another -o",
                           code="E_OUTPUT") from None
    if not folder.exists():
        parent = folder.absolute().parent
        if not parent.is_dir():
            raise StorageError(f"{folder}: the folder {parent} does not exist", "make it, or choose another -o",
                               code="E_NOT_FOUND")
        return
    if not folder.is_dir():
        raise StorageError(f"{folder} is a file", "choose another -o", code="E_OUTPUT")
    if folder.resolve() == Path.cwd() or folder.is_mount():
        raise StorageError(f"{folder} cannot be replaced as a whole", f"choose a folder inside it: -o {folder / 'feats'}",
                           code="E_OUTPUT")
    own = _own_names(folder)
    foreign = sorted(p.name for p in folder.iterdir() if p.name not in own)
    foreign += sorted(str(p.relative_to(folder)) for p in folder.glob("*/*")
                      if not OF_INPUT.fullmatch(p.name) and not p.name.startswith(files.PREFIX))
    if foreign:
        raise StorageError(f"{folder} holds {foreign[0]!r}, which is no part of features",
                           "choose another -o; nothing was overwritten", code="E_OUTPUT")


def _own_names(folder: Path) -> set[str]:
    try:
        header = json.loads((folder / HEADER).read_bytes())
        inputs = set(header["inputs"]) if "shards" in header else set()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()
    return inputs | {HEADER, ROWS, ERRORS, PROGRESS}


def numerics(device: torch.device, precision: str, backend: str = "torch") -> dict[str, Any]:
    """What can change last bits but not meaning: backend, device, precision, decoder revision, library versions."""
    from mmtool.cells import DECODER_REVISION

    versions = _versions()
    if backend == "openvino":
        from importlib.metadata import version

        versions = {**versions, backend: version(backend)}
    return {"backend": backend, "engine": ENGINE_REVISION, "device": device.type, "precision": precision,
            "decoder": DECODER_REVISION, "versions": dict(versions)}


@cache
def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    libraries = ("torch", "torchaudio", "timm", "numpy", "pillow", "soundfile", "soxr", "sentencepiece", "scikit-learn")
    found = {name: version(name) for name in libraries}
    with suppress(PackageNotFoundError):  # pictures are decoded by Pillow then, with its own libjpeg
        found["simplejpeg"] = version("simplejpeg")
    return found
