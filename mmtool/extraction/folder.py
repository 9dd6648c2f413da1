"""The features folder while it is being filled: `FEATURES.partial`, renamed to FEATURES when all is there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from mmtool import console, files, folders, sealing
from mmtool.errors import StorageError
from mmtool.extraction.blocks import Encoded
from mmtool.features import rows as rows_file
from mmtool.features.format import ERRORS, HEADER, PROGRESS, ROWS, check_target, shard_name, shard_rows, write_shard
from mmtool.features.header import seal
from mmtool.features.part import Part

PARTS = ".parts"


class Partial:
    """An unfinished features folder. A shard counts once its rows (`.parts/N.parquet`, written last) are there.

    `.progress.json` is written first and goes last, when the folder has its final name: whatever holds it is of this run.
    """

    def __init__(self, target: Path, *, pooled: bool) -> None:
        self.target = target = target.resolve()
        self.pooled = pooled
        self.folder = target.with_name(target.name + ".partial")

    def begin(self, state: dict[str, Any]) -> dict[str, Any]:
        """Resume what has the same `plan`, else start anew with `state`; returns the state that holds.

        The caller holds the lock of the target.
        """
        files.sweep(self.target.parent)
        self._mend()
        before = sealing.read_json(self.folder / PROGRESS)
        if before is not None and before.get("plan") == state["plan"]:
            for folder in (self.folder, *(p for p in self.folder.iterdir() if p.is_dir())):
                files.sweep(folder)
            folders.make_folder(self.folder / PARTS)
            return before
        if before is not None:
            console.say(f"{self.folder} was left by a run over other rows, or with other encoders, settings or versions; "
                        "starting anew")
        if self.folder.exists():
            files.sweep(self.folder)
            if before is None and any(self.folder.iterdir()):
                raise StorageError(f"{self.folder} is in the way and is no unfinished features folder", "move it away",
                                   code="E_OUTPUT")
            folders.remove(self.folder)
        folders.make_folder(self.folder)
        sealing.write_json(self.folder / PROGRESS, state)
        folders.make_folder(self.folder / PARTS)
        return state

    def _mend(self) -> None:
        """End what a killed `place` began. The target holds PROGRESS only then: without it, nothing here is ours to remove."""
        folders.mend(self.target)
        if (self.target / PROGRESS).exists():
            if (self.folder / HEADER).exists() and not (self.folder / PROGRESS).exists():  # exchanged, just not yet removed
                folders.remove(self.folder)
            (self.target / PROGRESS).unlink()

    @property
    def shards_done(self) -> int:
        """Leading shards that are whole."""
        number = 0
        while self._part(number).exists():
            number += 1
        return number

    @property
    def rows_done(self) -> int:
        """Rows that the whole shards can hold."""
        return sum(shard_rows(n, pooled=self.pooled) for n in range(self.shards_done))

    def _part(self, number: int) -> Path:
        return self.folder / PARTS / f"{number:05d}.parquet"

    def write_tensors(self, name: str, file: str, tensors: dict[str, Tensor]) -> None:
        """Keep what an encoder learned in `fit`, or the weights that a model brought."""
        folders.make_folder(self.folder / name)
        files.write_tensors(self.folder / name / file, {k: v.detach().cpu().clone() for k, v in tensors.items()})

    def write(self, number: int, part: Part, encoded: dict[str, list[Encoded]], dtype: Any,
              columns: Sequence[str]) -> None:
        """One whole shard: every input's tokens, then its rows, which tell the SHA-256 of what was written before."""
        part.notes["sha256"] = {}
        for name, blocks in encoded.items():
            folders.make_folder(self.folder / name)
            part.notes["sha256"][name] = write_shard(
                self.folder / name / shard_name(number), [r for b in blocks for r in b.rows], dtype)
        rows_file.write_part(self._part(number), part, columns)

    def counts(self, inputs: Sequence[str], shards: int) -> list[rows_file.Count]:
        """What each whole shard amounts to."""
        return [rows_file.count(self._part(n), inputs) for n in range(shards)]

    def notes(self, kind: str) -> dict[str, Any]:
        """What the last whole shard noted of each input; empty where there is none."""
        done = self.shards_done
        return rows_file.notes(self._part(done - 1)).get(kind, {}) if done else {}

    def finish(self, header: dict[str, Any], inputs: dict[str, tuple[str, ...]]) -> None:
        """Join the rows, write the header, and put the folder in its place, where old features are replaced."""
        parts = [self._part(n) for n in range(len(header["shards"]))]
        rows_file.join(parts, self.folder / ROWS)
        rows_file.write_errors(parts, self.folder / ERRORS, inputs)
        seal(self.folder, header)
        self.place(header)

    def place(self, header: dict[str, Any]) -> None:
        """All is there: put the folder in its place. At every instant whole features have that name, old or new."""
        check_target(self.target)  # once more: what somebody put there in the meantime is not ours to remove
        self._say_replaced(header)
        folders.remove(self.folder / PARTS)
        folders.put_in_place(self.folder, self.target)
        (self.target / PROGRESS).unlink()
        files.sync_folder(self.target)

    def _say_replaced(self, header: dict[str, Any]) -> None:
        try:
            before = json.loads((self.target / HEADER).read_bytes())
        except (OSError, ValueError):
            return
        for what, key in (("rows", "manifest"), ("inputs", "inputs")):
            if before.get(key) != header[key]:
                console.warn(f"the features in {self.target}, of other {what}, are replaced")
                return

    def width(self, name: str, shards: int) -> int | None:
        """The width of an input's tokens, from the first shard that has any."""
        for number in range(shards):
            with safe_open(self.folder / name / shard_name(number), framework="pt") as f:
                shape: list[int] = f.get_slice("values").get_shape()
            if shape[0]:
                return shape[1]
        return None
