"""The loop of `extract`: blocks of rows through the readers and the encoders, in the order of the manifest."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from mmtool import cache, cells
from mmtool.cache import Cache
from mmtool.cells import Raw
from mmtool.engine import Engine, Pending
from mmtool.errors import CellError, DataError
from mmtool.extraction.sources import Reading
from mmtool.features.format import BLOCK_ROWS
from mmtool.features.part import Part
from mmtool.inference.choice import Backend, tier
from mmtool.inference.lanes import FEW_ROWS, Lanes, threads_a_lane
from mmtool.manifest.rows import Blob, Row, text_of
from mmtool.readers import Kept, Readers, default_workers
from mmtool.reading import Job, Outcome, Task, read

TASK_CELLS = 16
TASK_CHARS = 1 << 14
"""Short texts are handed to a reader until they have so many characters, or are a block: to hand them over takes longest."""


@dataclass
class Encoded:
    """One input's share of a block: tokens `[T, D]` (None: no usable cell), statuses, and what is new to the cache."""

    rows: list[Tensor | None]
    statuses: list[str]
    cached: int = 0
    elsewhere: int = 0
    new: list[tuple[str, bytes, Tensor]] = field(default_factory=list)


@dataclass
class _Begun:
    """One input's share of a block on its way: `places` of the cells that are encoded, `first` of equal cells."""

    out: Encoded
    outcomes: list[Outcome]
    first: dict[str, int]
    places: list[int]
    pending: Pending
    signature: bytes


class BlockLoop:
    """Turns rows into encoded blocks. `caches` holds an entry for each input, or None where caching is off."""

    def __init__(self, readings: Sequence[Reading], engines: dict[str, Engine], caches: dict[str, Cache | None],
                 block_rows: int = BLOCK_ROWS) -> None:
        self.block_rows = block_rows
        self.readings = sorted(readings, key=lambda r: r.name)
        self.engines, self.caches = engines, caches
        self.advance: Callable[[float], None] = lambda rows: None
        """Told how many rows' worth of work is done, as it is done; a block amounts to its rows."""
        nothing = np.zeros(0, np.uint64)
        self.jobs = {r.name: Job(r.source, r.preparer, nothing if (c := caches[r.name]) is None else c.known)
                     for r in self.readings}

    def run(self, rows: Iterable[tuple[str, Row]], total: int,
            pool: Readers) -> Iterator[tuple[Part, dict[str, Encoded]]]:
        """Each block of `rows` (`total` of them): its ids and rows, and each input's encoded cells.

        While one block is encoded, the next one is read and its batches wait, so that no lane ever does.
        """
        blocks: deque[list[tuple[str, Row]]] = deque()
        outcomes = pool.map(self._tasks(iter(rows), blocks))
        begun: deque[tuple[list[tuple[str, Row]], dict[str, _Begun]]] = deque()
        ahead = int(any(engine.lanes is not None for engine in self.engines.values()))
        for start in range(0, total, self.block_rows):
            size = min(self.block_rows, total - start)
            parts = {}
            for reading in self.readings:
                got: list[Outcome] = []
                while len(got) < size and (more := next(outcomes, [])):
                    got += more
                if len(got) != size:
                    raise DataError("the manifest changed while it was read", "run the same command again", code="E_MANIFEST")
                parts[reading.name] = self._begin(reading, blocks[0], got)
            begun.append((blocks.popleft(), parts))
            if len(begun) > ahead:
                yield self._end(*begun.popleft())
        while begun:
            yield self._end(*begun.popleft())

    def _end(self, ids_rows: list[tuple[str, Row]], parts: dict[str, _Begun]) -> tuple[Part, dict[str, Encoded]]:
        encoded = {name: self._finish(name, begun) for name, begun in parts.items()}
        return Part([text_of(i) or "" for i, _ in ids_rows], [{k: text_of(v) for k, v in r.items()} for _, r in ids_rows],
                    {n: e.statuses for n, e in encoded.items()}), encoded

    def _tasks(self, rows: Iterator[tuple[str, Row]], blocks: deque[list[tuple[str, Row]]]) -> Iterator[Task]:
        while block := list(islice(rows, self.block_rows)):
            blocks.append(block)
            for reading in self.readings:
                raws = [cells.raw_of(row, reading.input.columns, reading.source.modality) for _, row in block]
                for part in _parts(raws, reading.source.modality):
                    yield Task(reading.name, part)

    def _begin(self, reading: Reading, block: list[tuple[str, Row]], outcomes: list[Outcome]) -> _Begun:
        """Take what the cache has, and send the rest of one input's cells to the encoder."""
        engine, store = self.engines[reading.name], self.caches[reading.name]
        rows: list[Tensor | None] = [None] * len(outcomes)
        out = Encoded(rows, [o.reason if o.status == "bad" else o.status for o in outcomes])
        whole = _signature(outcomes, engine.how) if any(o.status == "cached" for o in outcomes) else b""
        for i, outcome in enumerate(outcomes):
            if outcome.status == "cached" and store is not None:
                if (hit := store.get(outcome.key, whole)) is not None:
                    rows[i], out.statuses[i] = hit[0], "ok"
                    out.cached += 1
                    out.elsewhere += not hit[1]
                else:  # evicted or damaged since the run began
                    raw = cells.raw_of(block[i][1], reading.input.columns, reading.source.modality)
                    job = self.jobs[reading.name]
                    outcomes[i] = read(Task(reading.name, [raw]), {reading.name: job}, use_known=False)[0]
                    out.statuses[i] = outcomes[i].reason or outcomes[i].status
        # Equal cells of a block are encoded once: the cache, which finds by content, must give all of them equal bits.
        first = {o.key: i for i, o in reversed(list(enumerate(outcomes))) if o.status == "ok"}
        places = [i for i, o in enumerate(outcomes) if o.status == "bad" or (o.status == "ok" and first[o.key] == i)]
        prepared = [None if (p := outcomes[i].prepared) is None else torch.from_numpy(p) for i in places]
        pending = engine.start(prepared, keep=reading.keep, ids=[block[i][0] for i in places])
        signature = _signature([o for o in outcomes if o.status in ("ok", "bad")], pending.how)
        return _Begun(out, outcomes, first, places, pending, signature)

    def _finish(self, name: str, begun: _Begun) -> Encoded:
        """Wait for the encoder, and put everything in its place."""
        out, outcomes, rows = begun.out, begun.outcomes, begun.out.rows
        share, told = 1 / len(self.readings), 0

        def done(cells: int) -> None:
            nonlocal told
            told += cells
            self.advance(cells * share)

        computed = begun.pending.result(done)
        self.advance((len(outcomes) - told) * share)
        # Where memory ran out meanwhile, no other run has these batches, and no block may be taken for an equal one.
        signature = begun.signature if begun.pending.how == self.engines[name].how else bytes(8)
        short = [row for row in computed if row is not None and row.shape[0] == 1]
        finite = not short or bool(torch.cat(short).isfinite().all())  # which one is not is looked for only then
        for i, row in zip(begun.places, computed, strict=True):
            if row is None:
                continue
            if row.shape[0] and ((finite and row.shape[0] == 1) or bool(torch.isfinite(row).all())):
                rows[i] = row
                out.new.append((outcomes[i].key, signature, row))
            else:
                bad = CellError("the encoder gave a value that is not finite", "E_CELL_NOT_FINITE") if len(row) \
                    else CellError("the encoder gave no token", "E_CELL_OUTPUT")
                out.statuses[i] = bad.status
        for i, outcome in enumerate(outcomes):
            if outcome.status == "ok" and begun.first[outcome.key] != i:
                rows[i], out.statuses[i] = rows[begun.first[outcome.key]], out.statuses[begun.first[outcome.key]]
        return out


def run_blocks(readings: Sequence[Reading], engines: dict[str, Engine], rows: Iterable[tuple[str, Row]], total: int, *,
               stamps: Mapping[str, str] | None, workers: int | None = None, kept: Kept | None = None,
               backend: Backend = "torch", block_rows: int = BLOCK_ROWS) -> Iterator[tuple[Part, dict[str, Encoded]]]:
    """The blocks of `total` rows, where no features are kept; through the cache where `stamps` (one an input) are given.

    `workers`: reader processes; None chooses. `kept`: readers that stay for the next call; not with a cache.
    `block_rows` 1: each row by itself, as if it were the only one, its cells read ahead while the one before is encoded.
    """
    caches = {r.name: None if stamps is None else Cache(cache.home() / stamps[r.name]) for r in readings}
    loop = BlockLoop(readings, engines, caches, block_rows)
    if workers is None:
        workers = default_workers(total, [r.source.modality for r in readings])
    with (Readers(workers, loop.jobs) if kept is None or stamps is not None else kept.of(workers, loop.jobs)) as pool, \
            in_gear([engines[r.name] for r in readings], total if block_rows > 1 else 1, backend, threads_a_lane()):
        for part, encoded in loop.run(rows, total, pool):
            for name, result in encoded.items():
                if (store := caches[name]) is not None:
                    store.put(result.new)
            yield part, encoded


@contextmanager
def in_gear(engines: Sequence[Engine], rows: int, backend: Backend, threads: int) -> Iterator[None]:
    """Engines with lanes, and the path that so many rows are worth; few rows have neither."""
    if rows <= FEW_ROWS:
        yield
        return
    device = engines[0].device
    with Lanes(device, threads) as lanes:
        for engine in engines:
            engine.gear(lanes, tier(device, backend, rows))
        try:
            yield
        finally:
            for engine in engines:
                engine.gear(None)


def _parts(raws: list[Raw], modality: str) -> Iterator[list[Raw]]:
    """A block's cells, a reader's turn at a time."""
    part: list[Raw] = []
    held = 0
    for raw in raws:
        part.append(raw)
        held += _chars(raw)
        if len(part) >= TASK_CELLS and (held >= TASK_CHARS or modality not in ("text", "table")):
            yield part
            part, held = [], 0
    if part:
        yield part


def _chars(raw: Raw) -> int:
    if isinstance(raw, dict):
        return sum(map(_chars, raw.values()))
    return 0 if raw is None else len(raw.data) if isinstance(raw, Blob) else len(raw)


def _signature(outcomes: Sequence[Outcome], how: str) -> bytes:
    """Eight bytes that say which cells are batched together, and `how` they are computed: equal ones mean equal last bits."""
    digest = hashlib.sha256(f"{how}\0".encode())
    seen = set[str]()
    for outcome in outcomes:
        if outcome.status != "missing" and outcome.key not in seen:  # a bad one has no key, and keeps its place
            digest.update(outcome.key.encode() + b"\0")
            seen |= {outcome.key} - {""}
    return digest.digest()[:8]
