"""Reading cells: load, hash, look up, decode, prepare; in a reader process or in this one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mmtool import cells
from mmtool.cells import Raw, Source
from mmtool.errors import CellError

if TYPE_CHECKING:
    from mmtool.api import Encoder


@dataclass(frozen=True)
class Job:
    """What a reader needs to know of one input; `known` holds the sorted 64-bit keys that the cache has."""

    source: Source
    encoder: Encoder
    known: np.ndarray[Any, np.dtype[np.uint64]]


@dataclass(frozen=True)
class Task:
    """Some cells of one input."""

    input: str
    cells: list[Raw]


@dataclass(frozen=True)
class Outcome:
    """One cell after reading: `status` is ok (then `prepared` is set), cached, missing or bad (then `reason` is,
    a code and what is wrong, as rows.parquet keeps them)."""

    status: str
    key: str = ""
    prepared: np.ndarray[Any, Any] | None = None
    reason: str = ""


def key64(key: str) -> int:
    """The first 64 bits of a content key."""
    return int(key[:16], 16)


def read(task: Task, jobs: Mapping[str, Job], *, use_known: bool = True) -> list[Outcome]:
    """Every cell of a task, in this process."""
    return [_loose(read_cell(raw, jobs[task.input], use_known=use_known)) for raw in task.cells]


def _loose(outcome: Outcome) -> Outcome:
    """A cell that is a part of something larger does not keep that in memory; it stays in the order in which it lies."""
    x = outcome.prepared
    return outcome if x is None or x.flags.c_contiguous else replace(outcome, prepared=np.array(x, order="K"))


def read_cell(raw: Raw, job: Job, *, use_known: bool = True) -> Outcome:
    """One cell, in this process; what is prepared may be a part of something larger."""
    if raw is None:
        return Outcome("missing")
    try:
        content, key = cells.load(raw, job.source)
        if use_known and len(job.known):
            prefix = np.uint64(key64(key))
            at = int(job.known.searchsorted(prefix))
            if at < len(job.known) and job.known[at] == prefix:
                return Outcome("cached", key)
        return Outcome("ok", key, cells.prepare(content, job.source, job.encoder).detach().numpy())
    except CellError as error:
        return Outcome("bad", reason=error.status)
    except MemoryError:
        return Outcome("bad", reason=CellError(cells.TOO_MUCH, "E_CELL_MEMORY").status)
