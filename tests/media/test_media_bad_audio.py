"""What is no whole sound is refused with a short reason, and never silently shortened."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from media_samples import audio_reason, sound, sounds, tone, wav, without_info_frame

from mmtool.media.audio import decode_audio
from mmtool.media.limits import Limits


@pytest.mark.parametrize("name", sounds())
def test_a_sound_cut_at_every_twentieth_is_refused(name: str) -> None:
    data = sounds()[name]
    for percent in range(0, 100, 5):
        reason = audio_reason(data[: len(data) * percent // 100])
        assert reason.startswith(("truncated", "empty file", "broken")), reason
    assert audio_reason(data[:-1]).startswith(("truncated", "broken"))


def test_a_cut_wav_says_what_is_missing() -> None:
    data = wav(bytes(88_200))
    assert audio_reason(data[: 44 + 1024]) == "truncated WAV: header promises 88200 bytes of samples, 1024 are there"
    assert audio_reason(data[:40]) == "truncated WAV: no samples in it"


def test_a_vorbis_cut_between_two_pages_is_refused() -> None:
    data = sound(tone(30.0), "OGG", "VORBIS")
    last = data.rindex(b"OggS")
    assert data.count(b"OggS") > 4
    assert audio_reason(data[:last]) == "truncated OGG: no page marks the end of the stream"


def test_a_flac_that_promises_more_is_refused() -> None:
    data = bytearray(sounds()["flac"])
    data[22:26] = struct.pack(">I", 2 * len(tone()))
    assert audio_reason(bytes(data)).startswith(("truncated FLAC", "broken FLAC"))


@pytest.mark.parametrize(("data", "reason"), [
    (b"", "empty file"),
    (b"hello world", "not a sound file (starts with 'hello w')"),
    (b"RIFF\x04\0\0\0WAVE", "truncated WAV: no samples in it"),
    (b"ID3\x04\0\0\0\0\0\x02\0\0", "broken MP3: Format not recognised"),
    (wav(b""), "sound has no samples"),
    (wav(b"", after=b"LIST\x08\0\0\0INFOabcd"), "sound has no samples"),
    (wav(bytes(64), rate_hz=0), "sample rate of 0 Hz is outside 100 to 1000000 Hz"),
    (wav(bytes(64), rate_hz=1), "sample rate of 1 Hz is outside 100 to 1000000 Hz"),
    (wav(bytes(64), rate_hz=2**31 - 1), "sample rate of 2147483647 Hz is outside 100 to 1000000 Hz"),
    (wav(bytes(64), rate_hz=2**32 - 1), "sample rate of 4294967295 Hz is outside 100 to 1000000 Hz"),
    (wav(bytes(2), rate_hz=96_000), "sound is shorter than one sample at 16000 Hz"),
])
def test_reasons_are_short_and_plain(data: bytes, reason: str) -> None:
    assert audio_reason(data) == reason


def test_other_formats_of_libsndfile_are_not_opened() -> None:
    for name in ("AIFF", "AU", "CAF", "W64"):
        assert audio_reason(sound(tone(), name)).startswith("not a sound file")


@pytest.mark.parametrize("values", [(0.0, np.nan), (np.inf, 0.0), (np.inf, -np.inf)])
def test_samples_that_are_no_numbers_are_refused(values: tuple[float, float]) -> None:
    x = np.stack([tone(), tone()], 1)
    x[-1] = values
    assert audio_reason(sound(x, "WAV", "FLOAT")) == "samples that are no finite numbers (NaN or infinity)"


def test_samples_in_another_unit_are_refused() -> None:
    assert audio_reason(sound(tone() * 32768, "WAV", "FLOAT")).endswith("are not in [-1, 1]")


def test_limits_hold_by_the_header() -> None:
    data = wav(bytes(32_000), channels=2)  # half a second
    assert len(decode_audio(data, 16_000, Limits(max_seconds=0.5, max_pcm_bytes=64_000))) == 8000
    assert audio_reason(data, Limits(max_seconds=0.49)) == "sound of 0.5 s is over the limit of 0.49 s"
    assert "MiB of samples is over the limit" in audio_reason(data, Limits(max_pcm_bytes=63_999))
    assert "bytes is over the limit" in audio_reason(data, Limits(max_file_bytes=1000))


def test_a_header_that_promises_days_is_refused_unread() -> None:
    data = bytearray(sounds()["flac"])
    data[21] |= 0x0F
    data[22:26] = b"\xff\xff\xff\xff"
    assert audio_reason(bytes(data)) == "sound of 4294967.3 s is over the limit of 600 s"


def test_a_sound_of_unknown_length_is_limited_as_it_is_read() -> None:
    data = bytearray(sounds()["flac"])
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    assert audio_reason(bytes(data), Limits(max_seconds=0.1)) == "sound of 0.5 s is over the limit of 0.1 s"


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    mp3 = bytearray(without_info_frame(sound(tone(2.0), "MP3")))
    for at in range(700, len(mp3), 97):
        mp3[at] ^= 0x55
    audio_reason(bytes(mp3))  # libmpg123 speaks from C
    assert capfd.readouterr() == ("", "")
    print("heard")
    assert capfd.readouterr().out == "heard\n"
