"""Sound as mel spectra and cepstra: an encoder without weights."""

from __future__ import annotations

from typing import ClassVar

import torch
import torchaudio
from torch import Tensor, nn

from mmtool.api import CellError, Encoder, Tokens, UsageError
from mmtool.encoders.log_mel import HOP_S, WINDOW_S, mel_bands

FLOOR = 1e-9
PARTS = (0.1, 0.5, 0.9)
BLOCK = 4_096
"""Windows that are transformed at once: an hour of sound must not need gigabytes."""


class Spectral(Encoder):
    """Frames of 20 ms: the log energies of `n_mels` bands, `n_mfcc` cepstral coefficients and their slopes.

    The pooled feature is the mean, the standard deviation and three quantiles of each over time.
    Raises UsageError for options that leave nothing to compute.
    Papers: Davis and Mermelstein, 1980 (cepstra); Furui, 1986 (slopes).
    """

    api: ClassVar[int] = 1
    modality: ClassVar[str] = "audio"
    pretrained = True
    hann: Tensor
    bands: Tensor
    dct: Tensor

    def __init__(self, *, sample_rate: int = 16_000, n_mels: int = 64, n_mfcc: int = 20) -> None:
        super().__init__()
        if not 1_000 <= sample_rate <= 192_000:
            raise UsageError(f"spectral: sample_rate={sample_rate} is not between 1000 and 192000 Hz")
        if not 1 <= n_mfcc <= n_mels <= 256:
            raise UsageError(f"spectral: n_mels={n_mels}, n_mfcc={n_mfcc}; 1 <= n_mfcc <= n_mels <= 256 must hold")
        self.sample_rate_hz = sample_rate
        self.window, self.hop = round(sample_rate * WINDOW_S), round(sample_rate * HOP_S)
        self.n_fft, bands = mel_bands(sample_rate, self.window, n_mels)
        window = torch.hann_window(self.window)
        # options alone decide these, so they are no weights and not saved
        self.register_buffer("hann", window / window.square().sum().sqrt(), persistent=False)
        self.register_buffer("bands", bands, persistent=False)  # [n_fft // 2 + 1, M]
        self.register_buffer("dct", torchaudio.functional.create_dct(n_mfcc, n_mels, "ortho"), persistent=False)
        self.dim = n_mels + 2 * n_mfcc

    def prepare(self, cell: Tensor) -> Tensor:
        """float32 `[S]` -> frames `[T, dim]`; a sound shorter than one window (25 ms) is filled up with silence."""
        if not len(cell):
            raise CellError("the sound has no samples", "E_SND_TOO_SHORT")
        sound = nn.functional.pad(cell.float(), (0, max(0, self.window - len(cell))))
        # whole windows only: nothing is made up at the edges
        windows = sound.unfold(0, self.window, self.hop)  # [2 T, W]
        energies = torch.cat([self._energies(part) for part in torch.split(windows, BLOCK)])  # [2 T, M]
        mel = (_pairs(energies) + FLOOR).log()  # [T, M]
        cepstra = mel @ self.dct  # [T, C]
        slopes = torchaudio.functional.compute_deltas(cepstra.T.unsqueeze(0))[0].T  # [T, C]
        return torch.cat([mel, cepstra, slopes], dim=1)

    def _energies(self, windows: Tensor) -> Tensor:
        spectrum: Tensor = torch.fft.rfft(windows * self.hann, n=self.n_fft)  # [N, n_fft // 2 + 1]
        return spectrum.abs().square() @ self.bands

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        """`[B, T, dim]` as it was prepared."""
        return Tokens(x, torch.arange(x.shape[1], device=x.device) < lengths.to(x.device).unsqueeze(1))

    def pool(self, tokens: Tokens) -> Tensor:
        """Mean, standard deviation and quantiles (0.1, 0.5, 0.9) over time, `[B, 5 dim]`; zero where missing."""
        w = tokens.mask.unsqueeze(-1)  # [B, T, 1]
        mean = tokens.mean()  # [B, D]
        count = w.sum(1).clamp(min=1)  # [B, 1]
        spread = (tokens.values - mean.unsqueeze(1)).masked_fill(~w, 0)  # [B, T, D]
        deviation = (spread.square().sum(1) / count).sqrt()  # [B, D]
        ranked = tokens.values.masked_fill(~w, torch.inf).transpose(-1, -2).contiguous().sort().values  # [B, D, T]
        quantiles = [self._at(ranked, part * (count - 1)) for part in PARTS]
        return torch.cat([mean, deviation, *quantiles], dim=1).masked_fill(~tokens.present.unsqueeze(1), 0)

    @staticmethod
    def _at(ranked: Tensor, place: Tensor) -> Tensor:
        # place [B, 1], between two frames as a rule: straight line from one to the next
        low, high = (i.long().unsqueeze(1).expand(-1, ranked.shape[1], 1) for i in (place.floor(), place.ceil()))
        below, above = ranked.gather(2, low)[..., 0], ranked.gather(2, high)[..., 0]  # [B, D]
        return below + (above - below) * (place - place.floor())


def _pairs(frames: Tensor) -> Tensor:
    # mean of two neighbours, 10 ms -> 20 ms; an odd last one stays as it is
    whole = frames[: len(frames) // 2 * 2].reshape(-1, 2, frames.shape[1]).mean(1)  # [N // 2, M]
    return torch.cat([whole, frames[len(frames) // 2 * 2 :]])
