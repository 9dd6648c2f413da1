"""Whatever the bytes, the answer is a tensor or a CellError."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from media_samples import RATE_HZ, pictures, sounds

from mmtool.errors import CellError
from mmtool.media.audio import decode_audio
from mmtool.media.images import decode_image

PICTURES, SOUNDS = pictures(), sounds()
FLIPS = st.lists(st.tuples(st.integers(0, 2**16), st.integers(1, 255), st.booleans()), min_size=1, max_size=8)


def flipped(data: bytes, flips: list[tuple[int, int, bool]]) -> bytes:
    """Some bytes changed, many of them in the header, where damage does most."""
    changed = bytearray(data)
    for at, value, early in flips:
        changed[at % (min(200, len(data)) if early else len(data))] ^= value
    return bytes(changed)


@settings(max_examples=150, derandomize=True, deadline=None, database=None)
@given(st.sampled_from(sorted(PICTURES)), FLIPS, st.sampled_from([None, 8]))
def test_a_damaged_picture_is_decoded_or_refused(name: str, flips: list[tuple[int, int, bool]], px: int | None) -> None:
    try:
        image = decode_image(flipped(PICTURES[name], flips), shorter_side_px=px)
    except CellError as error:
        assert 0 < len(str(error)) < 160
    else:
        assert image.dtype == torch.uint8 and image.ndim == 3 and image.shape[0] == 3 and image.numel() > 0


@settings(max_examples=150, derandomize=True, deadline=None, database=None)
@given(st.sampled_from(sorted(SOUNDS)), FLIPS)
def test_a_damaged_sound_is_decoded_or_refused(name: str, flips: list[tuple[int, int, bool]]) -> None:
    try:
        samples = decode_audio(flipped(SOUNDS[name], flips), RATE_HZ)
    except CellError as error:
        assert 0 < len(str(error)) < 160
    else:
        assert samples.dtype == torch.float32 and samples.ndim == 1 and len(samples) > 0
        assert bool(samples.isfinite().all()) and float(samples.abs().max()) <= 1


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(st.sampled_from([data[:16] for data in (*PICTURES.values(), *SOUNDS.values())]), st.binary(max_size=300))
def test_a_true_beginning_with_any_end_is_refused_or_decoded(head: bytes, tail: bytes) -> None:
    for decode in (decode_image, lambda data: decode_audio(data, RATE_HZ)):
        try:
            assert decode(head + tail).numel() > 0
        except CellError:
            continue
