"""Prepared cells come back from a reader through shared memory: the same arrays, and nothing is left of it."""

from __future__ import annotations

import os
import signal
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mmtool import reader_process, shared
from mmtool.api import Encoder
from mmtool.cells import Source
from mmtool.readers import Readers
from mmtool.reading import Job, Outcome, Task
from mmtool.shared import Shared


class Numbers(Encoder):
    """A text of a number n -> n numbers, in an order of memory that is not C's."""

    modality = "text"

    def prepare(self, cell: str) -> Tensor:
        return torch.arange(int(cell) * 6, dtype=torch.float32).view(-1, 2, 3).permute(0, 2, 1)


def jobs() -> dict[str, Job]:
    return {"n": Job(Source("text", Path()), Numbers(), np.zeros(0, np.uint64))}


def tasks() -> list[Task]:
    return [Task("n", [str(1 + (i * j) % 90) if j % 5 else None for j in range(16)]) for i in range(20)]


def read(workers: int) -> list[list[Outcome]]:
    with Readers(workers, jobs()) as readers:
        return list(readers.map(tasks()))


def assert_equal(a: list[list[Outcome]], b: list[list[Outcome]]) -> None:
    for x, y in zip(chain(*a), chain(*b), strict=True):
        assert (x.status, x.key, x.reason) == (y.status, y.key, y.reason)
        assert (x.prepared is None) == (y.prepared is None)
        if x.prepared is not None and y.prepared is not None:
            assert x.prepared.dtype == y.prepared.dtype and np.array_equal(x.prepared, y.prepared)
            assert y.prepared.flags.writeable


def mapped() -> int:
    """Shared mappings of this process that have no name."""
    return Path("/proc/self/maps").read_text().count("/dev/zero (deleted)") if reader_process.FORKS else 0


def test_arrays_of_every_kind_come_back_as_they_were_and_lie_as_they_lay() -> None:
    picture = np.arange(60, dtype=np.uint8).reshape(5, 4, 3).transpose(2, 0, 1)
    arrays = [picture, picture[:, 1:3, ::2], np.arange(7.0), np.array([True, False]), np.zeros((0, 3), np.float16),
              np.array([1 + 2j]), np.array(["text", None], object), np.arange(3, dtype=">i4"), None]
    given = [Outcome("ok", str(i), x) for i, x in enumerate(arrays)]
    room = Shared()
    answer = room.put(given)
    assert [o.prepared is None for o in answer[0]] == [i != 6 for i in range(9)]
    found = room.take(answer)
    room.room[:] = 255  # the next task's
    for x, outcome in zip(arrays, found, strict=True):
        assert np.array_equal(x, outcome.prepared) if x is not None else outcome.prepared is None
        if x is not None:
            assert outcome.prepared is not None and outcome.prepared.dtype == x.dtype and outcome.prepared.flags.writeable
    assert found[0].prepared is not None and found[0].prepared.strides == picture.strides


@pytest.mark.parametrize("size", [1, 3000, shared.SHARED_BYTES])
def test_what_does_not_fit_goes_through_the_pipe(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_process, "Shared", lambda: Shared(size))
    assert_equal(read(0), read(2))


def test_without_fork_all_goes_through_the_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read(0)
    monkeypatch.setattr(reader_process, "FORKS", False)
    with Readers(1, jobs()) as readers:
        assert readers.workers[0].shared is None
        assert_equal(expected[:3], list(readers.map(tasks()[:3])))


def test_a_killed_reader_leaves_nothing() -> None:
    names, before = sorted(os.listdir("/dev/shm")) if Path("/dev/shm").exists() else [], mapped()
    expected = read(0)
    with Readers(2, jobs()) as readers:
        found = []
        for i, outcomes in enumerate(readers.map(tasks())):
            found.append(outcomes)
            if i in (1, 9):
                pid = readers.workers[0].process.pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
    assert_equal(expected, found)
    assert mapped() == before
    assert names == (sorted(os.listdir("/dev/shm")) if names else [])
