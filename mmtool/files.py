"""The one way in which mmtool writes: files and folders appear whole or not at all, and equal work gives equal bytes.

A file is written under a hidden temporary name in its folder, synced and renamed; a folder is filled beside its place and
exchanged with what has its name. A killed run leaves at most `.mmtool-*` names, which the next run in that folder sweeps.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CAN_HOLD = fcntl is not None
PREFIX, WRITTEN, FILLED, GONE = ".mmtool-", ".tmp", ".new", ".gone"
STALE_SECONDS = 86400.0
"""Where no lock tells whether a writer lives, a temporary file of this age is taken for a dead one's."""


@contextmanager
def writing(path: Path, named: Callable[[], Path] | None = None) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` when the block ends well: write, fsync, rename, fsync of the folder.

    Its mode is 0666 less the umask. `named` tells at the end which name in the same folder it takes instead. Raises OSError,
    which then names `path`.
    """
    path = Path(os.path.realpath(path))
    sweep_once(path.parent)
    try:
        temporary, f = _new(path.parent)
        try:
            yield f
            f.flush()
            os.fsync(f.fileno())
            if fcntl is None:
                f.close()  # Windows renames no file that is open
            temporary.replace(path if named is None else named())
        except BaseException:
            with suppress(OSError):
                f.close()
            temporary.unlink(missing_ok=True)
            raise
        finally:
            with suppress(OSError):  # what could not be written was told already
                f.close()
        sync_folder(path.parent)
    except OSError as error:
        if error.errno and (error.filename is None or Path(error.filename).name.startswith(PREFIX)
                            or Path(error.filename) == path.parent):
            error.filename, error.filename2 = str(path), None
        raise


def _new(folder: Path) -> tuple[Path, IO[bytes]]:
    """A new file that is held, under a name of its own."""
    while True:
        temporary = folder / f"{PREFIX}{secrets.token_hex(6)}{WRITTEN}"
        f = temporary.open("xb")
        if hold(f.fileno()) and is_open(f.fileno(), temporary):
            return temporary, f
        f.close()  # another run swept it in the instant before it was held


def write_bytes(path: Path, data: bytes) -> str:
    """The whole file at once; returns the SHA-256 of the data."""
    with writing(path) as f:
        f.write(data)
    return hashlib.sha256(data).hexdigest()


def write_json(path: Path, value: Any) -> str:
    """Indented JSON with sorted keys."""
    return write_bytes(path, (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode())


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """A safetensors file without metadata; returns its SHA-256."""
    from safetensors.torch import save

    return write_bytes(path, save({k: v.contiguous() for k, v in sorted(tensors.items())}))


def copy(source: Path, target: Path) -> None:
    """The contents of a file."""
    with source.open("rb") as read, writing(target) as f:
        shutil.copyfileobj(read, f, 1 << 20)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems know no such thing
                raise
        finally:
            os.close(fd)


def is_open(fd: int, path: Path) -> bool:
    """Does the name still stand for what is open?"""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def hold(fd: int) -> bool:
    """Lock what is open, until it is closed or this process ends; False where another has it. True where none can lock."""
    return _locked(fd) is not False


def _locked(fd: int) -> bool | None:
    """Is the lock ours? None where none can lock: on Windows, or a file system such as NFS for what is open to be read."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def sweep(folder: Path) -> None:
    """Remove what killed runs left in a folder."""
    with suppress(OSError):
        for left in folder.glob(f"{PREFIX}*"):
            with suppress(OSError):  # one that is another user's keeps no other from going
                if left.name.endswith(GONE):
                    shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
                elif left.name.endswith((WRITTEN, FILLED)):
                    remove_left(left)


@cache
def sweep_once(folder: Path) -> None:
    sweep(folder)


def remove_left(path: Path) -> None:
    """Remove a temporary file or folder that nobody holds any more. Raises OSError.

    It is held meanwhile, so that a run which makes one of that name now does not take it for its own.
    """
    if fcntl is None:
        fd = None
    else:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # or a pipe of that name would wait for a writer
    try:
        mine = None if fd is None else _locked(fd)
        if mine is None:
            mine = time.time() - path.stat().st_mtime > STALE_SECONDS
        if mine:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    finally:
        if fd is not None:
            os.close(fd)


def user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0
