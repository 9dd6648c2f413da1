"""Watching what a call does besides returning: the files and connections it opens, and what it prints."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from types import FrameType
from typing import Any

EVENTS = {"open": "file", "os.mkdir": "folder", "sqlite3.connect": "database", "subprocess.Popen": "program",
          "socket.connect": "connection", "socket.getaddrinfo": "host name", "socket.gethostbyname": "host name"}
SYSTEM_FOLDERS = ("/dev/", "/proc/", "/sys/")


@dataclass
class _Watch:
    thread: int
    base: FrameType
    seen: list[str] = field(default_factory=list)


_watch: _Watch | None = None


@contextmanager
def opened() -> Iterator[list[str]]:
    """What this thread opens meanwhile, as `file '/a/b'`; imports and Python's own sources do not count."""
    global _watch
    _install_hook()
    outer, _watch = _watch, _Watch(threading.get_ident(), sys._getframe())
    try:
        yield _watch.seen
    finally:
        _watch = outer


@cache
def _install_hook() -> None:
    sys.addaudithook(_hook)  # once: a hook cannot be taken off again


def _hook(event: str, args: tuple[Any, ...]) -> None:
    watch = _watch
    if watch is None or event not in EVENTS or threading.get_ident() != watch.thread:
        return
    subject = args[1] if event == "socket.connect" else args[0]
    if isinstance(subject, bytes):
        subject = os.fsdecode(subject)
    if isinstance(subject, int) or (isinstance(subject, str) and (
            subject.startswith(SYSTEM_FOLDERS) or subject.endswith((".py", ".pyc")))):
        return
    if not _importing(watch.base):
        watch.seen.append(f"{EVENTS[event]} {subject!r}")


def _importing(base: FrameType) -> bool:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame is not base:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextmanager
def stdout_kept(kept: list[str]) -> Iterator[None]:
    """Stdout goes into `kept` instead, also what C code and child processes write to file descriptor 1."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as file:
        sys.stdout.flush()
        saved = os.dup(1)
        os.dup2(file.fileno(), 1)
        try:
            with redirect_stdout(file):
                yield
        finally:
            os.dup2(saved, 1)
            os.close(saved)
            file.seek(0)
            if text := file.read():
                kept.append(text)
