"""Reading features back: the header, the rows, and tokens by row number, from memory maps. Every file is verified once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtool import tensorfile
from mmtool.api import Tokens
from mmtool.errors import ArtefactError, storage_error
from mmtool.features.format import ASSETS, ERRORS, FRONT, HEADER, ROWS, WEIGHTS, shard_name
from mmtool.features.header import AGAIN, read_header
from mmtool.mapped import Mapped
from mmtool.ragged import Ragged
from mmtool.sealing import altered, sha256_of_file
from mmtool.strictjson import Unsound
from mmtool.tensorfile import damaged

MAPS = 4096
"""Shards that stay mapped; what is read of them is the system's to keep or drop."""
ROWS_AT_ONCE = 256
_verified: set[tuple[Any, ...]] = set()
"""Files of this process that were found to be as they were written."""


class Features:
    """A finished features folder. Raises MMToolError where it is none, damaged, or of a newer format."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / HEADER
        if not path.is_file():
            partial = folder.with_name(folder.name + ".partial")
            raise ArtefactError(f"{folder} is no features folder",
                                f"{partial} is unfinished: run its extract again" if partial.exists()
                                else "make one with `mmtool extract`", code="E_ARTEFACT_KIND")
        self.header: dict[str, Any] = read_header(folder)
        self._starts = [0]
        for shard in self.header["shards"]:
            self._starts.append(self._starts[-1] + shard["rows"])
        self._shard = lru_cache(maxsize=MAPS)(self._load)

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs, sorted."""
        return sorted(self.header["inputs"])

    @property
    def note(self) -> str:
        """What is to be said of features whose files cannot all be verified; else empty."""
        return "" if self.header["digest"] else "of format 1: nothing but the shards can be verified; extract again for that"

    @cached_property
    def rows(self) -> Any:
        """rows.parquet, as a pyarrow table of strings."""
        from mmtool.features.rows import read_rows

        self._file(ERRORS)
        return read_rows(self._file(ROWS) or self.folder / ROWS, self.header, self.inputs)

    def assets(self, name: str) -> dict[str, Tensor]:
        """What the input's encoder learned in `fit`; empty where it learned nothing."""
        return self._tensors(f"{name}/{ASSETS}")

    def weights(self, name: str) -> dict[str, Tensor]:
        """The weights of the input's encoder, where a model brought them; else empty."""
        return self._tensors(f"{name}/{WEIGHTS}")

    def front(self) -> dict[str, Tensor]:
        """Of fused features: what is needed to make them from raw cells."""
        return self._tensors(f"fused/{FRONT}")

    def _tensors(self, name: str) -> dict[str, Tensor]:
        path = self._file(name)
        return {} if path is None else tensorfile.read(path, remedy=AGAIN)[0]

    def _file(self, name: str) -> Path | None:
        """A file beside the shards, verified; None where it is not there and should not be."""
        path, stated = self.folder / name, self.header["files"].get(name)
        if not self.header["digest"]:  # of format 1
            return path if path.exists() else None
        if (stated is None) == path.exists():
            raise damaged(path, "it is not there" if stated else "it is no part of what was written", AGAIN)
        if stated is not None:
            verify(path, stated)
        return path if stated is not None else None

    def verify(self) -> None:
        """Read every file and compare it with its sum. Raises ArtefactError for the first that is not what was written."""
        for name in self.header["files"]:
            self._file(name)
        for number, shard in enumerate(self.header["shards"]):
            for name in self.inputs:
                verify(self.folder / name / shard_name(number), shard["sha256"][name])

    def cells(self) -> dict[str, dict[str, int]]:
        """How many cells of each upstream input are ok, missing and bad."""
        from mmtool.features.rows import count_cells

        return count_cells(self._file(ROWS) or self.folder / ROWS, self.header, self.inputs)

    def tokens(self, name: str, rows: Sequence[int]) -> Tokens:
        """The tokens of some rows of an input, `[B, T, D]`."""
        return Tokens.from_rows([self._row(name, row) for row in rows], self.header["inputs"][name]["dim"])

    def ragged(self, name: str, rows: Sequence[int]) -> Ragged:
        """The same, read and padded only where it is looked at."""
        lengths = torch.tensor([len(self._row(name, row)) for row in rows], dtype=torch.int64)
        return Ragged(_Rows(self, name), torch.as_tensor(rows, dtype=torch.int64), lengths, self.header["inputs"][name]["dim"])

    def mapped(self, name: str, rows: Sequence[int]) -> Mapped:
        """One vector a row, of an input whose features are pooled; read only where it is looked at."""
        assert self.header["inputs"][name]["pooled"], "tokens are ragged"
        numbers = torch.as_tensor(rows, dtype=torch.int64)
        usable = torch.zeros(len(self), dtype=torch.bool)
        for number in sorted(set((torch.searchsorted(torch.tensor(self._starts), numbers, right=True) - 1).tolist())):
            usable[self._starts[number] : self._starts[number + 1]] = self._shard(name, number)[1].diff() > 0
        return Mapped(_Rows(self, name), numbers, usable[numbers], self.header["inputs"][name]["dim"])

    def _gather(self, name: str, numbers: Tensor, present: Tensor) -> Tensor:
        """A pass over the shards that hold the rows; of each all its rows at once."""
        out = torch.empty(len(numbers), self.header["inputs"][name]["dim"])
        if not bool(present.all()):
            out[~present] = 0
        starts = torch.tensor(self._starts)
        shards = torch.searchsorted(starts, numbers, right=True) - 1  # [n]
        order = torch.arange(len(numbers)) if bool((shards.diff() >= 0).all()) else shards.argsort(stable=True)
        order = order[present[order]]
        bounds = torch.searchsorted(shards[order], torch.arange(len(starts))).tolist()
        for number, (first, last) in enumerate(pairwise(bounds)):
            if first < last:
                values, before = self._shard(name, number)
                at = order[first:last]
                own = before[numbers[at] - self._starts[number]]
                if values.dtype == out.dtype and int(at[-1]) - int(at[0]) == last - first - 1:  # side by side
                    torch.index_select(values, 0, own, out=out[int(at[0]) : int(at[-1]) + 1])
                else:
                    out.index_copy_(0, at, values.index_select(0, own).float())
        return out

    def _row(self, name: str, row: int) -> Tensor:
        number = bisect_right(self._starts, row) - 1
        values, starts = self._shard(name, number)
        at = row - self._starts[number]
        return values[int(starts[at]) : int(starts[at + 1])]

    def _load(self, name: str, number: int) -> tuple[Tensor, Tensor]:
        path, about = self.folder / name / shard_name(number), self.header["inputs"][name]
        shard = self.header["shards"][number]
        verify(path, shard["sha256"][name])
        found = tensorfile.view(path, ("values", "lengths"), AGAIN)
        values, lengths = found["values"], found["lengths"]
        if not len(values):  # a shard without a usable cell does not know the width
            values = values.new_zeros(0, about["dim"])
        if lengths.dtype != torch.int64 or lengths.shape != (shard["rows"],) or not bool((lengths >= 0).all()) \
                or bool((lengths > len(values)).any()) or int(lengths.sum()) != len(values) \
                or (about["pooled"] and bool((lengths > 1).any())):
            raise damaged(path, "its lengths are none of its rows", AGAIN)
        if values.shape[1:] != (about["dim"],) or str(values.dtype) != f"torch.{about['dtype']}":
            raise damaged(path, f"its values are not {about['dim']} wide, of {about['dtype']}", AGAIN)
        if not all_finite(values):
            raise damaged(path, "it holds a value that is not finite", AGAIN)
        return values, torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])


def all_finite(values: Tensor) -> bool:
    """Is no value infinite or no number? `values [N, D]` may be mapped, and larger than what is free.

    A sum that is finite has no such part. `isfinite` makes copies, and what is left between them is memory that is lost.
    """
    if bool(values.sum(dtype=torch.float32).isfinite()):
        return True
    return all(bool(part.isfinite().all()) for part in torch.split(values, ROWS_AT_ONCE))


def verify(path: Path, sha256: str) -> None:
    """Raises ArtefactError where a file is not what was written; looks once a process, as long as it stays as it is."""
    try:
        stat = path.stat()
        known = (path.absolute(), stat.st_ino, stat.st_size, stat.st_mtime_ns, sha256)
        if known not in _verified:
            if sha256_of_file(path) != sha256:
                raise altered(path, "the file", AGAIN)
            _verified.add(known)
    except FileNotFoundError:
        raise damaged(path, "it is not there", AGAIN) from None
    except Unsound as error:
        raise damaged(path, str(error), AGAIN) from None
    except OSError as error:
        raise storage_error(error) from error


@dataclass(frozen=True)
class _Rows:
    """One input's rows in the files."""

    features: Features
    name: str

    def __getitem__(self, row: int) -> Tensor:
        return self.features._row(self.name, row)

    def gather(self, numbers: Tensor, present: Tensor) -> Tensor:
        return self.features._gather(self.name, numbers, present)
