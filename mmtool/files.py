"""Writing files so that they appear whole or not at all, and safetensors that are the same bytes for the same work."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmtool.errors import MMToolError

if TYPE_CHECKING:
    from torch import Tensor

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def write_bytes(path: Path, data: bytes) -> str:
    """Write, fsync, rename, fsync the folder; returns the SHA-256 of the data."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return hashlib.sha256(data).hexdigest()


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def lock(folder: Path, refusal: MMToolError) -> int | None:
    """A descriptor that keeps other runs out of a folder until it is closed; None where the system has no such lock.

    Raises `refusal` where another run holds it.
    """
    if fcntl is None:
        return None
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise refusal from None
    return fd


def write_json(path: Path, value: Any) -> str:
    """Indented JSON with sorted keys."""
    return write_bytes(path, (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode())


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """A safetensors file without metadata; returns its SHA-256."""
    from safetensors.torch import save

    return write_bytes(path, save({k: v.contiguous() for k, v in sorted(tensors.items())}))
