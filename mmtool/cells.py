"""From a cell as written to what an encoder's `prepare` gets, and the key of its content."""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import json
import math
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from mmtool.errors import CellError
from mmtool.manifest.rows import Blob, Cell, Row
from mmtool.media.limits import Limits

if TYPE_CHECKING:
    from torch import Tensor

    from mmtool.api import Encoder

DECODER_REVISION = 2
"""Bumped when decoding gives other bits; part of the features' numerics."""

TOO_MUCH = "reading it takes more memory than a cell may have"

_NO_MEMORY = "can't allocate memory"  # torch's words for it, in a RuntimeError

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

Raw = Cell | dict[str, Cell]


@dataclass(frozen=True)
class Source:
    """How one input's cells are read: modality, base of relative paths, limits."""

    modality: str
    base: Path
    limits: Limits = field(default_factory=Limits)


def limits_of(source: Source) -> dict[str, float]:
    """The limits that decide whether a cell of this modality is bad."""
    media = {"image": ("max_pixels", "max_file_bytes"), "audio": ("max_seconds", "max_pcm_bytes", "max_file_bytes"),
             "text": ("max_text_chars",)}
    return {name: getattr(source.limits, name) for name in media.get(source.modality, ("max_file_bytes",))}


def raw_of(row: Row, columns: tuple[str, ...], modality: str) -> Raw:
    """The part of a row that an input reads; None where it is missing (a table: where every column is)."""
    if modality == "table":
        cells = {c: row.get(c) for c in columns}
        return cells if any(v is not None for v in cells.values()) else None
    return row.get(columns[0])


def load(raw: Raw, source: Source) -> tuple[Any, str]:
    """The cell's content (bytes, str, or a table's dict) and its SHA-256. Raises CellError."""
    if isinstance(raw, dict):
        content: Any = {k: _number_or_text(v) for k, v in raw.items()}
        return content, _key(source.modality, json.dumps(content).encode())
    assert raw is not None
    if isinstance(raw, Blob) and raw.error:
        raise CellError(raw.error, "E_CELL_READ")
    if source.modality == "text":
        text = _text(raw, source)
        return text, _key("text", text.encode("utf-8", "surrogatepass"))
    if isinstance(raw, Blob):
        data = raw.data
    elif raw.startswith("data:"):
        data = _data_uri(raw)
    else:
        path = _path(raw, source)
        if source.modality not in ("image", "audio") and not _exists(path):
            return raw, _key(source.modality, raw.encode("utf-8", "surrogatepass"))
        data = _file(path, source.limits)
    if len(data) > source.limits.max_file_bytes:
        raise CellError(f"{len(data)} bytes are over the limit of {source.limits.max_file_bytes}", "E_CELL_TOO_LARGE")
    return data, _key(source.modality, data)


def decode(content: Any, source: Source, encoder: Encoder) -> Any:
    """The content as `Encoder.prepare` gets it. Raises CellError."""
    if source.modality == "image":
        from mmtool.media.images import decode_image

        return decode_image(content, source.limits, shorter_side_px=encoder.image_size_px)
    if source.modality == "audio":
        from mmtool.media.audio import decode_audio

        return decode_audio(content, encoder.sample_rate_hz, source.limits)
    return content


def prepare(content: Any, source: Source, encoder: Encoder) -> Tensor:
    """Content -> prepared cell `[L, ...]`, L > 0. Raises CellError, also for what `prepare` itself raises."""
    return prepare_decoded(decode(content, source, encoder), encoder)


def prepare_decoded(decoded: Any, encoder: Encoder) -> Tensor:
    """The second half of `prepare`."""
    try:
        prepared = encoder.prepare(decoded)
    except (CellError, MemoryError):
        raise
    except Exception as error:
        if _NO_MEMORY in str(error):
            raise CellError(TOO_MUCH, "E_CELL_MEMORY") from error
        told = f"{type(encoder).__name__}.prepare failed: {type(error).__name__}: {error}"
        raise CellError(told, "E_CELL_PREPARE") from error
    if not len(prepared):
        raise CellError("nothing is left of it after preparing", "E_CELL_NOTHING_LEFT")
    return prepared


def _key(modality: str, data: bytes) -> str:
    return hashlib.sha256(modality.encode() + b"\0" + data).hexdigest()


def _number_or_text(cell: Cell) -> float | str | None:
    if cell is None:
        return None
    text = str(cell)
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def _text(raw: Cell, source: Source) -> str:
    from mmtool.media.text import decode_text

    if isinstance(raw, Blob):
        return decode_text(raw.data, source.limits)
    assert raw is not None
    if len(raw) > source.limits.max_text_chars:
        raise CellError(f"{len(raw)} characters are over the limit of {source.limits.max_text_chars}", "E_TXT_TOO_LONG")
    try:
        raw.isascii() or raw.encode()
    except UnicodeEncodeError:
        raise CellError("holds half of a UTF-16 pair, which is no character", "E_TXT_ENCODING") from None
    return raw


def _data_uri(uri: str) -> bytes:
    head, comma, body = uri.partition(",")
    if not comma:
        raise CellError("data: URI without a comma", "E_CELL_DATA_URI")
    try:
        return base64.b64decode(body, validate=True) if head.endswith(";base64") else unquote_to_bytes(body)
    except (binascii.Error, ValueError) as error:
        raise CellError(f"data: URI is not base64 ({error})", "E_CELL_DATA_URI") from error


def _path(text: str, source: Source) -> Path:
    if "://" in text[:16]:
        raise CellError("a URL; mmtool fetches nothing, download the file first", "E_CELL_URL")
    if "\0" in text:
        raise CellError("a path with a NUL character", "E_CELL_PATH")
    return source.base / text


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a long value is no path
        return False


def _file(path: Path, limits: Limits) -> bytes:
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise CellError("not a regular file", "E_CELL_PATH")
        if about.st_size > limits.max_file_bytes:
            raise CellError(f"{about.st_size} bytes are over the limit of {limits.max_file_bytes}", "E_CELL_TOO_LARGE")
        with path.open("rb", buffering=0) as file:
            return file.readall()
    except UnicodeEncodeError as error:  # half a UTF-16 pair names no file
        raise CellError("no such file", "E_CELL_NOT_FOUND") from error
    except OSError as error:
        if error.errno in _ABSENT:
            raise CellError("no such file", "E_CELL_NOT_FOUND") from error
        raise CellError(error.strerror or str(error), "E_CELL_READ") from error
