"""The one way in which mmtool writes: files and folders appear whole or not at all, and equal work gives equal bytes.

A file is written under a hidden temporary name in its folder, synced and renamed; a folder is filled beside its place and
exchanged with what has its name. A killed run leaves at most `.mmtool-*` names, which the next run in that folder sweeps.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
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

PREFIX, WRITTEN, GONE, SCRATCH = ".mmtool-", ".tmp", ".gone", ".scratch"
STALE_SECONDS = 86400.0
"""Where no lock tells whether a writer lives, a temporary file of this age is taken for a dead one's."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def writing(path: Path, named: Callable[[], Path] | None = None) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` when the block ends well: write, fsync, rename, fsync of the folder.

    Its mode is 0666 less the umask. `named` tells at the end which name in the same folder it takes instead. Raises OSError,
    which then names `path`.
    """
    path = Path(os.path.realpath(path))
    _sweep_once(path.parent)
    try:
        temporary, f = _new(path.parent)
        try:
            yield f
            f.flush()
            os.fsync(f.fileno())
            temporary.replace(path if named is None else named())
        except BaseException:
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


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


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


def make_folder(folder: Path) -> None:
    """Make a folder, durably, where it is not there yet."""
    if not folder.is_dir():
        folder.mkdir()
        sync_folder(folder.parent)


def remove(path: Path) -> None:
    """Remove a file or a folder such that a killed run never leaves half of it under its name."""
    gone = path.with_name(f"{PREFIX}{secrets.token_hex(6)}{GONE}")
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
    """A folder to fill, `TARGET.partial`, which takes the place of `target` when the block ends well."""
    target = Path(os.path.realpath(target))
    filled = target.with_name(target.name + ".partial")
    _sweep_once(target.parent)
    remove(filled)
    filled.mkdir()
    try:
        yield filled
        put_in_place(filled, target)
    except BaseException:
        remove(filled)
        raise


def put_in_place(filled: Path, target: Path) -> None:
    """Give a folder its final name; what had that name is removed. On Linux a whole folder has it at every instant."""
    if not target.exists():
        filled.rename(target)
        sync_folder(target.parent)
        return
    if exchange(filled, target):
        sync_folder(target.parent)
        remove(filled)
    else:
        old = former(target)
        target.rename(old)
        filled.rename(target)
        sync_folder(target.parent)
        remove(old)


def former(target: Path) -> Path:
    """Where `put_in_place` keeps what is replaced, where two names cannot be exchanged."""
    return target.with_name(f".{target.name}.old")


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
            if left.stat().st_uid == _user() and _is_left(left):
                shutil.rmtree(left)
    folder, fd = _new_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if fd is not None:
            os.close(fd)


def _new_folder() -> tuple[Path, int | None]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix="mmtool-", suffix=SCRATCH))
        if fcntl is None:
            return folder, None
        with suppress(FileNotFoundError):
            fd = os.open(folder, os.O_RDONLY)
            if hold(fd) and is_open(fd, folder):
                return folder, fd
            os.close(fd)  # as in `_new`


def is_open(fd: int, path: Path) -> bool:
    """Does the name still stand for what is open?"""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def hold(fd: int) -> bool:
    """Lock what is open, until it is closed or this process ends; False where another has it. True where none can lock."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def sweep(folder: Path) -> None:
    """Remove what killed runs left in a folder."""
    with suppress(OSError):
        for left in folder.glob(f"{PREFIX}*"):
            if left.name.endswith(GONE):
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
            elif left.name.endswith(WRITTEN) and _is_left(left):
                left.unlink(missing_ok=True)


@cache
def _sweep_once(folder: Path) -> None:
    sweep(folder)


def _is_left(path: Path) -> bool:
    """Does nobody hold it any more?"""
    if fcntl is None:
        return time.time() - path.stat().st_mtime > STALE_SECONDS
    fd = os.open(path, os.O_RDONLY)
    try:
        return hold(fd)
    finally:
        os.close(fd)


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0
