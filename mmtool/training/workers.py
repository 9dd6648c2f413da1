"""Independent jobs of training on all cores: a process for each core, one thread in each.

Small networks gain nothing from several threads; and a job's bits then do not depend on how many cores there are.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import torch

from mmtool import console, stopping
from mmtool.errors import MMToolError
from mmtool.training.solve import one_thread

MOST = 8
PR_SET_PDEATHSIG = 1
Job = TypeVar("Job", bound=tuple[int, Any])
Result = TypeVar("Result")

_work: Callable[[Any], Any] | None = None
"""What forked processes do; set before they are forked, so that it and its data need not be sent."""


def each(work: Callable[[Job], Result], jobs: Sequence[Job], device: torch.device) -> Iterator[tuple[int, Result]]:
    """The result of each job with its number (a job's first part), as they come; results hold arrays, but no tensors.

    In this process where the device is none of the CPU's, there is one core, or processes cannot be forked safely. Raises
    MMToolError where a process dies.
    """
    count = min(len(jobs), MOST, len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1)
    if count < 2 or device.type != "cpu":
        for job in jobs:
            with one_thread():
                result = work(job)
            yield job[0], result
        return
    global _work
    _work = work
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("fork"), initializer=_begin, initargs=(os.getpid(),))
    try:
        futures: dict[Future[Any], int] = {pool.submit(_do, job): job[0] for job in jobs}
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise MMToolError("a process died, perhaps of too little memory", "name fewer fusions, or free memory",
                          code="E_PROCESS_DIED") from error
    finally:
        _work = None
        for process in list((pool._processes or {}).values()):
            process.kill()  # a job may have handlers of its own for what can be handled
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(parent: int) -> None:
    """In a new process, which must not outlive the one that began it: it would keep computing, and hold its locks."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    stopping.ignore()
    torch.set_num_threads(1)
    console.set_quiet(True)


def _do(job: Any) -> Any:
    assert _work is not None
    with one_thread():
        return _work(job)
