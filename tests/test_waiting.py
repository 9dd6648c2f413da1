"""`predict -`: which lines are answered when, and in what order."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from mmtool import devices
from mmtool.errors import DataError, DeviceError, MMToolError
from mmtool.manifest.rows import Row
from mmtool.waiting import Asked, answers, batches

PREDICT = [sys.executable, "-m", "mmtool", "predict", "-", "--labels", "cat,dog"]


def ask(number: int, line: bytes) -> Asked:
    if line.startswith(b"?"):
        return Asked(str(number), error=DataError("odd", code="E_MANIFEST"))
    return Asked(str(number), (line[:1].decode(),), {"cell": line.decode()})


class Answering:
    """Answers with the cell; fails at the cells that `failing` names. Remembers what it was given together."""

    def __init__(self, **failing: MMToolError) -> None:
        self.failing, self.given = failing, list[list[str]]()

    def __call__(self, kind: tuple[str, ...], rows: list[tuple[str, Row]]) -> Iterator[dict[str, Any]]:
        self.given.append([str(row["cell"]) for _, row in rows])
        for name, row in rows:
            if (error := self.failing.get(str(row["cell"]))) is not None:
                raise error
            yield {"id": name, "kind": kind}


def test_a_line_is_answered_before_the_next_and_half_a_line_is_not_waited_for() -> None:
    out, into = os.pipe()
    with os.fdopen(out, "rb") as stream:
        found = batches(stream)
        os.write(into, b"a\nb\nhal")
        assert next(found) == [(0, b"a"), (1, b"b")]
        os.write(into, b"f\n")
        assert next(found) == [(2, b"half")]
        os.write(into, b"\n \nlast")
        os.close(into)
        assert list(found) == [[(5, b"last")]]


def test_a_line_longer_than_a_pipe_is_one_line() -> None:
    long = b"x" * 300_000
    assert list(batches(io.BytesIO(b"a\n" + long + b"\nb\n"))) == [[(0, b"a")], [(1, long), (2, b"b")]]


def test_many_lines_keep_their_order_and_a_bad_one_spoils_only_itself() -> None:
    failing = {"a3": DataError("bad row", code="E_MANIFEST")}
    answer = Answering(**failing)
    found = list(answers(io.BytesIO(b"a1\na2\na3\na4\n?\nb1\na5\n"), ask, answer, {"extra": 1}))
    assert [f["id"] for f in found] == ["0", "1", "2", "3", "4", "5", "6"]
    assert [f.get("kind") for f in found] == [("a",), ("a",), None, ("a",), None, ("b",), ("a",)]
    assert answer.given == [["a1", "a2", "a3", "a4"], ["a4"], ["b1"], ["a5"]]  # what is alike is read together
    assert found[2] == {"id": "2", "prediction": None, "probability": None, "probabilities": {}, "inputs": [], "extra": 1,
                        "errors": {"line": "E_MANIFEST: bad row"}}


def test_a_device_that_failed_ends_it() -> None:
    failing = {"a1": DeviceError("gone", code=devices.FAILED)}
    with pytest.raises(DeviceError, match="gone"):
        list(answers(io.BytesIO(b"a1\na2\n"), ask, Answering(**failing), {}))


def test_lines_in_a_heap_are_answered_bit_for_bit_as_one_by_one_and_ctrl_c_ends_it() -> None:
    lines = [json.dumps({"text": text}) + "\n" for text in ("he barks", "she purrs", "a much longer text of a dog")]
    lines.insert(1, "nonsense\n")
    with subprocess.Popen(PREDICT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        heap, single = [], []
        process.stdin.write("".join(lines))
        process.stdin.flush()
        heap = [json.loads(process.stdout.readline()) for _ in lines]
        for line in lines:
            process.stdin.write(line)
            process.stdin.flush()
            single.append(json.loads(process.stdout.readline()))
        assert [f["probabilities"] for f in heap] == [f["probabilities"] for f in single]
        assert [f["id"] for f in heap + single] == [str(n) for n in range(8)]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert "Traceback" not in process.stderr.read()


def test_a_closed_stdout_ends_it_without_a_traceback() -> None:
    with subprocess.Popen(PREDICT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.close()
        _, told = process.communicate(b'{"text": "he barks"}\n' * 20, timeout=60)
        assert process.returncode not in (0, -signal.SIGPIPE)
        assert b"Traceback" not in told
