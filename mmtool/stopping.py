"""Ctrl-C, SIGTERM and a closed terminal: the first ends a run in good order, the second at once."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mmtool import console
from mmtool.errors import Interrupted

HANGUP = getattr(signal, "SIGHUP", None)
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

_owner = 0
_asked = 0
_step: threading.Event | None = None
_child = False
_at_once = False
_terminals: list[int] = []


@contextmanager
def handled() -> Iterator[None]:
    """While the block runs, the first signal raises KeyboardInterrupt in the main thread, the second ends the process."""
    global _owner, _asked, _terminals
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _owner, _asked = os.getpid(), 0
    _terminals = [fd for fd in (1, 2) if os.isatty(fd)]
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as nohup leaves SIGHUP
            signal.signal(number, _handle)
    try:
        yield
    finally:
        if not _asked:  # else the process is about to end, and a second signal may hurry it
            for number, handler in before.items():
                signal.signal(number, handler)


def asked() -> bool:
    """Has the run been asked to end?"""
    return _asked > 0


def ignore() -> None:
    """In a forked process, since when a run ends is its parent's to say, and in one that is ending."""
    global _child
    _child = True
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def forget() -> None:
    """CPython remembers that C code was interrupted, as in an import, and would end by SIGINT whatever the exit code is."""
    import ctypes

    ctypes.pythonapi.PyRun_SimpleString(b"pass")  # whatever is run so makes it forget


def leave(code: int) -> None:
    """End a process that was asked to: threads that nothing can stop, as one that compiles, are not waited for."""
    ignore()
    forget()
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        atexit._run_exitfuncs()  # all that Python does at its end but to wait for threads
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


@contextmanager
def at_once() -> Iterator[None]:
    """While the block runs, the first signal ends the process as it is."""
    global _at_once
    _at_once = True
    try:
        yield
    finally:
        _at_once = False


@contextmanager
def after_step(stop: threading.Event) -> Iterator[None]:
    """While the block runs, the first signal sets `stop`, so that a step can end and its state be kept."""
    global _step
    if _child or threading.current_thread() is not threading.main_thread():
        yield
        return
    before, _step = _step, stop
    try:
        with contextlib.nullcontext() if signal.getsignal(signal.SIGTERM) is _handle else handled():  # or used as a library
            yield
    finally:
        _step = before


def _handle(number: int, frame: FrameType | None) -> None:
    global _asked
    if os.getpid() != _owner:  # a forked process, which its parent ends
        return
    if number == HANGUP:
        _let_go()
        if _asked:  # the shell and the kernel may both tell of the same
            return
    if _at_once:
        with contextlib.suppress(OSError):
            os.write(2, b"warning: interrupted\n")
        os._exit(Interrupted.exit_code)
    _asked += 1
    if _asked == 1 and _step is not None:
        _step.set()
        if not console.quiet:  # not by `say`: the signal may come in the midst of a print
            with contextlib.suppress(OSError):
                os.write(2, (b"\r\x1b[2K" if console.drawn else b"") + b"ending after this step; once more to end at once\n")
    elif _asked <= 2 and not (_asked == 2 and _step is None):
        raise KeyboardInterrupt
    else:
        os._exit(Interrupted.exit_code)


def _let_go() -> None:
    """A terminal that is closed fails whoever prints on it, and the step that is to be ended would fail with that."""
    for fd in _terminals:
        if not os.isatty(fd):
            console.to_nowhere(fd)
