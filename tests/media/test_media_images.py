"""What a picture becomes: uint8 [3, H, W], RGB, upright, whatever its file holds."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from media_samples import image_reason, painting, pictures, png, saved
from PIL import Image
from torch import Tensor

from mmtool.api import resize_image
from mmtool.media.images import decode_image
from mmtool.media.limits import Limits

LOSSLESS = ("png", "webp-lossless", "bmp", "tiff", "tiff-tiff_lzw", "tiff-tiff_adobe_deflate", "tiff-packbits")


def tensor(im: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(im.convert("RGB"))).permute(2, 0, 1)


def flat(data: bytes) -> tuple[int, ...]:
    """The colour of a picture that has one only."""
    image = decode_image(data)
    colours = image.flatten(1).unique(dim=1)
    assert colours.shape[1] == 1
    return tuple(colours[:, 0].tolist())


@pytest.mark.parametrize("name", pictures())
def test_every_format_gives_the_same_picture(name: str) -> None:
    image = decode_image(pictures()[name])
    assert image.dtype == torch.uint8 and image.shape == (3, 48, 64)
    error = (image.float() - tensor(painting()).float()).abs().mean()
    assert error == 0 if name in LOSSLESS else error < 12


def test_the_result_may_be_written() -> None:
    image = decode_image(pictures()["png"])
    image[:] = 7
    assert image.float().mean() == 7


def test_the_same_bytes_give_the_same_bits_in_many_threads() -> None:
    files = list(pictures().values()) * 4
    with ThreadPoolExecutor(8) as pool:
        many = list(pool.map(decode_image, files))
    assert all(torch.equal(decode_image(data), image) for data, image in zip(files, many, strict=True))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_every_orientation_is_turned_upright(name: str, orientation: int) -> None:
    upright = painting(32, 16).resize((64, 32), Image.Resampling.NEAREST)
    stored = {
        1: upright, 2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180), 4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE), 6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE), 8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 98, "subsampling": 0}}.get(name, {})
    image = decode_image(saved(stored, name, exif=exif, **options))
    error = (image.float() - tensor(upright).float()).abs()
    assert image.shape == (3, 32, 64) and error.mean() <= (3 if name == "JPEG" else 0)


def test_a_damaged_exif_block_turns_nothing_and_warns_nobody() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description that is longer than four bytes"
    block = exif.tobytes()
    jpeg = saved(painting(), "JPEG")
    for damaged in (block[:-20], block[:12], block[:6] + b"XX" + block[8:], b"Exif\0\0"):
        app1 = b"\xff\xe1" + struct.pack(">H", len(damaged) + 2) + damaged
        assert decode_image(jpeg[:2] + app1 + jpeg[2:]).shape in ((3, 48, 64), (3, 64, 48))
    assert decode_image(jpeg[:2] + app1 + jpeg[2:]).shape == (3, 48, 64)
    for damaged in (block[:12], block[:6] + b"XX" + block[8:]):
        assert decode_image(saved(painting(), "WEBP", exif=damaged)).shape == (3, 48, 64)


def test_wide_samples_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).round().astype("u2")[None].repeat(3, 0)  # [3, 256]
    expected = torch.from_numpy((ramp >> 8).astype("u1"))
    swapped = ramp.astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in swapped)
    colour_rows = b"".join(b"\0" + row.repeat(3).tobytes() for row in swapped)
    files = {
        "png": png(256, 3, 16, 0, rows), "png-rgb": png(256, 3, 16, 2, colour_rows),
        "tiff": saved(Image.fromarray(ramp), "TIFF"),
        "tiff-lzw": saved(Image.fromarray(ramp), "TIFF", compression="tiff_lzw"),
        "tiff-big-endian": saved(Image.frombytes("I;16B", (256, 3), swapped.tobytes()), "TIFF"),
        "tiff-32": saved(Image.fromarray(ramp.astype("i4") << 15), "TIFF"),
        "tiff-float": saved(Image.fromarray((ramp >> 8).astype("f4") / 255), "TIFF"),
    }
    for name, data in files.items():
        assert torch.equal(decode_image(data), expected.expand(3, -1, -1)), name


def test_samples_without_a_known_scale_are_refused() -> None:
    assert "float samples from 0 to 300" in image_reason(
        saved(Image.fromarray(np.array([[0, 300]], "f4")), "TIFF"))
    assert "float samples" in image_reason(saved(Image.fromarray(np.array([[0, np.nan]], "f4")), "TIFF"))
    assert image_reason(saved(Image.fromarray(np.array([[5, -3]], "i4")), "TIFF")) == "negative samples, down to -3"


def test_transparency_is_laid_on_white() -> None:
    red = bytes([255, 0, 0])
    ink = Image.new("P", (4, 4), 1)
    ink.putpalette([255, 0, 0, 0, 255, 0])
    for data, expected in (
        (saved(Image.new("RGBA", (4, 4), (255, 0, 0, 0)), "PNG"), (255, 255, 255)),
        (saved(Image.new("RGBA", (4, 4), (255, 0, 0, 128)), "PNG"), (255, 127, 127)),
        (saved(Image.new("RGBA", (4, 4), (255, 0, 0, 128)), "TIFF"), (255, 127, 127)),
        (saved(Image.new("RGBA", (4, 4), (255, 0, 0, 128)), "WEBP", lossless=True), (255, 127, 127)),
        (saved(Image.new("LA", (4, 4), (0, 128)), "PNG"), (127, 127, 127)),
        (saved(ink, "GIF", transparency=1), (255, 255, 255)),
        (saved(ink, "GIF"), (0, 255, 0)),
        (png(1, 1, 8, 3, b"\0\0", (b"PLTE", red), (b"tRNS", b"\x80")), (255, 127, 127)),
        (png(1, 1, 8, 2, b"\0" + red, (b"tRNS", struct.pack(">HHH", 255, 0, 0))), (255, 255, 255)),
        (png(1, 1, 8, 0, b"\0\x40", (b"tRNS", struct.pack(">H", 0x40))), (255, 255, 255)),
        (png(1, 1, 16, 0, b"\0\x40\x01", (b"tRNS", struct.pack(">H", 0x4001))), (255, 255, 255)),
        (png(1, 1, 16, 0, b"\0\x40\x01", (b"tRNS", struct.pack(">H", 0x4002))), (64, 64, 64)),
        (png(1, 1, 16, 4, b"\0\0\0\x80\0"), (127, 127, 127)),
    ):
        assert flat(data) == expected


def test_other_colour_modes_become_rgb() -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert flat(saved(cyan, "TIFF")) == (0, 255, 255)
    assert np.abs(np.array(flat(saved(cyan, "JPEG", quality=100))) - (0, 255, 255)).max() <= 3
    assert flat(saved(Image.new("1", (9, 5), 1), "PNG")) == (255, 255, 255)
    assert flat(saved(Image.new("1", (9, 5), 1), "TIFF", compression="group4")) == (255, 255, 255)
    assert flat(saved(Image.new("L", (9, 5), 77), "BMP")) == (77, 77, 77)
    assert flat(saved(Image.new("L", (16, 16), 77), "JPEG")) == (77, 77, 77)
    assert decode_image(png(4, 1, 2, 0, b"\0\x1b"))[0].tolist() == [[0, 85, 170, 255]]


def test_a_tiff_may_keep_its_colours_apart() -> None:
    tags = [(256, 3, 1, 2), (257, 3, 1, 1), (258, 3, 3, 134), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 3, 140),
            (277, 3, 1, 3), (278, 3, 1, 1), (279, 4, 3, 152), (284, 3, 1, 2)]
    directory = struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    values = struct.pack("<3H6I", 8, 8, 8, 164, 166, 168, 2, 2, 2)
    data = b"II*\0" + directory + values + bytes([1, 2, 3, 4, 5, 6])
    assert decode_image(data).tolist() == [[[1, 2]], [[3, 4]], [[5, 6]]]


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_gives_its_first_frame(name: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if name == "WEBP" else {}
    assert flat(saved(frames[0], name, save_all=True, append_images=frames[1:], **options)) == (255, 0, 0)


def test_a_file_of_two_jpegs_gives_the_first() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("black", "white")]
    assert flat(saved(frames[0], "MPO", save_all=True, append_images=frames[1:])) == (0, 0, 0)


def test_a_bad_animation_chunk_does_not_harm_a_png() -> None:
    assert flat(png(2, 1, 8, 0, b"\0\x09\x09", (b"acTL", struct.pack(">II", 0, 0)))) == (9, 9, 9)


def reducible(width: int, height: int) -> bytes:
    """A JPEG with the spectrum of a photo (1/f)."""
    noise = np.fft.fft2(np.random.default_rng(0).standard_normal((height, width)))
    f = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    grey = np.real(np.fft.ifft2(noise / np.maximum(f, 1 / width)))
    grey = grey / grey.std() * 50 + 128
    return saved(Image.fromarray(grey.clip(0, 255).astype("u1")).convert("RGB"), "JPEG", quality=90)


@pytest.mark.parametrize(("px", "height"), [(512, 1024), (342, 1024), (341, 512), (256, 512), (171, 512), (170, 256),
                                            (128, 256), (86, 256), (85, 128), (32, 128)])
def test_a_jpeg_is_reduced_as_far_as_leaves_half_as_many_pixels_more(px: int, height: int) -> None:
    data = reducible(1024, 1024)
    image = decode_image(data, shorter_side_px=px)
    assert image.shape == (3, height, height) and height >= 1.5 * px
    full = resize_image(decode_image(data), px).float()
    error = (resize_image(image, px).float() - full).abs()
    assert error.mean() <= 2.5 and error.max() <= 25


@pytest.mark.parametrize(("width", "height", "shape"), [(1000, 801, (801, 1000)), (1004, 804, (201, 251)),
                                                        (1002, 802, (401, 501)), (1024, 100, (50, 512))])
def test_a_reduction_never_rounds_a_side(width: int, height: int, shape: tuple[int, int]) -> None:
    assert decode_image(reducible(width, height), shorter_side_px=25).shape == (3, *shape)


def test_a_reduction_needs_a_jpeg_and_keeps_to_the_limits() -> None:
    assert decode_image(saved(painting(), "PNG"), shorter_side_px=4).shape == (3, 48, 64)
    assert "64x48 px is over" in image_reason(saved(painting(), "JPEG"), Limits(max_pixels=3000), shorter_side_px=4)
