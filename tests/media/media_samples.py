"""Pictures and sounds made in code, as the bytes of real files. Shared by the tests of mmtool.media."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from mmtool.errors import CellError
from mmtool.media.audio import decode_audio
from mmtool.media.images import decode_image

RATE_HZ = 16_000


def painting(width: int = 64, height: int = 48) -> Image.Image:
    """A coloured picture without symmetry and with some texture."""
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(0).integers(0, 12, (height, width, 1))
    colours = np.stack([x * 240 // width, y * 240 // height, 120 + 100 * np.sin(x / width * 9)], -1)  # [H, W, 3]
    return Image.fromarray((colours + noise).astype("u1"))


def saved(im: Image.Image, name: str, **options: Any) -> bytes:
    """The bytes of the picture's file."""
    file = io.BytesIO()
    im.save(file, name, **options)
    return file.getvalue()


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG by hand: `rows` as they are before compression, `extra` chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks)


def pictures() -> dict[str, bytes]:
    """One small file of each format and codec."""
    im = painting()
    files = {
        "jpeg": saved(im, "JPEG", quality=90), "jpeg-progressive": saved(im, "JPEG", progressive=True),
        "jpeg-cmyk": saved(im.convert("CMYK"), "JPEG"), "png": saved(im, "PNG"),
        "png-palette": saved(im.quantize(), "PNG"), "webp": saved(im, "WEBP"),
        "webp-lossless": saved(im, "WEBP", lossless=True), "gif": saved(im, "GIF"), "bmp": saved(im, "BMP"),
        "bmp-palette": saved(im.quantize(), "BMP"), "tiff": saved(im, "TIFF"),
    }
    for codec in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        files[f"tiff-{codec}"] = saved(im, "TIFF", compression=codec)
    return files


def tone(seconds: float = 0.5, rate_hz: int = RATE_HZ, hz: float = 440.0) -> np.ndarray:
    """A tone that fades in, with a little noise, `[S]`, peak near 0.5."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    noise = np.random.default_rng(0).standard_normal(len(t)) * 0.005
    return (0.5 * np.sin(2 * np.pi * hz * t) * np.minimum(1, t * 20) + noise).astype(np.float32)


def sound(samples: np.ndarray, name: str, subtype: str | None = None, rate_hz: int = RATE_HZ, **options: Any) -> bytes:
    """The bytes of the sound's file; `samples [S]` or `[S, channels]`."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=name, subtype=subtype, **options)
    return file.getvalue()


def wav(samples: bytes, *, rate_hz: int = RATE_HZ, bits: int = 16, channels: int = 1, tag: int = 1,
        riff_size: int | None = None, data_size: int | None = None, before: bytes = b"", after: bytes = b"") -> bytes:
    """A WAV by hand, whose sizes may lie; `before` and `after` are whole chunks around the samples."""
    block = channels * bits // 8
    form = b"fmt " + struct.pack("<IHHIIHH", 16, tag, channels, rate_hz, rate_hz * block & 0xFFFFFFFF, block, bits)
    size = len(samples) if data_size is None else data_size
    body = b"WAVE" + form + before + b"data" + struct.pack("<I", size) + samples + after
    return b"RIFF" + struct.pack("<I", len(body) if riff_size is None else riff_size) + body


def without_info_frame(mp3: bytes) -> bytes:
    """The MP3 without its first frame, which holds the Xing or Info header."""
    assert b"Xing" in mp3[:200] or b"Info" in mp3[:200]
    second = mp3.index(mp3[:2], 100)
    return mp3[second:]


def sounds() -> dict[str, bytes]:
    """One small file of each format and codec."""
    x = tone()
    return {
        "wav": sound(x, "WAV", "PCM_16"), "wav-float": sound(np.stack([x, x], 1), "WAV", "FLOAT"),
        "wav-adpcm": sound(x, "WAV", "IMA_ADPCM"), "flac": sound(x, "FLAC"), "vorbis": sound(x, "OGG", "VORBIS"),
        "opus": sound(x, "OGG", "OPUS"), "mp3": sound(x, "MP3"),
    }


def image_reason(data: bytes, *args: Any, **options: Any) -> str:
    """Why the picture is refused."""
    with pytest.raises(CellError) as caught:
        decode_image(data, *args, **options)
    return str(caught.value)


def audio_reason(data: bytes, *args: Any) -> str:
    """Why the sound is refused."""
    with pytest.raises(CellError) as caught:
        decode_audio(data, RATE_HZ, *args)
    return str(caught.value)
