"""Two runs that write one output: the second ends at once and names the first; one that was killed leaves no lock."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import interrupting, judging
from faults.interrupting import WORKS, Work, ready, result, start
from faults.runs import Child, ended, until
from faults.scenarios import Place

HELD = {**{name: WORKS[name] for name in ("extract", "train-manifest", "eval", "predict", "compare")},
        "fuse": Work(("fuse", "{features}", "-o", "{out}/f", "-f", "concat"), "f", "out/*f.partial"),
        "train-solved": WORKS["train-solved"]}


@pytest.fixture
def at(place: Place) -> Iterator[Place]:
    yield ready(place)
    place.server.end_all()


def held(at: Place, name: str) -> Child:
    """The first run, at work, and made to stand still: it holds its lock as long as the test likes."""
    child = start(at, HELD[name])
    os.kill(child.pid, signal.SIGSTOP)
    return child


@pytest.mark.parametrize("name", [*HELD])
def test_a_second_run_ends_at_once_and_names_the_first(at: Place, name: str) -> None:
    work, first = HELD[name], held(at, name)
    before = judging.tree(at.case)
    second = at.server.start(at.argv(work.argv), {**at.env, "FAULTS_SLEEP": "300"}, at.root, at.root / "second").wait(60)
    print(f"MEASURED {name}: the second ended after {second.seconds:.2f} s: {second.err.strip()}")
    assert (second.code, second.hung) == (6, False), second.err
    (told,) = [line for line in second.err.splitlines() if line.startswith("error[")]
    assert told.startswith("error[E_LOCKED]: ")
    assert str(first.pid) in told
    assert socket.gethostname() in told
    assert re.search(r"since \d|\d\d:\d\d", told)
    assert work.argv[0] in told
    assert "Traceback" not in second.err
    assert second.seconds < interrupting.LATEST
    now = judging.tree(at.case)
    assert {k: v for k, v in now.items() if not k.startswith("log.jsonl")} == \
        {k: v for k, v in before.items() if not k.startswith("log.jsonl")}, "it has touched what the first one writes"
    os.kill(first.pid, signal.SIGCONT)
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait(60).code in (0, 130)


@pytest.mark.parametrize("name", ["extract", "train-manifest", "eval"])
def test_a_killed_run_leaves_no_lock(at: Place, name: str) -> None:
    work, first = HELD[name], held(at, name)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert ended(first.pid, 5)
    at.sure(work.argv)
    assert result(at, work)
    assert [p.name for p in (at.case / "out").iterdir()] == [work.result]


def test_runs_of_other_outputs_in_one_folder_do_not_disturb_each_other(at: Place, tracer: str) -> None:
    """The first stands still where it has made a temporary file but not locked it yet; the second sweeps the folder."""
    argv = ("train", "{features}", "-t", "label", "-o", "{out}/m.safetensors")
    course = at.server.run(at.argv(argv), at.env, at.root, at.root / "log", trace=("-e", "trace=flock"))
    locks = course.trace.count("flock(")
    at.clear()
    slow = ("-e", "trace=flock", "-e", f"inject=flock:delay_enter=3s:when={locks}")  # that of the model's file, the last
    first = at.server.start(at.argv(argv), at.env, at.root, at.root / "log", trace=slow)
    until(lambda: (at.root / "log.trace").read_text().count("flock(") >= locks, "the lock")
    second = at.server.start(at.argv((*argv[:-1], "{out}/n.safetensors")), at.env, at.root, at.root / "second").wait()
    assert second.code == 0, second.err
    ran = first.wait()
    assert ran.code == 0, ran.err
    assert sorted(p.name for p in (at.case / "out").iterdir()) == ["m.safetensors", "n.safetensors"]


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system without a free byte."""
    yield from _mounted(tmp_path / "full", "size=16k")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that cannot be written to, by root neither."""
    folder = tmp_path / "read-only"
    if os.geteuid() != 0:
        folder.mkdir(mode=0o555)
        yield folder
        return
    yield from _mounted(folder, "ro")


def _mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small file system, which the test needs")
    try:
        if "size" in options:
            with (folder / "filling").open("wb", buffering=0) as f:
                try:
                    while True:
                        f.write(b"\0" * 4096)
                except OSError:
                    pass
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


TARGETS = {"extract": "f", "train-manifest": "m.safetensors", "eval": "r", "predict": "p.jsonl", "compare": "r"}


def refused(at: Place, name: str, folder: Path, codes: tuple[str, ...]) -> None:
    argv = [a.replace("{out}", str(folder)) for a in WORKS[name].argv]
    before = sorted(folder.iterdir())
    ran = at.run(tuple(argv))
    lines = [line for line in ran.err.splitlines() if line.startswith("error[")]
    print(f"MEASURED {name}: {lines}")
    assert ran.code == 5, ran.err
    assert len(lines) == 1
    assert lines[0].startswith(tuple(f"error[{code}]: " for code in codes)), lines
    assert "Traceback" not in ran.err
    assert not (at.case / "log.jsonl").exists(), "cells were read before it was found"
    assert sorted(folder.iterdir()) == before
    assert interrupting.left(at) == []


@pytest.mark.parametrize("name", [*TARGETS])
def test_a_read_only_target_is_found_before_the_work(at: Place, name: str, read_only: Path) -> None:
    refused(at, name, read_only, ("E_READ_ONLY", "E_PERMISSION"))


@pytest.mark.parametrize("name", [*TARGETS])
def test_a_full_target_is_found_before_the_work(at: Place, name: str, full: Path) -> None:
    refused(at, name, full, ("E_NO_SPACE",))
