"""Reading safetensors that anybody may have written.

safetensors' own reader takes odd names, and names that are there twice. Here the header is read first, with Python's integers,
and everything that no honest writer would write is refused; then safetensors maps the file.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmtool.errors import ArtefactError, storage_error
from mmtool.strictjson import Unsound, strict_json

if TYPE_CHECKING:
    from torch import Tensor

BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4, "I32": 4,
         "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8}
REMEDY = "fetch or make it again"
MOST_HEADER = 100_000_000
"""Bytes of a header, safetensors' own limit."""
MOST_DIMS, MOST_NUMBERS, LONGEST_NAME = 32, 1 << 50, 500


@dataclass(frozen=True)
class Entry:
    """A tensor as the header states it."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Layout:
    """A header that is sound: metadata, tensors by name, and where their bytes begin in the file."""

    metadata: dict[str, str]
    tensors: dict[str, Entry]
    start: int


def layout(path: Path, remedy: str = REMEDY) -> Layout:
    """The header of a safetensors file, every rule of the format checked.

    Raises ArtefactError for a file that breaks one, and StorageError where the system cannot read it.
    """
    try:
        with open_plain(path) as f:
            return _layout(f, os.fstat(f.fileno()).st_size)
    except Unsound as error:
        raise damaged(path, str(error), remedy) from None
    except OSError as error:
        raise storage_error(error) from error


def read(path: Path, names: Iterable[str] | None = None, remedy: str = REMEDY) \
        -> tuple[dict[str, Tensor], Layout]:
    """Some or all tensors of a sound file, mapped, and its layout; raises as `layout` does, and for a lacking name."""
    from safetensors import SafetensorError, safe_open

    found = layout(path, remedy)
    wanted = list(found.tensors) if names is None else list(names)
    if lacking := [n for n in wanted if n not in found.tensors]:
        raise damaged(path, f"it has no tensor {lacking[0]!r}", remedy)
    try:
        with safe_open(path, framework="pt") as f:
            return {name: f.get_tensor(name) for name in wanted}, found
    except OSError as error:
        raise storage_error(error) from error
    except (SafetensorError, RuntimeError, ValueError, TypeError) as error:  # as when it changed in between
        raise damaged(path, str(error)[:200], remedy) from error


def view(path: Path, names: Iterable[str], remedy: str = REMEDY) -> dict[str, Tensor]:
    """Some tensors of a sound file on its own pages, which nobody may write to; raises as `read` does.

    `read` maps pages that could be written, which the system counts as memory of the process. Python's mmap keeps a file open
    as long as it is mapped, and shards are more than the files that a process may have open; Arrow closes it.
    """
    import warnings

    import pyarrow as pa
    import torch
    kinds = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}
    found = layout(path, remedy)
    wanted = {name: found.tensors.get(name) for name in names}
    try:
        with pa.memory_map(os.fsencode(path)) as f, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says once that such pages must not be written to
            pages = memoryview(f.read_buffer())
            out = {}
            for name, entry in wanted.items():
                if entry is None:
                    raise damaged(path, f"it has no tensor {name!r}", remedy)
                if entry.dtype not in kinds:
                    raise damaged(path, f"its tensor {name!r} is of {entry.dtype}", remedy)
                kind, count = kinds[entry.dtype], math.prod(entry.shape)
                flat = torch.frombuffer(pages, dtype=kind, count=count, offset=found.start + entry.begin) if count \
                    else torch.zeros(0, dtype=kind)
                out[name] = flat.view(entry.shape)
            return out
    except OSError as error:
        raise storage_error(error) from error
    except (RuntimeError, ValueError, TypeError) as error:  # as when it changed in between
        raise damaged(path, str(error)[:200], remedy) from error


def damaged(path: Path, fact: str, remedy: str) -> ArtefactError:
    """`fact` continues the sentence that the file's name begins."""
    return ArtefactError(f"{path} cannot be read: {fact}", remedy, code="E_ARTEFACT_DAMAGED")


def open_plain(path: Path) -> Any:
    """A regular file, opened for reading; a pipe or device is refused without waiting for it. Raises OSError, Unsound."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise Unsound("it is no regular file")
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # another one since
        os.close(descriptor)
        raise Unsound("it is no regular file")
    return os.fdopen(descriptor, "rb")


def _layout(f: Any, size: int) -> Layout:
    first = f.read(8)
    if len(first) < 8:
        raise Unsound("it is cut off" if size else "it is empty")
    length = int.from_bytes(first, "little")
    if length > MOST_HEADER or length > size - 8:
        raise Unsound("it is cut off, or no safetensors file")
    text = f.read(length)
    if len(text) < length:
        raise Unsound("it is cut off")
    if text[:1] != b"{" or not text.rstrip(b" ").endswith(b"}"):
        raise Unsound("its header does not begin and end as it must")
    try:
        header = strict_json(text)
    except Unsound as error:
        raise Unsound(f"its header is damaged: {error}") from None
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise Unsound("its __metadata__ is no table of texts")
    tensors = {name: _entry(name, stated) for name, stated in header.items()}
    _covered(tensors, size - 8 - length)
    return Layout(metadata, tensors, 8 + length)


def _entry(name: str, stated: Any) -> Entry:
    if not name or len(name) > LONGEST_NAME or not name.isprintable() or "\\" in name or name.startswith("/") \
            or ".." in name.split("/"):
        raise Unsound(f"it has a tensor of the name {name[:80]!r}, which no network has")
    if not isinstance(stated, dict) or set(stated) != {"dtype", "shape", "data_offsets"}:
        raise Unsound(f"its tensor {name!r} does not state dtype, shape and offsets, and those alone")
    dtype, shape, offsets = stated["dtype"], stated["shape"], stated["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BYTES:
        raise Unsound(f"its tensor {name!r} has the unknown dtype {str(dtype)[:20]!r}")
    if not isinstance(shape, list) or len(shape) > MOST_DIMS or not all(type(n) is int and n >= 0 for n in shape) \
            or math.prod(max(n, 1) for n in shape) > MOST_NUMBERS:
        raise Unsound(f"its tensor {name!r} has an absurd shape")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(n) is int and n >= 0 for n in offsets):
        raise Unsound(f"its tensor {name!r} has no two offsets")
    entry = Entry(dtype, tuple(shape), *offsets)
    if entry.end - entry.begin != math.prod(shape) * BYTES[dtype]:
        raise Unsound(f"its tensor {name!r} has {entry.end - entry.begin} bytes instead of {math.prod(shape) * BYTES[dtype]}")
    return entry


def _covered(tensors: Mapping[str, Entry], size: int) -> None:
    """Raises Unsound where tensors overlap, leave holes, or do not end where the file does."""
    at = 0
    for name, entry in sorted(tensors.items(), key=lambda pair: (pair[1].begin, pair[1].end)):
        if entry.begin != at:
            raise Unsound(f"its tensor {name!r} {'overlaps another' if entry.begin < at else 'follows a hole'}")
        at = entry.end
    if at != size:
        raise Unsound(f"it is {'cut off' if at > size else 'too long'}: {at} bytes of tensors are stated, {size} are there")
