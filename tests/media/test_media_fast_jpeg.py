"""Plain JPEGs go through libjpeg-turbo alone; nobody can tell it from Pillow, neither by a bit nor by a refusal."""

from __future__ import annotations

import random
import sys
from typing import Any

import pytest
import simplejpeg
import torch
from media_samples import painting, saved
from PIL import Image
from torch import Tensor

from mmtool.errors import CellError
from mmtool.media import fast_jpeg
from mmtool.media.images import decode_image

KINDS: dict[str, dict[str, Any]] = {
    "plain": {}, "fine": {"quality": 100, "subsampling": 0}, "half": {"subsampling": 1}, "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1}, "rgb": {"keep_rgb": True}, "optimised": {"optimize": True},
}
SIZES = ((64, 48), (256, 192), (33, 17), (8, 8), (1, 1), (17, 64))


def files() -> list[tuple[bytes, tuple[int, int]]]:
    return [(saved(painting(*size).convert(mode), "JPEG", **options), size) for mode, options in
            [*(("RGB", o) for o in KINDS.values()), ("L", {}), ("L", {"progressive": True})] for size in SIZES]


def verdict(data: bytes, px: int | None) -> Tensor | str:
    try:
        return decode_image(data, shorter_side_px=px)
    except CellError as error:
        return error.status


def of_both(data: bytes, px: int | None, monkeypatch: pytest.MonkeyPatch) -> list[Tensor | str]:
    """With simplejpeg, and where it is not installed."""
    with monkeypatch.context() as without:
        first = verdict(data, px)
        without.setitem(sys.modules, "simplejpeg", None)
        return [first, verdict(data, px)]


def equal(a: Tensor | str, b: Tensor | str) -> bool:
    return torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else isinstance(a, str) and a == b


@pytest.mark.parametrize("px", [None, 4, 8, 16, 100])
def test_the_bits_are_those_of_pillow(px: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for data, size in files():
        assert fast_jpeg.decode(data, size) is not None
        fast, slow = of_both(data, px, monkeypatch)
        assert isinstance(fast, Tensor) and equal(fast, slow)


def test_damaged_files_meet_the_same_fate(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    whole = [data for data, (width, _) in files() if width in (17, 33, 64)]
    outcomes = set()
    for n in range(600):
        data = bytearray(rng.choice(whole))
        if n % 3:
            for _ in range(rng.randrange(1, 4)):
                data[rng.randrange(2, len(data))] ^= 1 << rng.randrange(8)
        if n % 3 != 1:
            data = data[: rng.randrange(4, len(data))] + rng.choice((b"", b"\xff\xd9"))
        fast, slow = of_both(bytes(data), rng.choice((None, 8)), monkeypatch)
        assert equal(fast, slow), n
        outcomes.add(fast.partition(":")[0] if isinstance(fast, str) else "ok")
    assert {"ok", "E_IMG_TRUNCATED", "E_IMG_BROKEN"} <= outcomes


def test_what_is_not_plain_or_not_whole_is_left_to_pillow() -> None:
    data, size = saved(painting(64, 48), "JPEG"), (64, 48)
    assert fast_jpeg.decode(saved(painting(64, 48).convert("CMYK"), "JPEG"), size) is None
    for cut in (data[:-2], data[: len(data) // 2], data[: len(data) // 2] + b"\xff\xd9"):
        assert fast_jpeg.decode(cut, size) is None
    assert fast_jpeg.decode(data, (48, 64)) is None
    assert fast_jpeg.decode(b"\xff\xd8\xff", size) is None


def test_a_file_whose_real_size_hides_from_pillow_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("decoded")

    data = saved(painting(64, 48), "JPEG")
    monkeypatch.setattr(simplejpeg, "decode_jpeg", never)
    monkeypatch.setattr(simplejpeg, "decode_jpeg_header", lambda data: (65500, 65500, "YCbCr", "420"))
    assert decode_image(data).shape == (3, 48, 64)


def test_a_turned_jpeg_is_upright_and_may_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    fast, slow = of_both(saved(painting(256, 192), "JPEG", exif=exif), 16, monkeypatch)
    assert isinstance(fast, Tensor) and fast.shape == (3, 32, 24) and equal(fast, slow)
    fast[:] = 7
    assert fast.float().mean() == 7
