"""Reader processes: cells are read, hashed, decoded and prepared off the critical path, and come back in order.

A reader that dies, hangs or runs out of memory costs only the cell that did it: the cells that it had are tried again one
by one. Which cells are bad does not depend on what a reader had read before, nor on the number of readers.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from multiprocessing.connection import wait

import torch

from mmtool import reader_process
from mmtool.errors import split_status
from mmtool.reader_process import Reader, Unit
from mmtool.reading import Job, Outcome, Task, read

FEW_ROWS = 64
MOST_READERS = 8


def default_workers(rows: int, modalities: Iterable[str]) -> int:
    """Reader processes: one a core, at most 8; few rows need one or none.

    One alone beside busy lanes got a third of two cores, too little for 400 pictures a second. Few rows need none where
    nothing is decoded but texts and tables, or where a process takes seconds to start.
    """
    if rows > FEW_ROWS:
        return min(MOST_READERS, os.cpu_count() or 2)
    return int(reader_process.FORKS and bool(set(modalities) - {"text", "table"}))


class Readers:
    """`workers` reader processes (0: this one), started at once; use as a context manager."""

    def __init__(self, workers: int, jobs: Mapping[str, Job]) -> None:
        self.jobs = jobs
        self.workers = [Reader(jobs) for _ in range(workers)]
        self.wake, self.waker = multiprocessing.Pipe(duplex=False)
        self.run: _Run | None = None

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.run is not None:
            self.run.stop()
        for worker in self.workers:
            worker.stop()
        self.wake.close()
        self.waker.close()

    def map(self, tasks: Iterable[Task]) -> Iterator[list[Outcome]]:
        """The outcomes of every task, in the order of the tasks; a bounded number is read ahead.

        May be called again, which ends what is left of the call before.
        """
        if not self.workers:
            yield from self._inline(tasks)
            return
        if self.run is not None:
            self.run.stop()
            for worker in self.workers:
                if worker.unit is not None:
                    worker.restart()
        self.run = _Run(self, iter(tasks))
        yield from self.run.results()

    def _inline(self, tasks: Iterable[Task]) -> Iterator[list[Outcome]]:
        for task in tasks:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)  # as in a reader process, so that the bits are the same
            try:
                outcomes = read(task, self.jobs)
            finally:
                torch.set_num_threads(threads)
            yield outcomes


class Kept:
    """Readers that stay from one row to the next, where rows come one by one; use as a context manager."""

    def __init__(self) -> None:
        self.readers: dict[tuple[str, ...], Readers] = {}

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *exc: object) -> None:
        for readers in self.readers.values():
            readers.__exit__(*exc)
        self.readers.clear()

    def of(self, workers: int, jobs: Mapping[str, Job]) -> AbstractContextManager[Readers]:
        """Those for some inputs, which nothing is known of beforehand."""
        names = tuple(sorted(jobs))
        if names not in self.readers:
            if len(self.readers) >= MOST_READERS:
                self.__exit__()
            self.readers[names] = Readers(workers, jobs)
        return nullcontext(self.readers[names])


class _Run:
    """One call of `map`: a thread that hands out units and collects outcomes."""

    def __init__(self, pool: Readers, tasks: Iterator[Task]) -> None:
        self.pool, self.tasks = pool, tasks
        self.window = 3 * len(pool.workers) + 2
        self.consumed = 0
        self.done: dict[int, list[Outcome] | BaseException] = {}
        self.parts: dict[int, list[Outcome | None]] = {}
        self.again: deque[Unit] = deque()
        self.changed = threading.Condition()
        self.total: int | None = None
        self.failed: BaseException | None = None
        self.stopping = False
        self.pump = threading.Thread(target=self._pump, daemon=True)
        self.pump.start()

    def stop(self) -> None:
        """End the thread."""
        self.stopping = True
        self.pool.waker.send(None)
        self.pump.join(timeout=2)

    def results(self) -> Iterator[list[Outcome]]:
        """The outcomes of every task, in order."""
        number = 0
        while True:
            with self.changed:
                self.changed.wait_for(lambda n=number: n in self.done or self.total is not None)  # type: ignore[misc]
                if number not in self.done:
                    if self.failed is not None:
                        raise self.failed
                    return
                result = self.done.pop(number)
            self.consumed += 1
            self.pool.waker.send(None)
            if isinstance(result, BaseException):
                raise result
            yield result
            number += 1

    def _pump(self) -> None:
        number, more = 0, True
        idle = list(self.pool.workers)
        ended: BaseException | None = None
        try:
            while not self.stopping:
                while idle and self.again:
                    self._give(idle.pop(), self.again.popleft())
                while idle and more and number - self.consumed < self.window:
                    try:
                        task = next(self.tasks, None)
                    except BaseException as error:  # noqa: BLE001  what was read before it still comes first
                        task, ended = None, error
                    if task is None:
                        more = False
                    else:
                        self.parts[number] = [None] * len(task.cells)
                        self._give(idle.pop(), Unit(number, tuple(range(len(task.cells))), task))
                        number += 1
                busy = [w for w in self.pool.workers if w.unit is not None]
                if not busy and not more and not self.again:
                    break
                wait([self.pool.wake, *(w.connection for w in busy)], timeout=1.0)
                while self.pool.wake.poll():
                    self.pool.wake.recv()
                idle += [w for w in busy if self._collect(w)]
        except BaseException as error:  # noqa: BLE001  handed to the thread that waits
            self.failed = error
        finally:
            with self.changed:
                if ended is not None:
                    self.done[number] = ended
                self.total = number + (ended is not None)
                self.changed.notify_all()

    def _give(self, worker: Reader, unit: Unit) -> None:
        try:
            worker.give(unit)
        except (BrokenPipeError, ConnectionResetError):  # killed while it was idle
            worker.restart()
            worker.give(unit)

    def _collect(self, worker: Reader) -> bool:
        """Take a reader's outcomes if they are there; True where it is free again."""
        unit = worker.unit
        assert unit is not None
        there = worker.connection.poll()
        if not there and not worker.late:
            return False
        try:
            outcomes = worker.take() if there else None
        except (EOFError, OSError):  # of half an answer, too
            outcomes = None
        if outcomes is None:
            outcomes = [worker.end()]
            if not unit.alone:  # one of them did it, or somebody else ended the reader
                self._apart(unit, range(len(unit.at)))
                return True
        worker.unit = None
        # What was read before may have left too little memory.
        short = [] if unit.fresh else [
            i for i, o in enumerate(outcomes) if o.status == "bad" and split_status(o.reason)[0] == "E_CELL_MEMORY"]
        self._apart(unit, short, fresh=True)
        self._put(unit, {unit.at[i]: o for i, o in enumerate(outcomes) if i not in short})
        return True

    def _apart(self, unit: Unit, places: Iterable[int], *, fresh: bool = False) -> None:
        """Some cells of a unit once more, each alone."""
        for i in places:
            task = replace(unit.task, cells=[unit.task.cells[i]])
            self.again.append(Unit(unit.number, (unit.at[i],), task, alone=True, fresh=fresh))

    def _put(self, unit: Unit, outcomes: Mapping[int, Outcome]) -> None:
        part = self.parts[unit.number]
        for place, outcome in outcomes.items():
            part[place] = outcome
        whole = [o for o in part if o is not None]
        if len(whole) == len(part):
            del self.parts[unit.number]
            with self.changed:
                self.done[unit.number] = whole
                self.changed.notify_all()
