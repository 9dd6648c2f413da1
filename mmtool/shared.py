"""Memory that a reader process shares with its parent: prepared cells are copied twice instead of six times.

It has no name, so that nothing of it is left where either process is killed. What does not fit goes through the pipe.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mmtool.reading import Outcome

SHARED_BYTES = 16 * 2**20
"""What the prepared cells of one task may take; only what is used takes memory."""
_ALIGNED = 64

Place = tuple[int, str, tuple[int, ...], tuple[int, ...]]
"""Where a cell begins, its dtype, its shape as it lies in memory, and the axes that lead back to its own shape."""
Answer = tuple[list[Outcome], list[Place | None]]


class Shared:
    """Room for the cells of one task: the reader fills it, the parent empties it before the reader gets the next."""

    def __init__(self, size: int = SHARED_BYTES) -> None:
        self.room = np.frombuffer(mmap.mmap(-1, size), np.uint8)  # shared by what is forked from here

    def put(self, outcomes: Sequence[Outcome]) -> Answer:
        """Move the cells here, as many as fit: the outcomes without them, and where they are."""
        left: list[Outcome] = []
        places: list[Place | None] = []
        end = 0
        for outcome in outcomes:
            x = outcome.prepared
            if x is None or x.dtype.hasobject or end + x.nbytes > len(self.room):
                left.append(outcome)
                places.append(None)
                continue
            axes = sorted(range(x.ndim), key=lambda axis, x=x: -x.strides[axis])  # type: ignore[misc]
            lying = x.transpose(axes)
            self.room[end : end + x.nbytes].view(x.dtype).reshape(lying.shape)[...] = lying
            places.append((end, x.dtype.str, lying.shape, tuple(int(axis) for axis in np.argsort(axes))))
            left.append(replace(outcome, prepared=None))
            end += -(-x.nbytes // _ALIGNED) * _ALIGNED
        return left, places

    def take(self, answer: Answer) -> list[Outcome]:
        """The outcomes with their cells, which are this process's own."""
        outcomes, places = answer
        ends = [start + _bytes(dtype, shape) for start, dtype, shape, _ in filter(None, places)]
        copied = self.room[: max(ends, default=0)].copy()
        return [outcome if place is None else replace(outcome, prepared=_at(copied, place))
                for outcome, place in zip(outcomes, places, strict=True)]


def _bytes(dtype: str, shape: tuple[int, ...]) -> int:
    return int(np.dtype(dtype).itemsize * np.prod(shape, dtype=np.int64))


def _at(memory: np.ndarray[Any, Any], place: Place) -> np.ndarray[Any, Any]:
    start, dtype, shape, axes = place
    flat = memory[start : start + _bytes(dtype, shape)].view(dtype)
    return flat.reshape(shape).transpose(axes)
