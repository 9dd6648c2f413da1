"""One reader process: what it is given, the limits that it lives under, and how its end is told."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mmtool.cells import TOO_MUCH
from mmtool.errors import CellError
from mmtool.reading import Job, Outcome, Task, read_cell
from mmtool.shared import Shared

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

CELL_SECONDS = 60.0
"""A cell that takes longer is bad; longer in proportion where a limit is raised."""
CELL_BYTES = 2 * 2**30
"""Memory that a reader may take beyond what it starts with; more in proportion where a limit is raised."""
GRACE_SECONDS = 5.0
"""What a reader that cannot end itself, because it is stopped or waits for a disk, is given before it is killed."""
FORKS = sys.platform == "linux"
_PROC = Path("/proc/self")


@dataclass(frozen=True)
class Unit:
    """Cells for one turn of a reader: the task `number`, and which of its cells, `at`, these are."""

    number: int
    at: tuple[int, ...]
    task: Task
    alone: bool = False
    """Is it one cell of a unit that ended a reader, on its second try?"""
    fresh: bool = False
    """Is it for a reader that has done nothing yet?"""


class Reader:
    """One process that reads cells; started anew, it knows nothing of what it did before."""

    def __init__(self, jobs: Mapping[str, Job]) -> None:
        self.jobs = jobs
        self.times = max((job.source.limits.raised for job in jobs.values()), default=1.0)
        self.unit: Unit | None = None
        self.since = 0.0
        self.used = False
        self._start()

    def _start(self) -> None:
        context: Any = multiprocessing.get_context("fork" if FORKS else "spawn")
        self.connection, theirs = context.Pipe()
        limits = CELL_SECONDS * self.times, int(CELL_BYTES * self.times)
        self.shared = Shared() if FORKS else None
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, self.jobs, *limits, self.shared), daemon=True)
        self.process.start()
        theirs.close()
        self.used = False

    def give(self, unit: Unit) -> None:
        """Hand over cells; raises OSError where the process is gone."""
        if unit.fresh and self.used:
            self.restart()
        self.connection.send(unit.task)
        self.unit, self.since, self.used = unit, time.monotonic(), True

    def take(self) -> list[Outcome]:
        """What it sent. Raises EOFError or OSError where it ended before."""
        answer = self.connection.recv()
        return answer if self.shared is None else self.shared.take(answer)

    @property
    def late(self) -> bool:
        """Is what it was given not back in time?"""
        assert self.unit is not None
        return time.monotonic() - self.since > CELL_SECONDS * self.times * len(self.unit.at) + GRACE_SECONDS

    def end(self) -> Outcome:
        """What killed the process that is about to be replaced, as the outcome of the one cell that it had."""
        late = self.late
        self.process.join(1)
        code = self.process.exitcode
        self.restart()
        if late or (hasattr(signal, "SIGALRM") and code == -signal.SIGALRM):
            error = CellError(f"reading it took more than {CELL_SECONDS * self.times:.0f} s", "E_CELL_TIMEOUT")
        else:
            how = f"exit {code}" if code is None or code >= 0 else _name_of(-code)
            error = CellError(f"the decoder crashed on it ({how})", "E_CELL_CRASHED")
        return Outcome("bad", reason=error.status)

    def restart(self) -> None:
        """A new process in place of this one."""
        self.stop()
        self._start()

    def stop(self) -> None:
        """End the process at once."""
        self.unit = self.shared = None
        self.connection.close()
        self.process.kill()
        self.process.join()


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _serve(connection: Any, jobs: Mapping[str, Job], cell_seconds: float, cell_bytes: int, shared: Shared | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when a run ends
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:  # a killed parent must not leave orphans
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    timed = hasattr(signal, "setitimer")
    if timed:
        # The kernel ends the process, also where a decoder holds the interpreter's lock and no handler could run.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        _limit(cell_bytes)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while (task := connection.recv()) is not None:
            outcomes = []
            for raw in task.cells:
                if timed:
                    signal.setitimer(signal.ITIMER_REAL, cell_seconds)
                outcomes.append(read_cell(raw, jobs[task.input]))
            if timed:
                signal.setitimer(signal.ITIMER_REAL, 0)
            try:
                connection.send(outcomes if shared is None else shared.put(outcomes))
            except MemoryError:  # of all of them together: each is read once more, alone
                bad = [Outcome("bad", reason=CellError(TOO_MUCH, "E_CELL_MEMORY").status) for _ in outcomes]
                connection.send(bad if shared is None else shared.put(bad))


def _limit(cell_bytes: int) -> None:
    """At most so much memory beyond what is there, no core file, and first in line where the machine has none left.

    RLIMIT_DATA counts what the process may write and shares with nobody (Linux 4.7 and later). RLIMIT_AS would count
    the libraries and what a GPU's driver reserves, which is many times the memory that is used.
    """
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if not FORKS:
        return
    with suppress(OSError):
        (_PROC / "oom_score_adj").write_text("1000", "ascii")
    with suppress(OSError, ValueError):  # no /proc, or a lower limit than this one holds already
        lines = (_PROC / "status").read_text("ascii", "replace").splitlines()
        now = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        most = now + cell_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
