"""Bytes of a text file -> str."""

from __future__ import annotations

from mmtool.errors import CellError
from mmtool.media.limits import Limits

_BOM = b"\xef\xbb\xbf"
_MAX_BYTES_PER_CHAR = 4


def decode_text(data: bytes, limits: Limits = Limits()) -> str:
    """Strict UTF-8, without its byte order mark; an empty file is the empty text.

    Raises CellError for bytes that are not UTF-8, naming the first one's offset, and for a text over the limit.
    """
    limit = limits.max_text_chars
    if len(data) > min(limits.max_file_bytes, _MAX_BYTES_PER_CHAR * limit + len(_BOM)):
        raise CellError(f"text of {len(data)} bytes is over the limit of {limit} characters", "E_TXT_TOO_LONG")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise CellError("text is UTF-16, not UTF-8", "E_TXT_ENCODING")
    skip = len(_BOM) if data.startswith(_BOM) else 0
    try:
        text = data[skip:].decode("utf-8")
    except UnicodeDecodeError as error:
        at = error.start + skip
        raise CellError(f"text is not UTF-8: byte 0x{data[at]:02x} at offset {at}", "E_TXT_ENCODING") from error
    if len(text) > limit:
        raise CellError(f"text of {len(text)} characters is over the limit of {limit}", "E_TXT_TOO_LONG")
    return text
