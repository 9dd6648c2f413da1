"""Reading features back: the header, the rows, and tokens by row number, from memory maps."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from mmtool.api import Tokens
from mmtool.errors import ArtefactError
from mmtool.features.format import ASSETS, FORMAT, HEADER, ROWS, WEIGHTS, shard_name
from mmtool.ragged import Ragged

MAPS = 4096
"""Shards that stay mapped; what is read of them is the system's to keep or drop."""


class Features:
    """A finished features folder. Raises MMToolError where it is none, or of a newer format."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / HEADER
        if not path.is_file():
            partial = folder.with_name(folder.name + ".partial")
            raise ArtefactError(f"{folder} is no features folder",
                                f"{partial} is unfinished: run its extract again" if partial.exists()
                                else "make one with `mmtool extract`", code="E_ARTEFACT_KIND")
        try:
            self.header: dict[str, Any] = json.loads(path.read_bytes())
            version = self.header["format"]
            stated = {"columns", "options", "identity", "pooled", "dim", "encoder", "package"}
            for name, about in self.header["inputs"].items():
                if absent := sorted(stated - set(about)):
                    raise KeyError(f"input {name!r} states no {absent[0]}")
            rows = [int(shard["rows"]) for shard in self.header["shards"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ArtefactError(f"{path} is damaged ({error})", "extract again") from error
        if version != FORMAT:
            raise ArtefactError(f"{path} has format {version}, this mmtool reads {FORMAT}", "upgrade mmtool",
                                code="E_ARTEFACT_VERSION")
        self._starts = [0]
        for count in rows:
            self._starts.append(self._starts[-1] + count)
        self._shard = lru_cache(maxsize=MAPS)(self._load)

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs, sorted."""
        return sorted(self.header["inputs"])

    @cached_property
    def rows(self) -> Any:
        """rows.parquet, as a pyarrow table of strings."""
        import pyarrow.parquet as pq

        return pq.read_table(self.folder / ROWS)

    def assets(self, name: str) -> dict[str, Tensor]:
        """What the input's encoder learned in `fit`; empty where it learned nothing."""
        path = self.folder / name / ASSETS
        return load_file(path) if path.exists() else {}

    def weights(self, name: str) -> dict[str, Tensor]:
        """The weights of the input's encoder, where a model brought them; else empty."""
        path = self.folder / name / WEIGHTS
        return load_file(path) if path.exists() else {}

    def tokens(self, name: str, rows: Sequence[int]) -> Tokens:
        """The tokens of some rows of an input, `[B, T, D]`."""
        return Tokens.from_rows([self._row(name, row) for row in rows], self.header["inputs"][name]["dim"])

    def ragged(self, name: str, rows: Sequence[int]) -> Ragged:
        """The same, read and padded only where it is looked at."""
        lengths = torch.tensor([len(self._row(name, row)) for row in rows], dtype=torch.int64)
        return Ragged(_Rows(self, name), torch.as_tensor(rows, dtype=torch.int64), lengths, self.header["inputs"][name]["dim"])

    def _row(self, name: str, row: int) -> Tensor:
        number = bisect_right(self._starts, row) - 1
        values, starts = self._shard(name, number)
        at = row - self._starts[number]
        return values[int(starts[at]) : int(starts[at + 1])]

    def _load(self, name: str, number: int) -> tuple[Tensor, Tensor]:
        path = self.folder / name / shard_name(number)
        try:
            with safe_open(path, framework="pt") as f:
                values, lengths = f.get_tensor("values"), f.get_tensor("lengths")
        except (SafetensorError, OSError) as error:
            raise ArtefactError(f"{path} cannot be read ({error})", "extract again") from error
        if not len(values):  # a shard without a usable cell does not know the width
            values = values.new_zeros(0, self.header["inputs"][name]["dim"])
        return values, torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])


@dataclass(frozen=True)
class _Rows:
    """One input's rows in the files."""

    features: Features
    name: str

    def __getitem__(self, row: int) -> Tensor:
        return self.features._row(self.name, row)
