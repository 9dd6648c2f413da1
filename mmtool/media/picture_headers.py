"""What Pillow does not check in a picture's file: sizes before memory is taken, completeness, checksums."""

from __future__ import annotations

import zlib
from typing import Any, Literal

from PIL import Image

from mmtool.errors import CellError
from mmtool.media.limits import Limits

_MAX_SCANS = 200
_GREY = (127, 128)  # 127 where CMYK is stored the other way round
_START_OF_SCAN = 0xDA
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_PLANAR, _SEPARATE = 284, 2


def check_before_opening(data: bytes, name: str, limits: Limits) -> None:
    """Refuse, from the bytes alone, a file that must not or need not reach Pillow. `name` is Pillow's format."""
    if name == "PNG":
        _check_png(data)
    elif name == "WEBP":
        _check_webp(data, limits)
    elif name == "TIFF":
        _check_directory(data)


def check_after_opening(im: Image.Image, data: bytes, limits: Limits) -> None:
    """Refuse a picture whose header, read by Pillow, promises too much; no pixel is decoded yet."""
    check_size(im.size, limits)
    if im.format == "TIFF":
        _check_tiff(im, limits)
    # Each scan of a progressive JPEG passes over the whole picture, and costs the file a few bytes only.
    elif "progressive" in im.info and (scans := data.count(b"\xff\xda")) > _MAX_SCANS:
        raise CellError(f"JPEG of {scans} scans is over the limit of {_MAX_SCANS}", "E_IMG_TOO_LARGE")


def check_size(size: tuple[int, int], limits: Limits) -> None:
    """Refuse a width and height, in pixels, over the limit."""
    width, height = size
    if width * height > limits.max_pixels:
        raise CellError(f"image of {width}x{height} px is over the limit of {limits.max_pixels / 1e6:g} MP",
                        "E_IMG_TOO_LARGE")


def may_end_in_grey(im: Image.Image) -> bool:
    """Is the last pixel of a decoded JPEG the grey that libjpeg fills up with?"""
    last: Any = im.getpixel((im.width - 1, im.height - 1))
    return all(value in _GREY for value in (last if isinstance(last, tuple) else (last,)))


def end_of_scan(data: bytes) -> int:
    """Where the first end mark after the first scan's header stands in a JPEG."""
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1] != _START_OF_SCAN:
        fill = data[at + 1] == 0xFF
        at += 1 if fill else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data.find(b"\xff\xd9", at) % (len(data) + 1)


def _check_png(data: bytes) -> None:
    """Pillow neither checks the pixels' checksums nor misses the end; a damaged download would pass."""
    at = 8
    while True:
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data) or len(data) < at + 12:
            raise CellError("truncated PNG", "E_IMG_TRUNCATED")
        kind = data[at + 4 : at + 8]
        critical = not kind[0] & 0x20
        if critical and zlib.crc32(memoryview(data)[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise CellError(f"broken PNG: bad checksum at byte {at}", "E_IMG_BROKEN")
        if kind == b"IEND":
            return
        at = end


def _check_webp(data: bytes, limits: Limits) -> None:
    """Pillow's decoder takes memory for the canvas as it opens the file."""
    if len(data) < 30 or len(data) < int.from_bytes(data[4:8], "little") + 8:
        raise CellError("truncated WEBP", "E_IMG_TRUNCATED")
    kind = data[12:16]
    if kind == b"VP8X":
        size = (int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1)
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        size = ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    else:
        size = (int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF)
    check_size(size, limits)


def _check_directory(data: bytes) -> None:
    """Without this a TIFF cut before its directory reads as one that states no size."""
    order: Literal["little", "big"] = "little" if data[:1] == b"I" else "big"
    if 43 not in data[2:4]:  # not BigTIFF
        at = int.from_bytes(data[4:8], order)
        if len(data) < at + 2 or len(data) < at + 2 + 12 * int.from_bytes(data[at : at + 2], order):
            raise CellError("truncated TIFF", "E_IMG_TRUNCATED")


def _check_tiff(im: Image.Image, limits: Limits) -> None:
    """libtiff takes memory for a whole tile; Pillow leaves black what no uncompressed strip or tile covers."""
    tags = im.tag_v2  # type: ignore[attr-defined]
    tile = (tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0))
    if all(isinstance(side, int) for side in tile):
        check_size(tile, limits)
    if im.info.get("compression") == "raw":
        planes = len(im.getbands()) if tags.get(_PLANAR) == _SEPARATE else 1
        boxes = [box for _, box, *_ in im.tile]  # type: ignore[attr-defined]
        if sum((right - left) * (low - top) for left, top, right, low in boxes) < im.width * im.height * planes:
            raise CellError("truncated TIFF: no data for a part of it", "E_IMG_TRUNCATED")
