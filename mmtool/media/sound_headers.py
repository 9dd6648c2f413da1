"""What libsndfile does not check in a sound's file: is all there that the header promises?"""

from __future__ import annotations

from typing import Literal

from mmtool.errors import CellError

_MIN_RATE_HZ, _MAX_RATE_HZ = 100, 1_000_000
_UNKNOWN_SIZE = 0x7FFF_F000
_CHUNK_HEADER_BYTES = 8
_OGG_HEADER_BYTES = 27
_OGG_END = 4


def check_rate(rate_hz: int) -> None:
    """Refuse a sample rate, in Hz, that no recording has: resampling from it would make noise or fill memory."""
    if not _MIN_RATE_HZ <= rate_hz <= _MAX_RATE_HZ:
        raise CellError(f"sample rate of {rate_hz} Hz is outside {_MIN_RATE_HZ} to {_MAX_RATE_HZ} Hz", "E_SND_RATE")


def check_wav(data: bytes) -> bytes:
    """The file with the true size of its samples in the header; CellError where samples are missing.

    libsndfile reads a cut file as a shorter sound. A program that writes to a pipe cannot know the size: ffmpeg then
    states 0xFFFFFFFF, SoX 0x7FFFF000 and up, others 0 in a RIFF that is as empty. Such a file reaches to its end,
    and whether that was cut cannot be told.
    """
    order: Literal["little", "big"] = "big" if data[:4] == b"RIFX" else "little"
    at, long_size = 12, 0
    while len(data) >= at + _CHUNK_HEADER_BYTES:
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], order)
        at += _CHUNK_HEADER_BYTES
        if kind == b"fmt " and len(data) >= at + 8:
            check_rate(int.from_bytes(data[at + 4 : at + 8], order))
        elif kind == b"ds64":  # RF64: the size in 64 bits, after that of the whole
            long_size = int.from_bytes(data[at + 8 : at + 16], order)
        elif kind == b"data":
            there = len(data) - at
            riff_end = int.from_bytes(data[4:8], order) + _CHUNK_HEADER_BYTES
            if data[:4] == b"RF64" and size == 0xFFFF_FFFF:
                size = long_size
            elif size >= _UNKNOWN_SIZE or (size == 0 and riff_end <= at):
                if there >= _UNKNOWN_SIZE:
                    raise CellError(f"WAV of {len(data)} bytes does not state its size", "E_CELL_TOO_LARGE")
                sizes = (len(data) - _CHUNK_HEADER_BYTES).to_bytes(4, order), there.to_bytes(4, order)
                return data[:4] + sizes[0] + data[8 : at - 4] + sizes[1] + data[at:]
            if size > there:
                raise CellError(f"truncated WAV: header promises {size} bytes of samples, {there} are there",
                                "E_SND_TRUNCATED")
            return data
        at += size + size % 2  # chunks begin at even offsets
    raise CellError("truncated WAV: no samples in it", "E_SND_TRUNCATED")


def check_ogg(data: bytes) -> None:
    """Refuse an Ogg whose last page is cut or is not marked as the end of its stream; libsndfile takes what is there.

    What follows the last page, and is no page, is ignored, as every player does.
    """
    at, ended = 0, False
    while data[at : at + 4] == b"OggS":
        body = at + _OGG_HEADER_BYTES
        sizes = data[body : body + data[body - 1]] if len(data) >= body else b""
        end = body + len(sizes) + sum(sizes)
        if len(data) < body or len(sizes) < data[body - 1] or len(data) < end:
            raise CellError("truncated OGG: its last page is cut", "E_SND_TRUNCATED")
        ended = bool(data[at + 5] & _OGG_END)
        at = end
    if not ended:
        raise CellError("truncated OGG: no page marks the end of the stream", "E_SND_TRUNCATED")
