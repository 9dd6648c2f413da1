"""Folders that appear whole or not at all, and folders that go."""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mmtool import files

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
SCRATCH = ".scratch"


def make_folder(folder: Path) -> None:
    """Make a folder, durably, where it is not there yet."""
    if not folder.is_dir():
        folder.mkdir()
        files.sync_folder(folder.parent)


def remove(path: Path) -> None:
    """Remove a file or a folder such that a killed run never leaves half of it under its name."""
    gone = path.with_name(f"{files.PREFIX}{secrets.token_hex(6)}{files.GONE}")
    try:
        path.rename(gone)
    except FileNotFoundError:
        return
    if gone.is_dir() and not gone.is_symlink():
        shutil.rmtree(gone, onerror=_not_gone)
    else:
        gone.unlink(missing_ok=True)


def _not_gone(function: object, path: str, told: tuple[Any, BaseException, Any]) -> None:
    if not isinstance(told[1], FileNotFoundError):  # another run sweeps the same
        raise told[1]


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A folder to fill, under a hidden name, which takes the place of `target` when the block ends well."""
    target = Path(os.path.realpath(target))
    files.sweep_once(target.parent)
    mend(target)
    filled, fd = _new(lambda: _made(target.with_name(f"{files.PREFIX}{secrets.token_hex(6)}{files.FILLED}")))
    try:
        yield filled
        files.sync_folder(filled)  # of folders in it, too
        put_in_place(filled, target)
    except BaseException:
        remove(filled)
        raise
    finally:
        _close(fd)


def put_in_place(filled: Path, target: Path) -> None:
    """Give a folder its final name; what had that name is removed. On Linux a whole folder has it at every instant."""
    if not target.exists():
        filled.rename(target)
        files.sync_folder(target.parent)
        return
    if exchange(filled, target):
        files.sync_folder(target.parent)
        remove(filled)
    else:
        old = former(target)
        target.rename(old)
        try:
            filled.rename(target)
        except BaseException:
            old.rename(target)
            raise
        files.sync_folder(target.parent)
        remove(old)


def former(target: Path) -> Path:
    """Where `put_in_place` keeps what is replaced, where two names cannot be exchanged; no sweep takes it."""
    return target.with_name(f"{files.PREFIX}{target.name}.old")


def mend(target: Path) -> None:
    """End what a killed `put_in_place` began: what it replaced goes, or comes back where nothing has its name."""
    old = former(target)
    if old.exists():
        remove(old) if target.exists() else old.rename(target)


def exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; False where the system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(other))


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder of the system's for temporary files that goes when the block ends; a killed run's goes with the next."""
    root = Path(tempfile.gettempdir())
    for left in root.glob(f"mmtool-*{SCRATCH}"):
        with suppress(OSError):
            if left.lstat().st_uid == files.user():
                files.remove_left(left)
    folder, fd = _new(lambda: Path(tempfile.mkdtemp(prefix="mmtool-", suffix=SCRATCH)))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _close(fd)


def _new(make: Callable[[], Path]) -> tuple[Path, int | None]:
    """A new folder that is held, so that nobody sweeps it."""
    while True:
        folder = make()
        if not files.CAN_HOLD:
            return folder, None
        with suppress(FileNotFoundError):
            fd = os.open(folder, os.O_RDONLY)
            if files.hold(fd) and files.is_open(fd, folder):
                return folder, fd
            os.close(fd)  # another run swept it in the instant before it was held


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _close(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)
