"""The content-addressed cache: packs of encoded cells, found by encoder fingerprint and content key.

A pack is one safetensors file with `keys [N, 32]`, `blocks [N, 8]` (which block a row was computed in), `lengths [N]`
and `values [sum T, D]`, sealed. Damaged packs, and those of an mmtool that sealed none, are dropped and computed again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from platformdirs import user_cache_path
from torch import Tensor

from mmtool import console, files, sealing, tensorfile
from mmtool.errors import ArtefactError, StorageError, UsageError

DEFAULT_BYTES = 10 * 2**30
KEY_BYTES = 32


def home() -> Path:
    """MMTOOL_CACHE, or the user's cache folder."""
    return Path(os.environ.get("MMTOOL_CACHE") or user_cache_path("mmtool", appauthor=False)) / "cells"


def evict(root: Path, limit_bytes: int | None = None) -> None:
    """Drop the packs that were used longest ago until the rest fits (MMTOOL_CACHE_BYTES, 10 GiB by default)."""
    text = os.environ.get("MMTOOL_CACHE_BYTES", str(DEFAULT_BYTES))
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"MMTOOL_CACHE_BYTES={text!r} is no number of bytes")
    limit = int(text) if limit_bytes is None else limit_bytes
    packs = []
    for path in root.glob("*/*.safetensors"):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        packs.append((stat.st_mtime, stat.st_size, path))
    total = sum(size for _, size, _ in packs)
    for _, size, path in sorted(packs):
        if total <= limit:
            break
        path.unlink(missing_ok=True)
        total -= size


class Cache:
    """The packs of one encoder fingerprint. `packs` restricts it to these names, for a run that is resumed."""

    def __init__(self, folder: Path, packs: Sequence[str] | None = None) -> None:
        self.folder = folder
        self._unusable = False
        self._verified: set[tuple[int, int, int]] = set()
        there = sorted(p.name for p in folder.glob("*.safetensors")) if folder.is_dir() else []
        self.packs = there if packs is None else [p for p in there if p in set(packs)]
        keys, blocks, where = [], [], []
        for number, name in enumerate(self.packs):
            stored = self._index(name)
            keys.append(stored["keys"][:, :8].copy().view(">u8").ravel().astype(np.uint64))
            blocks.append(stored["blocks"].copy().view(">u8").ravel().astype(np.uint64))
            where.append(np.stack([np.full(len(keys[-1]), number), np.arange(len(keys[-1]))], 1))
        flat = np.concatenate(keys) if keys else np.zeros(0, np.uint64)
        block = np.concatenate(blocks) if blocks else np.zeros(0, np.uint64)
        place = np.concatenate(where) if where else np.zeros((0, 2), np.int64)
        order = np.lexsort((block, flat))
        self.known: np.ndarray[Any, np.dtype[np.uint64]] = flat[order]
        self._blocks = block[order]
        self._place = place[order].astype(np.int32)
        self._open = lru_cache(maxsize=8)(self._load)

    def _index(self, name: str) -> dict[str, np.ndarray[Any, Any]]:
        try:
            found, _ = sealing.read_sealed(self.folder / name, ("keys", "blocks"))
            keys, blocks = found["keys"].numpy(), found["blocks"].numpy()
            rows = len(keys)
            if keys.dtype == np.uint8 == blocks.dtype and (keys.shape, blocks.shape) == ((rows, KEY_BYTES), (rows, 8)):
                return {"keys": keys, "blocks": blocks}
        except (ArtefactError, StorageError):
            pass
        self._drop(name)
        return {"keys": np.zeros((0, KEY_BYTES), np.uint8), "blocks": np.zeros((0, 8), np.uint8)}

    def _load(self, number: int) -> tuple[dict[str, Tensor], Tensor] | None:
        """A pack, verified; None where it is gone or damaged.

        Rows that come in another order open packs again and again: the sums are made at the first time.
        """
        path = self.folder / self.packs[number]
        try:
            stat = path.stat()
            same = (number, stat.st_ino, stat.st_size)
            pack = tensorfile.read(path)[0] if same in self._verified else sealing.read_sealed(path)[0]
            lengths, values = pack["lengths"], pack["values"]
            if lengths.dtype == torch.int64 and lengths.shape == (len(pack["keys"]),) and values.dim() == 2 and \
                    bool((lengths >= 0).all() and (lengths <= len(values)).all()) and int(lengths.sum()) == len(values):
                os.utime(path)
                self._verified.add(same)
                return pack, torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        except (ArtefactError, StorageError, OSError, KeyError):
            pass
        self._drop(path.name)
        return None

    def _drop(self, name: str) -> None:
        """It is computed again; where even that is forbidden, it stays and is passed over."""
        with suppress(OSError):
            (self.folder / name).unlink(missing_ok=True)

    def get(self, key: str, block: bytes) -> tuple[Tensor, bool] | None:
        """The row's tokens `[T, D]`, and whether they were computed in an equal block (preferred), or None."""
        prefix, signature = np.uint64(int(key[:16], 16)), np.uint64(int.from_bytes(block))
        first, last = (int(np.searchsorted(self.known, prefix, side)) for side in ("left", "right"))
        equal = first + int(np.searchsorted(self._blocks[first:last], signature))
        places = ([equal] if equal < last and self._blocks[equal] == signature else []) + ([first] if first < last else [])
        for at in places:
            number, row = (int(v) for v in self._place[at])
            opened = self._open(number)
            if opened is None or row >= len(opened[0]["keys"]):
                continue  # evicted, damaged or replaced since: computed again
            pack, starts = opened
            if bytes(pack["keys"][row].tolist()).hex() == key:
                return pack["values"][int(starts[row]) : int(starts[row + 1])], bool(self._blocks[at] == signature)
        return None

    def put(self, entries: Sequence[tuple[str, bytes, Tensor]]) -> None:
        """Keep rows as one pack: content key, signature of the block, tokens `[T, D]`."""
        if not entries:
            return
        keys, blocks, rows = ([e[0] for e in entries], [e[1] for e in entries], [e[2] for e in entries])
        if self._unusable:
            return
        name = hashlib.sha256("".join(keys).encode() + b"".join(blocks)).hexdigest()[:32]
        tensors = {
            "keys": torch.tensor([list(bytes.fromhex(k)) for k in keys], dtype=torch.uint8),
            "blocks": torch.tensor([list(b) for b in blocks], dtype=torch.uint8),
            "lengths": torch.tensor([len(r) for r in rows]), "values": torch.cat(list(rows))}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            files.write_bytes(self.folder / f"{name}.safetensors", sealing.sealed(tensors, {}))
        except OSError as error:  # a full or read-only cache must not cost the work that it would spare
            self._unusable = True
            console.warn(f"the cache {self.folder.parent} cannot be written ({error.strerror}); going on without it")
