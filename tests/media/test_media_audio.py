"""What a sound becomes: float32 [S], mono, in [-1, 1], at the rate asked for."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from media_samples import RATE_HZ, sound, sounds, tone, wav, without_info_frame

from mmtool.media.audio import decode_audio


def as_16_bit(samples: np.ndarray) -> bytes:
    return (samples * 32767).round().astype("<i2").tobytes()


@pytest.mark.parametrize(("subtype", "tolerance"), [
    ("PCM_U8", 0.01), ("PCM_16", 5e-5), ("PCM_24", 1e-6), ("PCM_32", 1e-7), ("FLOAT", 0.0), ("DOUBLE", 1e-7),
    ("ULAW", 0.02), ("ALAW", 0.02),
])
def test_every_sample_format_keeps_its_scale(subtype: str, tolerance: float) -> None:
    x = tone()
    y = decode_audio(sound(x, "WAV", subtype), RATE_HZ)[: len(x)]
    assert y.dtype == torch.float32 and y.shape == (len(x),)
    assert np.abs(y.numpy() - x).max() <= tolerance


@pytest.mark.parametrize("name", sounds())
def test_every_codec_gives_the_same_sound(name: str) -> None:
    x = tone()
    y = decode_audio(sounds()[name], RATE_HZ).numpy()[: len(x)]
    assert len(y) == len(x) and np.corrcoef(x, y)[0, 1] > 0.99
    assert 0.4 < np.abs(y[1000:-1000]).max() < 0.6


def test_big_endian_and_64_bit_wav() -> None:
    x = tone()
    for data in (sound(x, "WAV", "PCM_16", endian="BIG"), sound(x, "RF64", "PCM_16"), sound(x, "WAVEX", "PCM_24")):
        assert data[:4] in (b"RIFX", b"RF64", b"RIFF")
        assert np.abs(decode_audio(data, RATE_HZ).numpy() - x).max() < 5e-5


def test_channels_are_averaged() -> None:
    x = tone()
    data = sound(np.stack([x, -x, x, 0 * x, 0 * x], 1), "WAV", "FLOAT")
    assert np.allclose(decode_audio(data, RATE_HZ).numpy(), x / 5, atol=1e-7)


@pytest.mark.parametrize(("from_hz", "to_hz"), [(44_100, 16_000), (8_000, 16_000), (48_000, 44_100), (192_000, 8_000)])
def test_resampling_keeps_pitch_level_and_length(from_hz: int, to_hz: int) -> None:
    y = decode_audio(sound(tone(0.5, from_hz), "WAV", "FLOAT", from_hz), to_hz).numpy()
    assert len(y) == to_hz // 2
    assert np.abs(y - tone(0.5, to_hz))[500:-500].max() < 0.05


def test_resampling_does_not_alias() -> None:
    high = tone(0.5, 44_100, hz=12_000)
    y = decode_audio(sound(high, "WAV", "FLOAT", 44_100), 16_000).numpy()
    assert np.abs(y[500:-500]).max() < 0.02


def test_a_long_mp3_read_in_blocks_has_no_seams() -> None:
    x = tone(20.0)
    y = decode_audio(sound(x, "MP3"), RATE_HZ).numpy()
    assert len(y) == len(x) and np.abs(y - x)[1000:-1000].max() < 0.05


def test_floats_beyond_one_are_clipped_without_rescaling() -> None:
    y = decode_audio(sound(np.array([0.25, 1.5, -3.0, 0.5], "f4"), "WAV", "FLOAT"), RATE_HZ)
    assert y.tolist() == [0.25, 1.0, -1.0, 0.5]


def test_the_sample_count_of_a_wav_may_be_unknown() -> None:
    x = as_16_bit(tone())
    whole = decode_audio(wav(x), RATE_HZ)
    for riff_size, data_size in ((0xFFFFFFFF, 0xFFFFFFFF), (0, 0), (8, 0), (36, 0), (0x7FFFF024, 0x7FFFF000)):
        assert torch.equal(decode_audio(wav(x, riff_size=riff_size, data_size=data_size), RATE_HZ), whole)
    # The price: such a file has nothing that would tell where it was cut.
    cut = wav(x[:-4000], riff_size=0xFFFFFFFF, data_size=0xFFFFFFFF)
    assert torch.equal(decode_audio(cut, RATE_HZ), whole[:-2000])


def test_chunks_around_the_samples_are_no_samples() -> None:
    x = as_16_bit(tone())
    note = b"LIST" + struct.pack("<I", 5) + b"INFO!\0"
    whole = decode_audio(wav(x), RATE_HZ)
    assert torch.equal(decode_audio(wav(x, before=note, after=note), RATE_HZ), whole)
    assert torch.equal(decode_audio(wav(x, after=note[:7]), RATE_HZ), whole)  # cut behind the last sample


def test_an_odd_number_of_bytes_needs_no_padding() -> None:
    x = bytes(range(100, 151))
    assert len(decode_audio(wav(x, bits=8), RATE_HZ)) == 51
    assert len(decode_audio(wav(x, bits=8, after=b"\0"), RATE_HZ)) == 51


def test_a_flac_may_not_know_its_length() -> None:
    data = bytearray(sounds()["flac"])
    whole = decode_audio(bytes(data), RATE_HZ)
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    assert torch.equal(decode_audio(bytes(data), RATE_HZ), whole)


def test_an_id3_tag_is_skipped() -> None:
    tag = b"ID3\x04\0\0\0\0\x01\x00" + bytes(128)
    for name in ("mp3", "flac"):
        assert torch.equal(decode_audio(tag + sounds()[name], RATE_HZ), decode_audio(sounds()[name], RATE_HZ))


def test_an_mp3_without_an_info_header_is_read_to_its_end() -> None:
    data = without_info_frame(sounds()["mp3"])
    whole = decode_audio(data, RATE_HZ)
    assert abs(len(whole) - len(tone())) < 4 * 1152
    # The price: nothing in it would tell that half of it is missing.
    assert 0 < len(decode_audio(data[: len(data) // 2], RATE_HZ)) < len(whole)


def test_the_same_bytes_give_the_same_bits_in_many_threads() -> None:
    files = list(sounds().values()) * 4
    with ThreadPoolExecutor(8) as pool:
        many = list(pool.map(lambda data: decode_audio(data, 22_050), files))
    assert all(torch.equal(decode_audio(data, 22_050), one) for data, one in zip(files, many, strict=True))
