"""What is no whole picture is refused with a short reason, and never half decoded."""

from __future__ import annotations

import io
import logging
import struct
import time
import zlib

import pytest
import torch
from media_samples import image_reason, painting, pictures, png, saved
from PIL import Image

from mmtool.errors import CellError
from mmtool.media.images import decode_image
from mmtool.media.limits import Limits

DIRECTORY_LAST = ("tiff-tiff_lzw", "tiff-tiff_adobe_deflate", "tiff-packbits", "tiff-jpeg")


@pytest.mark.parametrize("name", pictures())
def test_a_picture_cut_at_every_twentieth_is_refused(name: str) -> None:
    data = pictures()[name]
    whole = decode_image(data)
    for percent in range(0, 100, 5):
        cut = data[: len(data) * percent // 100]
        if name in DIRECTORY_LAST and percent >= 80:
            # What follows the directory may be a tag's value that no pixel needs: then all must be there.
            try:
                assert torch.equal(decode_image(cut), whole)
            except CellError:
                continue
        else:
            reason = image_reason(cut)
            assert reason.startswith(("truncated", "empty file")), reason


@pytest.mark.parametrize("name", pictures())
def test_a_picture_that_lacks_its_last_bytes_is_whole_or_refused(name: str) -> None:
    data = pictures()[name]
    whole = decode_image(data)
    for missing in range(1, 40):
        try:
            assert torch.equal(decode_image(data[:-missing]), whole), missing
        except CellError:
            continue


@pytest.mark.parametrize("progressive", [False, True])
def test_a_cut_jpeg_is_refused_when_reduced_too(progressive: bool) -> None:
    data = saved(painting(256, 256), "JPEG", progressive=progressive)
    assert decode_image(data, shorter_side_px=16).shape == (3, 32, 32)
    for percent in range(5, 100, 5):
        assert image_reason(data[: len(data) * percent // 100], shorter_side_px=16) == "truncated JPEG"


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("px", [None, 16])
def test_a_jpeg_that_was_cut_and_closed_again_is_refused(mode: str, px: int | None) -> None:
    """The decoder fills it up with grey, and only warns."""
    data = saved(painting(256, 192).convert(mode), "JPEG", subsampling=0)
    for percent in range(20, 100, 5):
        cut = data[: len(data) * percent // 100] + b"\xff\xd9"
        assert image_reason(cut, shorter_side_px=px) == "truncated JPEG: closed before its last block"


@pytest.mark.parametrize("options", [{}, {"quality": 100, "subsampling": 0}, {"restart_marker_rows": 1}, {"progressive": True}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_ends_in_grey_is_whole(mode: str, options: dict[str, int]) -> None:
    im = painting(100, 75)
    im.paste((128, 128, 128), (50, 40, 100, 75))
    data = saved(im.convert(mode), "JPEG", **options)
    assert torch.equal(decode_image(data + b"more \xff\xd9"), decode_image(data))
    thumbnail = b"Exif\0\0II*\0\x08" + bytes(9) + saved(painting(16, 16), "JPEG")
    assert torch.equal(decode_image(saved(im.convert(mode), "JPEG", exif=thumbnail, **options)), decode_image(data))


def test_a_tiff_whose_strips_do_not_cover_it_is_refused() -> None:
    data = bytearray(saved(Image.new("L", (8, 8), 200), "TIFF"))
    entry = data.index(struct.pack("<H", 257) + b"\4\0\1\0\0\0")
    data[entry + 8 : entry + 12] = struct.pack("<I", 800)  # the height; rows of the one strip stay 8
    assert image_reason(bytes(data)) == "truncated TIFF: no data for a part of it"


@pytest.mark.parametrize("codec", ["jpeg", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_a_tiff_cut_in_its_pixels_is_refused_where_its_directory_comes_first(codec: str) -> None:
    data = saved(painting(), "TIFF", compression=codec)
    places = {}
    for tag in (273, 279):  # where the one strip is, and how long
        at = data.rindex(struct.pack("<HHI", tag, 4, 1)) + 8
        places[tag] = at, *struct.unpack_from("<I", data, at)
    (at, start), (_, length) = places[273], places[279]
    moved = data[:at] + struct.pack("<I", len(data)) + data[at + 4 :] + data[start : start + length]
    assert torch.equal(decode_image(moved), decode_image(data))
    for percent in range(0, 100, 5):
        assert image_reason(moved[: len(data) + length * percent // 100]).startswith(("truncated", "broken TIFF"))


def test_a_damaged_png_is_refused_by_its_checksums() -> None:
    data = bytearray(saved(painting(), "PNG", compress_level=0))
    data[len(data) // 2] ^= 1
    assert image_reason(bytes(data)).startswith("broken PNG: bad checksum")


@pytest.mark.parametrize(("data", "reason"), [
    (b"", "empty file"),
    (b"hello world", "not a picture (starts with 'hello w')"),
    (b"\x00\x01", "not a picture (starts with '\\x00\\x01')"),
    (b"BMW is a maker of cars", "not a picture (starts with 'BMW is ')"),
    (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC and AVIF are not read"),
    (b"\xff\xd8\xff", "broken JPEG: no picture in it"),
    (b"\x89PNG\r\n\x1a\n", "truncated PNG"),
    (b"GIF89a", "truncated GIF"),
    (b"II*\0", "truncated TIFF"),
    (b"RIFF\x10\0\0\0WEBP", "truncated WEBP"),
])
def test_reasons_are_short_and_plain(data: bytes, reason: str) -> None:
    assert image_reason(data) == reason


def test_other_formats_of_pillow_are_not_opened() -> None:
    for name in ("PPM", "TGA", "PCX", "ICO"):
        assert image_reason(saved(painting(), name)).startswith("not a picture")


def bombs() -> dict[str, bytes]:
    """Small files whose headers promise 67 million pixels or more."""
    row = bytes(1 + 9000 // 8)
    screen = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 9000, 9000, 0) + b"\x02\x01\x44\0;"
    sof = b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, 65535, 65535, 1) + b"\x01\x11\0"
    sos = b"\xff\xda" + struct.pack(">HB", 8, 1) + b"\x01\0\0\x3f\0"
    vp8x = struct.pack("<I", 10) + bytes(4) + struct.pack("<I", 8999)[:3] * 2 + bytes(64)
    vp8l = struct.pack("<IBI", 9, 0x2F, 8999 | 8999 << 14) + bytes(64)
    vp8 = struct.pack("<I", 10) + b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", 9000, 9000) + bytes(64)

    def webp(kind: bytes, body: bytes) -> bytes:
        return b"RIFF" + struct.pack("<I", 8 + len(body)) + b"WEBP" + kind + body

    def tiff(*tags: tuple[int, int]) -> bytes:
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
        return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(64)

    base = ((258, 8), (259, 8), (262, 1), (277, 1))
    return {
        "png": png(9000, 9000, 1, 0, row * 9000),
        "gif": screen[:6] + struct.pack("<HH", 9000, 9000) + screen[10:] + frame,
        "gif-frame": screen + frame, "jpeg": b"\xff\xd8" + sof + sos + bytes(64),
        "webp": webp(b"VP8X", vp8x), "webp-lossless": webp(b"VP8L", vp8l), "webp-lossy": webp(b"VP8 ", vp8),
        "tiff": tiff((256, 9000), (257, 9000), *base, (273, 8), (278, 9000), (279, 64)),
        "tiff-tile": tiff((256, 16), (257, 16), *base, (322, 9008), (323, 9008), (324, 8), (325, 64)),
        "bmp": b"BM" + struct.pack("<IIIIiiHHIIIIII", 200, 0, 54, 40, 9000, 9000, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(64),
    }


@pytest.mark.parametrize("name", bombs())
def test_a_bomb_is_refused_by_its_header(name: str) -> None:
    data = bombs()[name]
    assert len(data) < 21_000
    reason = image_reason(data)
    assert reason.endswith("px is over the limit of 64 MP"), reason


def test_the_limit_on_pixels_holds_to_the_pixel() -> None:
    data = saved(painting(40, 30), "PNG")
    assert decode_image(data, Limits(max_pixels=1200)).shape == (3, 30, 40)
    assert image_reason(data, Limits(max_pixels=1199)) == "image of 40x30 px is over the limit of 0.001199 MP"
    assert "bytes is over the limit" in image_reason(data, Limits(max_file_bytes=100))


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_a_png_with_a_bomb_of_text_is_refused(kind: bytes) -> None:
    bomb = b"key\0\0" + zlib.compress(bytes(50_000_000), 9)
    start = time.perf_counter()
    assert "too large" in image_reason(png(1, 1, 8, 0, b"\0\0", (kind, bomb)))
    assert time.perf_counter() - start < 1


def test_a_progressive_jpeg_of_a_thousand_scans_is_refused() -> None:
    data = saved(painting(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    scan = data[last:-2]
    assert image_reason(data[:-2] + scan * 1000 + data[-2:]).startswith("JPEG of 10")


def test_nothing_is_printed_or_warned(capfd: pytest.CaptureFixture[str]) -> None:
    jpeg_tiff = pictures()["tiff-jpeg"]
    tables = jpeg_tiff.index(b"\xff\xd8")
    image_reason(jpeg_tiff[:tables] + bytes(64) + jpeg_tiff[tables + 64 :])  # libtiff speaks from C
    many = bytearray(pictures()["tiff"])
    entry = many.index(struct.pack("<HHI", 277, 3, 1))
    many[entry + 8 : entry + 10] = b"\xff\x7f"  # Pillow logs an error
    image_reason(bytes(many))
    assert capfd.readouterr() == ("", "")
    # Under pytest records go to its own handler; without one, logging prints those of a logger that has none.
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("PIL").handlers)


def test_pillow_is_left_strict() -> None:
    from PIL import ImageFile

    limit = Image.MAX_IMAGE_PIXELS
    for data in pictures().values():
        decode_image(data)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False and limit == Image.MAX_IMAGE_PIXELS
    assert Image.open(io.BytesIO(pictures()["jpeg"])).size == (64, 48)
