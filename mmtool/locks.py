"""One writer an output: a lock file beside it, `.NAME.lock`, which names who holds it and which no kill leaves locked."""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mmtool import files
from mmtool.errors import LockedError, storage_error

_held: list[Lock] = []


class Lock:
    """Keeps other runs from writing `output` until it is released or this process ends.

    Raises LockedError, which names the holder, and StorageError where nothing can be written there, before any work is done.
    """

    def __init__(self, output: Path) -> None:
        output = Path(os.path.realpath(output))
        self.path = output.with_name(f".{output.name}.lock")
        try:
            self._fd: int | None = self._take(output)
        except OSError as error:
            raise storage_error(error, f"{output} cannot be written") from error
        _held.append(self)

    def _take(self, output: Path) -> int:
        while True:
            try:
                fd, own = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666), True
            except PermissionError:
                if not self.path.exists():
                    raise
                fd, own = os.open(self.path, os.O_RDONLY), False  # what a killed run of another user left
            try:
                if not files.hold(fd):
                    raise LockedError(f"another run writes {output}: {_told(self.path)}", "wait for it, or choose another -o")
                if not files.is_open(fd, self.path):  # its holder removed it meanwhile
                    os.close(fd)
                    continue
                if own:
                    os.ftruncate(fd, 0)
                    os.write(fd, json.dumps(_this_run()).encode())
                    os.fsync(fd)  # a full disk is found now
                return fd
            except BaseException:
                with suppress(OSError):
                    if files.hold(fd) and files.is_open(fd, self.path):
                        self.path.unlink()
                with suppress(OSError):
                    os.close(fd)
                raise

    def release(self) -> None:
        """Let others in."""
        if self._fd is not None:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = None
            _held.remove(self)


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Hold the lock of an output while the block runs."""
    lock = Lock(output)
    try:
        yield
    finally:
        lock.release()


def _this_run() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "command": shlex.join(["mmtool", *sys.argv[1:]])[:1000]}


def _told(path: Path) -> str:
    try:
        holder = json.loads(path.read_bytes()[:10_000])
        return f"process {int(holder['pid'])} on {holder['host']} since {holder['since']}, {str(holder['command'])[:200]}"
    except (OSError, ValueError, KeyError, TypeError):
        return "it does not say which"


def _let_go() -> None:
    """In a forked process: what it inherited would keep the lock when its parent was killed."""
    for lock in _held:
        if lock._fd is not None:
            os.close(lock._fd)
            lock._fd = None
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
