"""The cells of inputs that are read again and again in training: decoded once, then taken from a memory map."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmtool import cells, files
from mmtool.api import Encoder
from mmtool.cells import Raw, Source
from mmtool.errors import DataError
from mmtool.readers import Readers
from mmtool.reading import Job, Task

MOST_BYTES = 16 * 2**30
"""What does not fit is decoded anew whenever it is needed."""
TASK_CELLS = 16
NOTHING = np.zeros(0, np.uint64)


class _Keep(Encoder):
    """Stands in for an encoder in the readers: what `prepare` gets, as a tensor that can be kept."""

    api = 1

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.image_size_px, self.sample_rate_hz = encoder.image_size_px, encoder.sample_rate_hz

    def prepare(self, cell: Any) -> Tensor:
        """A picture or a sound as it is; anything else as bytes."""
        if isinstance(cell, Tensor):
            return cell
        data = cell if isinstance(cell, bytes) else json.dumps(cell).encode()
        return torch.frombuffer(bytearray(b"b" + data if isinstance(cell, bytes) else b"j" + data), dtype=torch.uint8)


@dataclass
class CellStore:
    """The cells of one input for N rows. `statuses` holds ok, missing or what is wrong for each."""

    source: Source
    encoder: Encoder
    prepared: bool
    """Is what is kept the output of the encoder's `prepare`, not what goes into it?"""
    statuses: list[str]
    places: list[tuple[int, list[int]] | None]
    """Where a row's cell starts in the file, in items, and its shape; None: not kept."""
    raws: dict[int, Raw]
    values: np.ndarray[Any, Any]

    def length(self, row: int) -> int:
        """How long a row's cell is on its first axis, as far as that can differ: 0 for pictures and for what is not kept."""
        place = self.places[row]
        return 0 if place is None or self.source.modality == "image" else place[1][0]

    def decoded(self, row: int) -> Any:
        """What `Encoder.prepare` gets. Raises CellError where the file has changed since."""
        assert not self.prepared
        place = self.places[row]
        if place is None:
            content, _ = cells.load(self.raws[row], self.source)
            return cells.decode(content, self.source, self.encoder)
        kept = self._tensor(place)
        if self.source.modality in ("image", "audio"):
            return kept
        data = kept.numpy().tobytes()
        return data[1:] if data[:1] == b"b" else json.loads(data[1:])

    def prepared_cell(self, row: int) -> Tensor:
        """What `Encoder.prepare` gave."""
        place = self.places[row]
        if place is None:
            content, _ = cells.load(self.raws[row], self.source)
            return cells.prepare(content, self.source, self.encoder)
        return self._tensor(place)

    def _tensor(self, place: tuple[int, list[int]]) -> Tensor:
        start, shape = place
        return torch.from_numpy(np.array(self.values[start : start + int(np.prod(shape))])).reshape(shape)

    def cells(self, rows: Iterable[int]) -> Iterator[Any]:
        """The decoded cells of some rows, unusable ones left out: what `Encoder.fit` gets."""
        for row in rows:
            if self.statuses[row] == "ok":
                yield self.decoded(row)


def read(folder: Path, name: str, raws: Callable[[], Iterable[Raw]], source: Source, encoder: Encoder, *, prepared: bool,
         workers: int, advance: Callable[[float], None]) -> CellStore:
    """Decode every cell once into `folder`, or take what an earlier run left there whole.

    `raws` goes through the cells as written; they are not held in memory, since a cell may hold a whole picture.
    """
    data, index = folder / f"{name}.bin", folder / f"{name}.json"
    if index.exists():
        about = json.loads(index.read_bytes())
    else:
        keeper = encoder if prepared else _Keep(encoder)
        about = _fill(data, raws(), Job(source, keeper, NOTHING), name, workers, advance)
        files.write_json(index, about)
    places = [None if p is None else (p[0], p[1]) for p in about["places"]]
    values = np.memmap(data, dtype=about["dtype"], mode="r") if data.stat().st_size else np.zeros(0, np.uint8)
    apart = {i for i, p in enumerate(places) if p is None and about["statuses"][i] == "ok"}
    kept_raws = {i: raw for i, raw in enumerate(raws()) if i in apart} if apart else {}
    return CellStore(source, encoder, prepared, about["statuses"], places, kept_raws, values)


def _fill(path: Path, raws: Iterable[Raw], job: Job, name: str, workers: int,
          advance: Callable[[float], None]) -> dict[str, Any]:
    statuses: list[str] = []
    places: list[tuple[int, list[int]] | None] = []
    dtype, start, written = "uint8", 0, 0
    ahead: deque[list[Raw]] = deque()

    def tasks() -> Iterator[Task]:
        left = iter(raws)
        while some := list(islice(left, TASK_CELLS)):
            ahead.append(some)
            yield Task(name, some)

    with Readers(workers, {name: job}) as pool, files.writing(path) as f:
        for outcomes in pool.map(tasks()):
            for raw, outcome in zip(ahead.popleft(), outcomes, strict=True):
                statuses.append(outcome.reason if outcome.status == "bad" else outcome.status)
                places.append(None)
                x = outcome.prepared
                if x is not None and (written + x.nbytes <= MOST_BYTES or not isinstance(raw, str)):
                    dtype = x.dtype.str
                    places[-1] = (start, list(x.shape))
                    f.write(np.ascontiguousarray(x).data)
                    start, written = start + x.size, written + x.nbytes
            advance(len(outcomes))
    return {"statuses": statuses, "places": places, "dtype": dtype}


def check_usable(name: str, store: CellStore) -> None:
    """Raises MMToolError where no row has a usable cell."""
    if "ok" not in store.statuses:
        bad = next((s for s in store.statuses if s != "missing"), "every cell is missing")
        raise DataError(f"input {name!r} has no usable cell in the training rows ({bad})",
                        "leave it out, or check its column")
