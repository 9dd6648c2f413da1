"""Sound as log-mel frames, and SpecAugment on them: what `audio-cnn` and `audio-rnn` share."""

from __future__ import annotations

import math
import warnings

import torch
import torchaudio
from torch import Tensor, nn

from mmtool.api import CellError
from mmtool.encoders.options import within

WINDOW_S = 0.025
HOP_S = 0.010
FLOOR = 1e-10
RANGE = math.log(1e8)
"""80 dB: what is fainter than the loudest band by more counts as silence, so that the noise of a recording does not."""
LEAST_DEVIATION = 0.1
MASKS = 2
MASKED_SHARE = 0.2
MASKED_FRAMES = 40


class LogMel:
    """A sound -> log energies of `n_mels` bands in windows of 25 ms every 10 ms, of mean 0 and variance 1.

    Mean and variance are over all bands and frames of one sound: loudness goes, the shape of a steady tone stays.
    What is longer than `max_seconds` is cut off. `name` is the encoder's, for errors.
    Raises UsageError for options out of range.
    """

    def __init__(self, name: str, *, sample_rate: int, n_mels: int, max_seconds: float) -> None:
        within(name, "sample_rate", sample_rate, 1_000, 192_000)
        within(name, "n_mels", n_mels, 8, 256)
        within(name, "max_seconds", max_seconds, 0.1, 120)
        self.window, self.hop = round(sample_rate * WINDOW_S), round(sample_rate * HOP_S)
        self.longest = round(sample_rate * max_seconds)
        self.n_fft, self.bands = mel_bands(sample_rate, self.window, n_mels)  # [n_fft // 2 + 1, M]
        self.hann = torch.hann_window(self.window)

    def frames(self, sound: Tensor) -> Tensor:
        """float32 `[S]` -> `[T, n_mels]`; a sound shorter than one window is filled up with silence.

        Raises CellError where there is no sample.
        """
        if not len(sound):
            raise CellError("the sound has no samples", "E_SND_TOO_SHORT")
        cut = sound[: self.longest].float()
        windows = nn.functional.pad(cut, (0, max(0, self.window - len(cut)))).unfold(0, self.window, self.hop)  # [T, W]
        spectrum: Tensor = torch.fft.rfft(windows * self.hann, n=self.n_fft)  # [T, n_fft // 2 + 1]
        mel = (spectrum.abs().square() @ self.bands).clamp(min=FLOOR).log()  # [T, M]
        mel = mel.clamp(min=float(mel.max()) - RANGE)
        return (mel - mel.mean()) / mel.std(correction=0).clamp(min=LEAST_DEVIATION)


def spec_augment(frames: Tensor) -> Tensor:
    """`[B, T, M]` with two stretches of time and two of bands at 0, the mean, drawn for each row by torch's generator.

    A stretch of time has up to 0.4 s, and a fifth of T; one of bands up to a fifth of them.
    Paper: Park et al., 2019 (SpecAugment).
    """
    x = frames.unsqueeze(1)  # [B, 1, T, M]
    for _ in range(MASKS):
        x = torchaudio.functional.mask_along_axis_iid(x, MASKED_FRAMES, 0.0, 2, MASKED_SHARE)
        x = torchaudio.functional.mask_along_axis_iid(x, x.shape[3], 0.0, 3, MASKED_SHARE)
    return x.squeeze(1)


def mel_bands(sample_rate: int, window: int, n_mels: int) -> tuple[int, Tensor]:
    """FFT length and triangles `[n_fft // 2 + 1, M]`; long enough that the narrowest band has a frequency in it."""
    n_fft = 1 << (window - 1).bit_length()
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of empty bands: that is what the loop is for
            bands: Tensor = torchaudio.functional.melscale_fbanks(
                n_fft // 2 + 1, 20.0, sample_rate / 2, n_mels, sample_rate)
        if bool((bands.amax(0) > 0).all()):
            return n_fft, bands
        n_fft *= 2
