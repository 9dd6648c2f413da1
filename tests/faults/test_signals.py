"""Ctrl-C, SIGTERM, a closed terminal and kill -9 meet every verb at work: how it ends, what it says, what it leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import interrupting
from faults.interrupting import LATEST, WORKS, end, left, ready, result, shared_memory, start, straight
from faults.runs import Server, ended, environment, session, until
from faults.scenarios import Place

UNDISTURBED: dict[tuple[str, ...], dict[str, str]] = {}


@pytest.fixture
def at(place: Place) -> Iterator[Place]:
    yield ready(place)
    place.server.end_all()


@pytest.mark.parametrize(("name", "number"), [(name, number) for name in WORKS for number in interrupting.BOTH
                                              if number == signal.SIGTERM or name in ("extract", "train-manifest", "eval")])
def test_asked_to_end_it_ends_soon_says_how_to_go_on_and_does(at: Place, name: str, number: signal.Signals) -> None:
    work = WORKS[name]
    expected, memory = straight(at, work, UNDISTURBED), shared_memory()
    ran, seconds = end(start(at, work), number)
    print(f"MEASURED {name} {number.name}: {seconds:.2f} s, exit {ran.code}: {ran.err.strip().splitlines()[-1:]}")
    assert ran.code == 130, ran.err
    assert not ran.hung
    assert seconds < LATEST
    assert "Traceback" not in ran.err
    told = [line for line in ran.err.splitlines() if "interrupted" in line]
    assert len(told) == 1, ran.err
    if work.resumes:
        assert "the same command goes on" in told[0]
    assert left(at) == []
    assert shared_memory() <= memory
    assert result(at, work) == {}
    at.sure(work.argv)
    if name != "compare":  # its result holds times
        assert result(at, work) == expected
    assert [p.name for p in (at.case / "out").iterdir()] == [work.result]
    assert left(at) == []


@pytest.mark.parametrize("name", ["extract", "train-manifest"])
def test_asked_twice_it_leaves_at_once(at: Place, name: str) -> None:
    work = WORKS[name]
    expected = straight(at, work, UNDISTURBED)
    child = start(at, work)
    os.kill(child.pid, signal.SIGINT)
    time.sleep(0.05)
    ran, seconds = end(child, signal.SIGINT)
    print(f"MEASURED {name} twice: {seconds:.2f} s")
    assert ran.code == 130
    assert "Traceback" not in ran.err
    assert seconds < LATEST
    at.sure(work.argv)
    assert result(at, work) == expected


@pytest.mark.parametrize("name", ["train-manifest"])
def test_asked_twice_it_does_not_wait_for_a_long_step(at: Place, name: str) -> None:
    work = WORKS[name]
    child = start(at, interrupting.Work(work.argv, work.result, "log.jsonl"), sleep=300)
    os.kill(child.pid, signal.SIGINT)
    until(lambda: "once more" in child.err, "the first signal is told", 20)
    ran, seconds = end(child, signal.SIGINT)
    print(f"MEASURED {name} twice in a long step: {seconds:.2f} s")
    assert (ran.code, "Traceback" in ran.err) == (130, False)
    assert seconds < LATEST


@pytest.mark.parametrize("name", ["extract-readers", "train-manifest", "compare"])
def test_a_closed_terminal_leaves_no_process_and_no_file(at: Place, name: str) -> None:
    work = WORKS[name]
    child = start(at, work)
    ran, seconds = end(child, signal.SIGHUP)
    print(f"MEASURED {name} SIGHUP: {seconds:.2f} s, exit {ran.code}")
    assert "Traceback" not in ran.err
    assert left(at) == []
    at.sure(work.argv)


@pytest.mark.parametrize("name", ["extract-readers", "compare"])
def test_kill_9_leaves_no_process_and_the_next_run_sweeps_the_rest(at: Place, name: str) -> None:
    work = WORKS[name]
    child = start(at, work)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    asked = time.monotonic()
    assert ended(child.pid, LATEST), session(child.pid)
    print(f"MEASURED {name} SIGKILL: all processes gone after {time.monotonic() - asked:.2f} s")
    at.sure(work.argv)
    assert left(at) == []
    assert [p.name for p in (at.case / "out").iterdir()] == [work.result]


def test_kill_9_in_a_comparison_ends_the_forked_workers(at: Place, server: Server) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core: nothing is forked")
    argv = at.argv(("compare", "{features}", "-t", "label", "-o", "{out}/r", "--epochs", "2000"))
    child = server.start(argv, at.env, at.root, at.root / "log")
    until(lambda: len(session(child.pid)) > 1, "workers")
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert ended(child.pid, LATEST), session(child.pid)


@pytest.mark.parametrize("name", ["extract-readers", "train-manifest"])
def test_ctrl_c_of_a_terminal_reaches_every_process_and_is_told_once(at: Place, name: str) -> None:
    child = start(at, WORKS[name])
    for pid in session(child.pid):
        os.kill(pid, signal.SIGINT)
    ran = child.wait(60)
    assert ended(child.pid, 5)
    assert (ran.code, "Traceback" in ran.err) == (130, False)
    assert ran.err.count("interrupted") == 1


@pytest.mark.parametrize("number", interrupting.BOTH)
def test_ctrl_c_while_it_begins_shows_no_traceback(tmp_path: Path, number: signal.Signals) -> None:
    """At moments from the first import to the work, in real processes that import everything."""
    (tmp_path / "t.jsonl").write_text('{"a": "x"}\n')
    command = [sys.executable, "-m", "mmtool", "extract", str(tmp_path / "t.jsonl"), "-o", str(tmp_path / "f"), "-e",
               "a=faults-slow"]
    env = {**environment(tmp_path / "cache", tmp_path), "FAULTS_SLEEP": "300"}
    for delay in (0.2, 0.6, 1.5):
        process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        time.sleep(delay)
        process.send_signal(number)
        err = process.communicate(timeout=60)[1]
        print(f"MEASURED start-up, {number.name} after {delay} s: exit {process.returncode}, {err.strip()[-80:]!r}")
        shown = "Traceback" in err and "mmtool" in err  # before mmtool's first line, it is the interpreter's own
        assert not shown, f"after {delay} s: {err}"
        assert process.returncode in (130, -number), (delay, err)
