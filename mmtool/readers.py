"""Reader processes: cells are read, hashed, decoded and prepared off the critical path, and come back in order.

A worker that dies or hangs costs only the cell that killed it: the cells of its task are tried again one by one.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

import torch

from mmtool.cells import Raw
from mmtool.reading import Job, Outcome, Task, read

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

CELL_SECONDS = 60.0
"""A cell that takes longer is bad."""


def _serve(connection: Connection, jobs: Mapping[str, Job]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when a run ends
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:  # a killed parent must not leave orphans
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while (task := connection.recv()) is not None:
            connection.send(read(task, jobs))


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


class _Worker:
    def __init__(self, jobs: Mapping[str, Job]) -> None:
        self.jobs = jobs
        self.task: tuple[int, Task] | None = None
        self.since = 0.0
        self._start()

    def _start(self) -> None:
        context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, self.jobs), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, number: int, task: Task) -> None:
        self.task, self.since = (number, task), time.monotonic()
        self.connection.send(task)

    def restart(self) -> None:
        self.stop()
        self._start()

    def stop(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.join()


class Readers:
    """`workers` reader processes (0: this one), started at once; use as a context manager."""

    def __init__(self, workers: int, jobs: Mapping[str, Job]) -> None:
        self.jobs = jobs
        self.workers = [_Worker(jobs) for _ in range(workers)]
        self.window = 3 * workers + 2
        self.consumed = 0
        self.wake, self.waker = multiprocessing.Pipe(duplex=False)
        self.done: dict[int, list[Outcome] | BaseException] = {}
        self.changed = threading.Condition()
        self.total: int | None = None
        self.failed: BaseException | None = None
        self.stopping = False
        self.pump: threading.Thread | None = None

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stopping = True
        self.waker.send(None)
        if self.pump is not None:
            self.pump.join(timeout=2)
        for worker in self.workers:
            worker.stop()

    def map(self, tasks: Iterable[Task]) -> Iterator[list[Outcome]]:
        """The outcomes of every task, in the order of the tasks; a bounded number is read ahead."""
        if not self.workers:
            yield from self._inline(tasks)
            return
        self.pump = threading.Thread(target=self._run, args=(iter(tasks),), daemon=True)
        self.pump.start()
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
            self.waker.send(None)
            if isinstance(result, BaseException):
                raise result
            yield result
            number += 1

    def _inline(self, tasks: Iterable[Task]) -> Iterator[list[Outcome]]:
        for task in tasks:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)  # as in a reader process, so that the bits are the same
            try:
                outcomes = read(task, self.jobs)
            finally:
                torch.set_num_threads(threads)
            yield outcomes

    def _put(self, number: int, result: list[Outcome] | BaseException) -> None:
        with self.changed:
            self.done[number] = result
            self.changed.notify_all()

    def _run(self, tasks: Iterator[Task]) -> None:
        number, idle, more = 0, list(self.workers), True
        ended: BaseException | None = None
        try:
            while not self.stopping:
                while idle and more and number - self.consumed < self.window:
                    try:
                        task = next(tasks, None)
                    except BaseException as error:  # noqa: BLE001  what was read before it still comes first
                        task, ended = None, error
                    if task is None:
                        more = False
                    else:
                        self._give(idle.pop(), number, task)
                        number += 1
                busy = [w for w in self.workers if w.task is not None]
                if not busy and not more:
                    break
                wait([self.wake, *(w.connection for w in busy)], timeout=5.0)
                while self.wake.poll():
                    self.wake.recv()
                idle += [w for w in busy if self._collect(w)]
        except BaseException as error:  # noqa: BLE001  handed to the thread that waits
            self.failed = error
        finally:
            with self.changed:
                if ended is not None:
                    self.done[number] = ended
                self.total = number + (ended is not None)
                self.changed.notify_all()

    def _give(self, worker: _Worker, number: int, task: Task) -> None:
        try:
            worker.give(number, task)
        except (BrokenPipeError, ConnectionResetError):  # killed while it was idle
            worker.restart()
            worker.give(number, task)

    def _collect(self, worker: _Worker) -> bool:
        """Take a worker's result if it is there; True where the worker is free again."""
        assert worker.task is not None
        number, task = worker.task
        late = time.monotonic() - worker.since > CELL_SECONDS * len(task.cells)
        if not worker.connection.poll() and not late:
            return False
        try:
            if late and not worker.connection.poll():
                raise EOFError
            self._put(number, worker.connection.recv())
        except (EOFError, ConnectionResetError):
            worker.restart()
            self._put(number, [self._alone(worker, task.input, raw) for raw in task.cells])
        worker.task = None
        return True

    def _alone(self, worker: _Worker, name: str, raw: Raw) -> Outcome:
        if raw is None:
            return Outcome("missing")
        try:
            worker.connection.send(Task(name, [raw]))
            if not worker.connection.poll(CELL_SECONDS):
                worker.restart()
                return Outcome("bad", reason=f"reading it took more than {CELL_SECONDS:.0f} s")
            return worker.connection.recv()[0]  # type: ignore[no-any-return]
        except (EOFError, ConnectionResetError, BrokenPipeError):
            worker.process.join(5)
            code = worker.process.exitcode
            worker.restart()
            return Outcome("bad", reason=f"the decoder crashed on it (exit {code})")
