"""Augmentation of sounds, float32 `[S]` in [-1, 1], at any rate. Every operation takes them from one sample up."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torchaudio
from torch import Tensor, nn

SHIFT = 1 / 10
GAIN_DB = 6.0
NOISE_DB = (10.0, 30.0)
SPEEDS = (9, 10, 11)
"""In tenths."""


def augment(sound: Tensor, words: Sequence[str], seed: int) -> Tensor:
    """The operations that `words` name, in that order."""
    generator = torch.Generator().manual_seed(seed)
    for word in words:
        sound = OPERATIONS[word](sound, generator).clamp(-1, 1)
    return sound


def _between(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _shift(sound: Tensor, generator: torch.Generator) -> Tensor:
    by = round(len(sound) * _between(-SHIFT, SHIFT, generator))
    return nn.functional.pad(sound, (by, -by))  # a negative padding cuts off


def _gain(sound: Tensor, generator: torch.Generator) -> Tensor:
    peak = float(sound.abs().max()) if len(sound) else 0.0
    room_db = -20 * math.log10(peak) if peak > 0 else GAIN_DB
    louder: Tensor = torchaudio.functional.gain(sound, _between(-GAIN_DB, min(GAIN_DB, room_db), generator))
    return louder


def _noise(sound: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(sound.shape, generator=generator)
    ratio_db = torch.tensor(_between(*NOISE_DB, generator))
    noisy: Tensor = torchaudio.functional.add_noise(sound, noise, ratio_db)
    return noisy


def _speed(sound: Tensor, generator: torch.Generator) -> Tensor:
    tenths = SPEEDS[int(torch.randint(len(SPEEDS), (), generator=generator))]
    # as if recorded at tenths / 10 of its rate: the small ratio keeps the filter small, whatever the rate is
    changed: Tensor = torchaudio.functional.resample(sound, tenths, 10)
    return changed


OPERATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "shift": _shift, "gain": _gain, "noise": _noise, "speed": _speed,
}
