"""JSON lines that are answered one by one, each as soon as it is there; cells of lines that wait are read ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, BinaryIO

from mmtool import devices
from mmtool.errors import MMToolError
from mmtool.manifest.rows import Row

PIECE = 1 << 16
"""Bytes read at once, as many as a pipe holds: what waits there is a few hundred lines at most."""


@dataclass(frozen=True)
class Asked:
    """A line as it was understood: a row, whose `kind` names the inputs it has, or the error in it, without a kind."""

    name: str
    kind: tuple[str, ...] = ()
    row: Row | None = None
    error: MMToolError | None = None


def batches(stream: BinaryIO) -> Iterator[list[tuple[int, bytes]]]:
    """The lines that are there, at least one, with their numbers from 0; blank ones are counted and left out.

    Half a line is waited for only where no whole one is left: its sender may wait for the answers to those before.
    """
    number = 0
    begun: list[bytes] = []
    while piece := stream.read1(PIECE):  # type: ignore[attr-defined]  # BufferedReader's: what is there, waiting for one byte
        *whole, rest = piece.split(b"\n")
        if whole:
            whole[0] = b"".join([*begun, whole[0]])
            begun = []
            if found := [(number + i, line) for i, line in enumerate(whole) if line.strip()]:
                yield found
            number += len(whole)
        if rest:
            begun.append(rest)
    if (last := b"".join(begun)).strip():
        yield [(number, last)]


def answers(stream: BinaryIO, ask: Callable[[int, bytes], Asked],
            answer: Callable[[tuple[str, ...], list[tuple[str, Row]]], Iterator[dict[str, Any]]],
            empty: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One object a line, in their order. `answer` gets rows of one kind; a row at which it fails is answered with its error.

    `empty`: what the answer to such a row holds besides. Raises DeviceError where the device failed: every further line
    would fail, too.
    """
    for lines in batches(stream):
        for kind, group in groupby((ask(number, line) for number, line in lines), key=lambda asked: asked.kind):
            asked = list(group)
            rows = [(a.name, a.row) for a in asked if a.row is not None]
            yield from (_refusal(a.name, a.error, empty) for a in asked if a.error is not None)  # then all of them are
            while rows:
                try:
                    for found in answer(kind, list(rows)):
                        rows.pop(0)
                        yield found
                except MMToolError as error:
                    if error.code == devices.FAILED:
                        raise
                    yield _refusal(rows.pop(0)[0], error, empty)


def _refusal(name: str, error: MMToolError, empty: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": name, "prediction": None, "probability": None, "probabilities": {}, "inputs": [], **empty,
            "errors": {"line": f"{error.code}: {error}"}}
