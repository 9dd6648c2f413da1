"""Lanes: threads that each run whole batches, with few threads of torch each, so that no core waits for another."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import torch

T = TypeVar("T")

MOST_LANES = 8
PATIENCE_SECONDS = 1.0
"""A run that is asked to end waits no longer for a lane, whose encoder may be in a compiler."""
FEW_ROWS = 64
"""So few rows are not worth the start of lanes: one pass with all threads answers sooner."""


def threads_a_lane() -> int:
    """Threads of torch in each lane. Last bits depend on it, so that a resumed run must use it again."""
    return max(1, torch.get_num_threads() // MOST_LANES)


class Lanes:
    """Threads that take batches in the order in which they come; use as a context manager.

    On a CPU one for each core (more cores than eight share lanes): a batch that is spread over the cores ends when the
    slowest has, and loses most of its speed to any other busy process; a whole batch a core loses that core's share.
    On a CUDA device two, each with its stream: one copies while the other computes.
    """

    def __init__(self, device: torch.device, threads: int) -> None:
        self.device, self.threads = device, threads
        self.count = max(1, torch.get_num_threads() // threads) if device.type == "cpu" else 2 if device.type == "cuda" else 1
        self.pool = ThreadPoolExecutor(self.count, "lane", self._begin)
        self.pending: set[Future[Any]] = set()

    def _begin(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.set_stream(torch.cuda.Stream(self.device))  # type: ignore[no-untyped-call]
        else:
            torch.set_num_threads(self.threads)

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Run it when a lane is free."""
        future = self.pool.submit(work)
        self.pending.add(future)
        future.add_done_callback(self.pending.discard)
        return future

    def __enter__(self) -> Lanes:
        self.outside = torch.get_num_threads()
        if self.device.type == "cpu":
            torch.set_num_threads(1)  # what this thread does beside the lanes is not worth waking others for
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)
        if kind is not KeyboardInterrupt or not wait(list(self.pending), PATIENCE_SECONDS).not_done:
            self.pool.shutdown(wait=True)
        torch.set_num_threads(self.outside)  # a lane's count was also made that of every thread yet to come
