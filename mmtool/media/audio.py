"""Bytes of a sound -> float32 samples, mono, at the rate that an encoder wants."""

from __future__ import annotations

import io
from contextlib import nullcontext
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmtool.errors import CellError
from mmtool.media import sound_headers
from mmtool.media.limits import Limits
from mmtool.media.quiet import silent_stderr
from mmtool.media.sniff import end_of_id3, sound_format

_BLOCK_SAMPLES = 2**18
_UNKNOWN_FRAMES = 2**62  # a FLAC written to a pipe does not know its length
_MAX_PEAK = 32.0


def decode_audio(data: bytes, rate_hz: int, limits: Limits = Limits()) -> Tensor:
    """WAV, FLAC, OGG (Vorbis, Opus) or MP3 -> float32 `[S]`, mono, at `rate_hz`, in [-1, 1].

    The format is told by the bytes. Channels are averaged, then resampled (soxr HQ). The scale is the file's: floats
    somewhat beyond [-1, 1] are clipped, and a peak over 32 is refused, since it means another unit.
    Raises CellError, with a short reason, for whatever is wrong with the bytes; a file that ends before its header
    says is bad. That cannot be told of a WAV that states no size, nor of an MP3 without a Xing or Info header.
    """
    assert rate_hz > 0
    if not data:
        raise CellError("empty file", "E_CELL_EMPTY")
    if len(data) > limits.max_file_bytes:
        raise CellError(f"file of {len(data)} bytes is over the limit of {limits.max_file_bytes}", "E_CELL_TOO_LARGE")
    name = sound_format(data)
    if name is None:
        raise CellError(f"not a sound file (starts with {repr(data[:7])[1:]})", "E_SND_FORMAT")
    if name == "WAV":
        data = sound_headers.check_wav(data)
    elif name == "OGG":
        sound_headers.check_ogg(data)
    else:
        data = data[end_of_id3(data) :]
    try:
        # libmpg123 prints from C, numpy warns of infinities that are about to be refused.
        with silent_stderr() if name == "MP3" else nullcontext(), np.errstate(all="ignore"):
            mono, file_rate_hz = _read_mono(data, name, limits)
        if file_rate_hz != rate_hz:
            mono = soxr.resample(mono, file_rate_hz, rate_hz, quality=soxr.HQ)
    except (CellError, MemoryError):
        raise
    except Exception as error:
        raise CellError(_reason(name, error), "E_SND_BROKEN") from error
    if not len(mono):
        raise CellError(f"sound is shorter than one sample at {rate_hz} Hz", "E_SND_TOO_SHORT")
    return torch.from_numpy(np.clip(mono, -1.0, 1.0))  # [S]


class _OneWay(soundfile.SoundFile):  # type: ignore[misc]
    """soundfile seeks after each block it reads; an MP3 then decodes otherwise, and some FLAC cannot."""

    def seekable(self) -> bool:
        return False


def _read_mono(data: bytes, name: str, limits: Limits) -> tuple[NDArray[np.float32], int]:
    """Samples `[S]` at the file's own rate, and that rate in Hz. Memory grows with what is read, not promised."""
    with _OneWay(io.BytesIO(data)) as file:
        rate_hz, channels, promised = int(file.samplerate), int(file.channels), int(file.frames)
        sound_headers.check_rate(rate_hz)
        known = promised < _UNKNOWN_FRAMES
        if known:
            _check_length(promised, rate_hz, channels, limits)
        block = np.empty((max(1, _BLOCK_SAMPLES // channels), channels), np.float32)
        parts, total = [], 0
        while len(read := file.read(out=block)):  # [N, channels]
            parts.append(_average(read))
            total += len(read)
            _check_length(total, rate_hz, channels, limits)
    if known and total < promised:
        raise CellError(f"truncated {name}: header promises {promised} samples, {total} are there", "E_SND_TRUNCATED")
    if not total:
        raise CellError("sound has no samples", "E_SND_TOO_SHORT")
    return np.concatenate(parts), rate_hz


def _average(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """`[N, channels]` -> `[N]`, checked."""
    mono: Any = block.mean(1, dtype=np.float32)
    peak = float(np.abs(block).max())
    if not np.isfinite(peak):
        raise CellError("samples that are no finite numbers (NaN or infinity)", "E_SND_SAMPLES")
    if peak > _MAX_PEAK:
        raise CellError(f"samples up to {peak:g} are not in [-1, 1]", "E_SND_SAMPLES")
    return np.array(mono)


def _check_length(frames: int, rate_hz: int, channels: int, limits: Limits) -> None:
    if frames > limits.max_seconds * rate_hz:
        raise CellError(f"sound of {frames / rate_hz:.1f} s is over the limit of {limits.max_seconds:g} s",
                        "E_SND_TOO_LONG")
    pcm_bytes = frames * channels * 4
    if pcm_bytes > limits.max_pcm_bytes:
        raise CellError(f"sound of {pcm_bytes / 2**20:.1f} MiB of samples is over the limit of "
                        f"{limits.max_pcm_bytes / 2**20:g} MiB", "E_SND_TOO_LONG")


def _reason(name: str, error: Exception) -> str:
    """One short line from what libsndfile said."""
    text = str(getattr(error, "error_string", error)).removeprefix("Error : ").rstrip(".")
    if "regular file" in text:  # libsndfile's word for an MP3 without one whole frame
        return f"broken {name}: no sound in it"
    return f"broken {name}: {(text or type(error).__name__)[:80]}"
