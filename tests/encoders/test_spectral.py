"""`spectral`: bands where the sound is, statistics as textbooks define them, and nothing made up at the edges."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mmtool import encoding
from mmtool.api import CellError, Tokens, UsageError
from mmtool.encoders import spectral
from mmtool.encoders.spectral import Spectral


def tone(hz: float, seconds: float = 0.5, rate: int = 16_000) -> Tensor:
    return 0.5 * torch.sin(torch.arange(round(seconds * rate)) * (2 * math.pi * hz / rate))


def noise(samples: int, seed: int = 0) -> Tensor:
    return torch.rand(samples, generator=torch.Generator().manual_seed(seed)) - 0.5


def test_a_frame_holds_bands_cepstra_and_slopes() -> None:
    encoder = Spectral(n_mels=40, n_mfcc=13)
    frames = encoder.prepare(noise(16_000))
    assert frames.shape == (49, 66) and encoder.dim == 66 and encoder.pretrained
    mel, cepstra = frames[:, :40], frames[:, 40:53]
    order = torch.arange(13).unsqueeze(1) * math.pi / 40 * (torch.arange(40) + 0.5)  # [C, M]
    basis = order.cos() * math.sqrt(2 / 40)
    basis[0] /= math.sqrt(2)
    torch.testing.assert_close(cepstra, mel @ basis.T, rtol=1e-4, atol=1e-4)


def test_a_higher_tone_is_in_a_higher_band() -> None:
    encoder = Spectral()
    loudest = [int(encoder.prepare(tone(hz))[:, :64].mean(0).argmax()) for hz in (200, 500, 1_000, 2_000, 4_000, 7_000)]
    assert loudest == sorted(set(loudest)) and loudest[0] < 8 and loudest[-1] > 55


def test_a_louder_sound_moves_every_band_by_the_same_amount() -> None:
    encoder = Spectral()
    change = encoder.prepare(0.5 * noise(8_000))[:, :64] - encoder.prepare(0.05 * noise(8_000))[:, :64]
    torch.testing.assert_close(change, torch.full_like(change, math.log(100)), rtol=0, atol=0.02)


def test_slopes_of_a_steady_sound_are_nothing() -> None:
    assert Spectral().prepare(noise(160).repeat(50))[:, 84:].abs().max() < 1e-4
    assert Spectral().prepare(torch.cat([noise(4_000), 0.01 * noise(4_000)]))[:, 84].abs().max() > 1


def test_the_pooled_feature_is_mean_deviation_and_quantiles(pooled: Callable[..., Tensor]) -> None:
    encoder = Spectral()
    frames = encoder.prepare(noise(9_000))
    quantiles = frames.quantile(torch.tensor([0.1, 0.5, 0.9]), dim=0).flatten()
    expected = torch.cat([frames.mean(0), frames.std(0, correction=0), quantiles])
    # beside a longer sound: what is padded must not count
    torch.testing.assert_close(pooled(encoder, noise(9_000), noise(30_000, 1))[0], expected, rtol=1e-4, atol=1e-4)


def test_a_missing_sound_pools_to_zeros() -> None:
    encoder = Spectral()
    tokens = Tokens.from_rows([None, encoder.prepare(noise(4_000))])
    assert torch.equal(encoder.pool(tokens)[0], torch.zeros(5 * encoder.dim))


@pytest.mark.parametrize("samples", [1, 80, 399, 400])
def test_a_sound_shorter_than_a_window_is_one_frame(samples: int, pooled: Callable[..., Tensor]) -> None:
    encoder = Spectral()
    assert encoder.prepare(noise(samples)).shape == (1, encoder.dim)
    assert bool(pooled(encoder, noise(samples)).isfinite().all())


def test_silence_is_finite_and_nothing_at_all_is_a_bad_cell() -> None:
    assert bool(Spectral().prepare(torch.zeros(5_000)).isfinite().all())
    with pytest.raises(CellError, match="no samples"):
        Spectral().prepare(torch.zeros(0))


def test_a_frame_depends_on_its_own_part_of_the_sound_only() -> None:
    encoder, whole = Spectral(), noise(16_000)
    frames = encoder.prepare(whole)
    # slopes look two frames ahead, so the last two frames of the shorter sound differ in them
    part = encoder.prepare(whole[:8_000])
    torch.testing.assert_close(part[:-3], frames[: len(part) - 3], rtol=1e-5, atol=1e-5)


def test_a_long_sound_is_computed_in_blocks_to_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Spectral()
    expected = encoder.prepare(noise(16_000))
    monkeypatch.setattr(spectral, "BLOCK", 7)
    torch.testing.assert_close(encoder.prepare(noise(16_000)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("rate", "n_mels"), [(8_000, 128), (16_000, 256), (48_000, 40)])
def test_no_band_is_empty(rate: int, n_mels: int) -> None:
    encoder = Spectral(sample_rate=rate, n_mels=n_mels)
    assert encoder.sample_rate_hz == rate and bool((encoder.bands.amax(0) > 0).all())
    assert len(encoder.prepare(noise(rate))) == 49


@pytest.mark.parametrize("options", ["8", "16000,n_mels=0", "16000,n_mfcc=65", "16000,n_mels=300"])
def test_options_that_leave_nothing_to_compute_are_refused(options: str) -> None:
    with pytest.raises(UsageError, match="spectral: "):
        encoding.build(f"spectral:{options}")
