"""What a training sees after it was ended and went on: the same rows in the same order, varied alike, to the same bits."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.interrupting import LEARNED, Work, ready, result
from faults.runs import ended, until
from faults.scenarios import Place

ARGV = ("train", "{data}", "-t", "label", "-o", "{out}/m.safetensors", *LEARNED, "--optimizer", "adamw", "--accumulate", "2",
        "--workers", "0")
"""Dropout in the encoder and before the head, inputs hidden, texts varied."""
WORK = Work(ARGV, "m.safetensors", "log.jsonl")


@pytest.fixture
def at(place: Place) -> Iterator[Place]:
    yield ready(place)
    place.server.end_all()


def seen(log: Path) -> list[str]:
    """Each batch that the encoder was trained with: the letters of its rows, in order."""
    return log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("batches", [1, 4, 7])
def test_the_order_of_rows_and_all_chance_go_on_where_they_were(at: Place, number: signal.Signals, batches: int) -> None:
    log = at.case / "log.jsonl"
    at.sure(ARGV)
    straight, whole = result(at, WORK), seen(log)
    assert len(whole) > 8
    assert len(set(whole)) > 1
    at.clear()
    child = at.server.start(at.argv(ARGV), {**at.env, "FAULTS_SLEEP": "0.3"}, at.root, at.root / "log")
    until(lambda: len(seen(log)) >= batches, "batches")
    os.kill(child.pid, number)
    assert child.wait(60).code in (130, -9)
    assert ended(child.pid, 5)
    first = seen(log)
    log.unlink()
    at.sure(ARGV)
    second = seen(log)
    assert first == whole[: len(first)]
    assert second == whole[len(whole) - len(second):]
    assert 0 < len(second) < len(whole) or len(first) < 4, "it began anew"
    if number == signal.SIGINT:  # the step was ended and kept: nothing is seen twice
        assert first + second == whole
    assert result(at, WORK) == straight
