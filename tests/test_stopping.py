"""Terminals, logs and pipes that are closed or full: printing on them fails, and the work must not."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

STEP = """
import fcntl, sys, termios, threading, time
import mmtool.cli.main as main
from mmtool import console, stopping

fcntl.ioctl(0, termios.TIOCSCTTY, 0)

def work(*_, **__):
    stop = threading.Event()
    with stopping.after_step(stop):
        open(sys.argv[1] + "/began", "w").close()
        until = time.monotonic() + 30
        while not stop.is_set():  # as the training looks; within stop.wait the handler could wait for its own lock
            assert time.monotonic() < until
            time.sleep(0.01)
        for _ in range(3):
            console.say("printed after the end")
            time.sleep(0.2)  # the shell and the kernel both send the signal
        open(sys.argv[1] + "/kept", "w").close()
    raise KeyboardInterrupt

main.app = work
sys.exit(main.run([]))
"""


def test_a_step_ends_and_is_kept_though_its_terminal_is_closed(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    child = subprocess.Popen([sys.executable, "-c", STEP, str(tmp_path)], stdin=theirs, stdout=theirs, stderr=theirs,
                             start_new_session=True)
    os.close(theirs)
    while not (tmp_path / "began").exists():
        assert child.poll() is None
    os.close(ours)
    os.kill(child.pid, signal.SIGHUP)
    assert child.wait(30) == 130
    assert (tmp_path / "kept").exists()


@pytest.mark.parametrize(("where", "code"), [("2>&-", 5), (">&- 2>&- <&-", 5), ("2>/dev/full", 5), (">&-", 5)])
def test_what_cannot_be_printed_changes_no_exit_code(tmp_path: Path, where: str, code: int) -> None:
    ran = subprocess.run(f"'{sys.executable}' -m mmtool info nothing {where}", shell=True, capture_output=True, text=True,
                         check=False)
    assert ran.returncode == code
    assert "Traceback" not in ran.stderr


def test_no_file_gets_the_number_of_a_closed_stream() -> None:
    code = "import os, sys; from mmtool.__main__ import _open_streams as go; go(); " \
        "os._exit(10 * os.open('/', os.O_RDONLY) + sys.stderr.fileno())"
    ran = subprocess.run(f"'{sys.executable}' -c \"{code}\" 2>&-", shell=True, check=False)
    assert ran.returncode == 32


BUSY = """
import atexit, os, signal, threading, time
import mmtool.cli.main as main
from mmtool.errors import Interrupted

def work(*_, **__):
    threading.Thread(target=time.sleep, args=(60,)).start()  # as a lane that compiles, which nothing can stop
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    except KeyboardInterrupt:
        raise Interrupted("interrupted") from None

main.app = work
atexit.register(print, "tidied")
main.main()
"""


def test_who_asks_to_end_does_not_wait_for_threads_that_nothing_can_stop() -> None:
    ran = subprocess.run([sys.executable, "-c", BUSY], capture_output=True, text=True, timeout=30, check=False)
    assert (ran.returncode, ran.stdout, "Traceback" in ran.stderr) == (130, "tidied\n", False)


LIVE = """
import os, signal, threading, time
from mmtool import console, stopping

stop = threading.Event()
with stopping.handled(), console.live_line("part 1", 9), stopping.after_step(stop):
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.is_set()
"""


def test_what_a_signal_says_does_not_run_into_the_live_line() -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    child = subprocess.Popen([sys.executable, "-c", LIVE], stderr=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # as reading ends where nobody can write any more
        while piece := os.read(ours, 1 << 16):
            seen += piece
    os.close(ours)
    assert child.wait(30) == 0, seen
    before, found, _ = seen.partition(b"ending after this step")
    assert "\u2501" in before.decode() and found
    assert before.endswith(b"\r\x1b[2K"), before
