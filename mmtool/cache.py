"""The content-addressed cache: packs of encoded cells, found by encoder fingerprint and content key.

A pack is one safetensors file with `keys [N, 32]`, `blocks [N, 8]` (which block a row was computed in), `lengths [N]`
and `values [sum T, D]`, sealed. Damaged packs, and those of an mmtool that sealed none, are dropped and computed again.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
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


def packs_of(folder: Path) -> list[str]:
    """The names of an encoder fingerprint's packs, sorted."""
    return sorted(p.name for p in folder.glob("*.safetensors")) if folder.is_dir() else []


@dataclass(frozen=True)
class _Pack:
    """An open pack: `keys [N, 32]`, `values [sum T, D]`, and where each row's begin in them."""

    keys: np.ndarray[Any, Any]
    values: Tensor
    starts: list[int]


class Cache:
    """The packs of one encoder fingerprint. `packs` restricts it to these names, for a run that is resumed."""

    def __init__(self, folder: Path, packs: Sequence[str] | None = None) -> None:
        self.folder = folder
        self._unusable = False
        self._verified: set[tuple[int, int, int]] = set()
        there = packs_of(folder)
        self.packs = there if packs is None else [p for p in there if p in set(packs)]
        indices = [self._index(name) for name in self.packs]
        self._starts = list(accumulate((len(keys) for keys, _ in indices), initial=0))
        flat = np.concatenate([np.zeros(0, np.uint64), *(keys for keys, _ in indices)])
        block = np.concatenate([np.zeros(0, np.uint64), *(blocks for _, blocks in indices)])
        del indices  # 16 bytes a row
        order = np.lexsort((block, flat))
        self.known: np.ndarray[Any, np.dtype[np.uint64]] = flat[order]
        self._blocks = block[order]
        self._place = order.astype(np.int32)  # in all packs, one after the other
        self._open = lru_cache(maxsize=8)(self._load)

    def _index(self, name: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """A pack's keys, 64 bits of each, and blocks."""
        try:
            found, _ = sealing.read_sealed(self.folder / name, ("keys", "blocks"))
            keys, blocks = found["keys"].numpy(), found["blocks"].numpy()
            rows = len(keys)
            if keys.dtype == np.uint8 == blocks.dtype and (keys.shape, blocks.shape) == ((rows, KEY_BYTES), (rows, 8)):
                return (keys[:, :8].copy().view(">u8").ravel().astype(np.uint64),
                        blocks.copy().view(">u8").ravel().astype(np.uint64))
        except (ArtefactError, StorageError):
            pass
        self._drop(name)
        return np.zeros(0, np.uint64), np.zeros(0, np.uint64)

    def _load(self, number: int) -> _Pack | None:
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
                return _Pack(pack["keys"].numpy(), values, [0, *lengths.cumsum(0).tolist()])
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
        prefix = np.uint64(int(key[:16], 16))
        first = int(self.known.searchsorted(prefix))
        if first == len(self.known) or self.known[first] != prefix:
            return None
        signature = np.uint64(int.from_bytes(block))
        last = int(self.known.searchsorted(prefix, "right"))
        equal = first + int(self._blocks[first:last].searchsorted(signature))
        places = ([equal] if equal < last and self._blocks[equal] == signature else []) + [first]
        for at in places:
            place = int(self._place[at])
            number = bisect_right(self._starts, place) - 1
            pack, row = self._open(number), place - self._starts[number]
            if pack is None or row >= len(pack.keys):
                continue  # evicted, damaged or replaced since: computed again
            if pack.keys[row].tobytes().hex() == key:
                return pack.values[pack.starts[row] : pack.starts[row + 1]], bool(self._blocks[at] == signature)
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
            "keys": torch.frombuffer(bytearray.fromhex("".join(keys)), dtype=torch.uint8).reshape(-1, KEY_BYTES),
            "blocks": torch.frombuffer(bytearray(b"".join(blocks)), dtype=torch.uint8).reshape(-1, 8),
            "lengths": torch.tensor([r.shape[0] for r in rows]), "values": torch.cat(list(rows))}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            files.write_bytes(self.folder / f"{name}.safetensors", sealing.sealed(tensors, {}))
        except OSError as error:  # a full or read-only cache must not cost the work that it would spare
            self._unusable = True
            console.warn(f"the cache {self.folder.parent} cannot be written ({error.strerror}); going on without it")
