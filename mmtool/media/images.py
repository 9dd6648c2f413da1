"""Bytes of a picture -> uint8 pixels, RGB and upright."""

from __future__ import annotations

import io
import struct
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile
from torch import Tensor

from mmtool.errors import CellError
from mmtool.media import fast_jpeg, picture_headers
from mmtool.media.fast_jpeg import Pixels
from mmtool.media.limits import Limits
from mmtool.media.quiet import ignore_pillow_warnings, silent_stderr
from mmtool.media.sniff import picture_format

# Opened by class: `Image.open` would try other formats, and warns by a limit that is global.
_READERS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile, "PNG": PngImageFile, "WEBP": WebPImageFile,
    "GIF": GifImageFile, "BMP": BmpImageFile, "TIFF": TiffImageFile,
}
_WIDE_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_REDUCED_MARGIN = 1.5
_BITS_PER_SAMPLE, _PHOTOMETRIC, _ORIENTATION, _SAMPLE_FORMAT = 258, 262, 274, 339
_WHITE_IS_ZERO, _SIGNED = 0, 2
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(data: bytes, limits: Limits = Limits(), *, shorter_side_px: int | None = None) -> Tensor:
    """JPEG, PNG, WebP, GIF, BMP or TIFF -> uint8 `[3, H, W]` (a view of HWC memory), RGB, upright.

    The format is told by the bytes. Transparency is laid on white, wide samples are scaled to 8 bits, an animation
    gives its first frame, colour profiles are ignored. With `shorter_side_px` a JPEG may come reduced by 2, 4 or 8,
    its shorter side still at least 1.5 times that many pixels; the limits hold for its full size, in pixels and bytes.
    Raises CellError, with a short reason, for whatever is wrong with the bytes.
    """
    if not data:
        raise CellError("empty file", "E_CELL_EMPTY")
    if len(data) > limits.max_file_bytes:
        raise CellError(f"file of {len(data)} bytes is over the limit of {limits.max_file_bytes}", "E_CELL_TOO_LARGE")
    name = picture_format(data)
    if name is None:
        raise CellError("HEIC and AVIF are not read" if data[4:8] == b"ftyp"
                        else f"not a picture (starts with {repr(data[:7])[1:]})", "E_IMG_FORMAT")
    ignore_pillow_warnings()
    try:
        picture_headers.check_before_opening(data, name, limits)
        im = _READERS[name](io.BytesIO(data))
        picture_headers.check_after_opening(im, data, limits)
        pixels = _pixels_of_jpeg(im, data, shorter_side_px) if isinstance(im, JpegImageFile) else None
        if pixels is None:
            pixels = _pixels(im)
        if (turn := _turn(im)) is not None:
            pixels = np.array(Image.fromarray(pixels).transpose(turn))
    except (CellError, MemoryError):
        raise
    except Exception as error:
        raise _refusal(name, error) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)  # [3, H, W]


def _pixels(im: ImageFile.ImageFile) -> Pixels:
    """Decoded by Pillow."""
    with silent_stderr() if im.format == "TIFF" else nullcontext():  # libtiff prints from C
        im.load()
    return np.array(_rgb(im))  # a copy that may be written


def _pixels_of_jpeg(im: JpegImageFile, data: bytes, shorter_side_px: int | None) -> Pixels | None:
    """Decoded by libjpeg-turbo alone, else by Pillow; None where Pillow needs no more than to load it.

    The bits are the same, but for what libjpeg warns of Pillow decides: it refuses what is cut off.
    """
    scale = 1 if shorter_side_px is None else _scale(im.size, shorter_side_px)
    if (pixels := fast_jpeg.decode(data, im.size, scale)) is not None:
        return pixels
    if scale > 1:
        im.draft(None, (im.width // scale, im.height // scale))
    im.load()
    if picture_headers.may_end_in_grey(im):
        _check_end(im, data)
    return None


def _scale(size: tuple[int, int], shorter_side_px: int) -> int:
    """By how much libjpeg may reduce: the largest of 8, 4 and 2 that divides both sides and leaves the margin, else 1.

    Where a side is rounded the picture is stretched, which a later resize cannot know: half a pixel in 240 moved
    values of one photo by up to 108 of 255. With whole sides, this is how far what an antialiased resize makes of 18
    photos came from the full decoding, and how near EfficientNet-Lite0's features stayed:

    | margin | mean error, worst photo | largest error | cosine, median photo | worst photo |
    |---|---|---|---|---|
    | 2 | 1.5 of 255 | 16 | 0.999 | 0.992 |
    | 1.5 | 2.5 | 25 | 0.998 | 0.990 |
    | 1.25 | 3.8 | 37 | 0.997 | 0.973 |
    | 1 (512 px for 256) | 3.4 | 57 | 0.989 | 0.953 |

    One-pixel print and gratings come within 43 and 7.5 in the mean at a margin of 1.5. The steps between (5/8, 6/8, 7/8)
    take longer than decoding all of it. tests/benchmarks/decoding.py measures again.
    """
    width, height = size
    for scale in (8, 4, 2):
        whole = width % scale == 0 and height % scale == 0
        if whole and min(width, height) // scale >= _REDUCED_MARGIN * shorter_side_px:
            return scale
    return 1


def _check_end(im: JpegImageFile, data: bytes) -> None:
    """Refuse a picture that was cut and closed again: libjpeg makes grey of what is missing, and only warns.

    Bytes between the last block and the end mark are passed over, unless blocks are missing: then they become blocks.
    """
    end = picture_headers.end_of_scan(data)
    again = JpegImageFile(io.BytesIO(data[:end] + b"\x55" * 64 + data[end:]))
    again.draft(im.mode, im.size)
    if again.tobytes() != im.tobytes():
        raise CellError("truncated JPEG: closed before its last block", "E_IMG_TRUNCATED")


def _rgb(im: Image.Image) -> Image.Image:
    if im.mode == "RGB" and "transparency" not in im.info:
        return im
    if im.mode in _WIDE_MODES:
        return _eight_bits(im).convert("RGB")
    if im.has_transparency_data:
        rgba = im.convert("LA").convert("RGBA") if im.mode == "La" else im.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", im.size, "white"), rgba).convert("RGB")
    return im.convert("RGB")


def _eight_bits(im: Image.Image) -> Image.Image:
    """The highest 8 bits of wide samples, by the range that the file's type has, not by the values it holds."""
    tags: Any = getattr(im, "tag_v2", {})
    values = np.asarray(im)  # [H, W]
    if im.mode == "F":
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):  # also where NaN
            raise CellError(f"float samples from {low:g} to {high:g}; only 0 to 1 has a known scale", "E_IMG_SAMPLES")
        grey = np.rint(values * 255)
    else:
        bits = int(tags.get(_BITS_PER_SAMPLE, (16,))[0])
        if max(tags.get(_SAMPLE_FORMAT, (1,))) == _SIGNED:
            if values.min() < 0:
                raise CellError(f"negative samples, down to {values.min()}", "E_IMG_SAMPLES")
            bits -= 1
        elif bits == 32:
            values = values.view(np.uint32)
        grey = values >> (bits - 8)
        if "transparency" in im.info:
            grey = np.where(values == im.info["transparency"], 255, grey)
    eight = grey.astype(np.uint8)
    return Image.fromarray(255 - eight if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else eight)


def _turn(im: Image.Image) -> Image.Transpose | None:
    """What the EXIF orientation asks for; a damaged EXIF block turns nothing, as in every browser."""
    try:
        return _UPRIGHT.get(im.getexif().get(_ORIENTATION, 1))
    except (SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, OSError, struct.error):
        return None


def _refusal(name: str, error: Exception) -> CellError:
    """One short line from what Pillow said."""
    text = str(error)
    cut = isinstance(error, EOFError) or isinstance(error.__cause__, (EOFError, IndexError, struct.error))
    if cut or any(word in text.lower() for word in ("truncat", "not enough", "unexpected end", "incomplete")):
        return CellError(f"truncated {name}", "E_IMG_TRUNCATED")
    if "not identified" in text:
        text = "no picture in it"
    return CellError(f"broken {name}: {(text or type(error).__name__)[:80]}", "E_IMG_BROKEN")
