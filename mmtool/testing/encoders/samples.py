"""Cells made in code, one list a modality: the shapes, lengths and scripts that a contract check tries."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

TEXTS = (
    "a red bicycle, hardly used",
    "A",
    "Ein grünes Fahrrad: größer als gedacht, aber gut gepflegt.",
    "赤い自転車、ほとんど未使用です",
    "دراجة حمراء شبه جديدة",
    "красный велосипед, почти новый",
    "🚲✨ 👩‍👩‍👧 \N{COMBINING ACUTE ACCENT}",
    "two\nlines,\ta tab and 12,345.67 €",
    "the quick brown fox jumps over the lazy dog, and then it does so again; " * 30,
)


def image_cells() -> list[Tensor]:
    """uint8 `[3, H, W]`: wide, tall, square, tiny, of one colour, a single pixel."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((64, 96), (120, 80), (224, 224), (5, 7))
    noisy = [torch.randint(0, 256, (3, *shape), generator=generator, dtype=torch.uint8) for shape in shapes]
    ramp = torch.linspace(0, 255, 100).to(torch.uint8).expand(3, 75, 100).clone()
    return [*noisy, ramp, torch.zeros(3, 40, 40, dtype=torch.uint8), torch.full((3, 1, 1), 200, dtype=torch.uint8)]


def audio_cells(rate_hz: int) -> list[Tensor]:
    """float32 `[S]` in [-1, 1]: noise, a tone, silence, of several lengths, two of them equal, down to 5 ms."""
    generator = torch.Generator().manual_seed(0)

    def noise(seconds: float) -> Tensor:
        return torch.rand(round(seconds * rate_hz), generator=generator) - 0.5

    def tone(seconds: float, hz: float) -> Tensor:
        return 0.8 * torch.sin(torch.arange(round(seconds * rate_hz)) * (2 * math.pi * hz / rate_hz))

    return [noise(1.0), tone(1.0, 440.0), noise(0.37), tone(2.3, 1000.0), torch.zeros(rate_hz // 2), noise(0.005)]


def table_cells() -> list[dict[str, float | str | None]]:
    """Rows of four columns: numbers small and large, strings, and missing values."""
    return [
        {"price": 12.5, "year": 1999.0, "colour": "red", "maker": "Ada & Sons"},
        {"price": -3.0, "year": 2024.0, "colour": "blue", "maker": None},
        {"price": None, "year": 2003.0, "colour": "red", "maker": "Größe"},
        {"price": 1e9, "year": 1987.0, "colour": None, "maker": "赤"},
        {"price": 0.0, "year": None, "colour": "green", "maker": "Ada & Sons"},
        {"price": None, "year": None, "colour": "blue", "maker": None},
    ]


def other_cells() -> list[bytes]:
    """A file's bytes, of several lengths, two of them equal."""
    return [b"1,2,3\n4,5,6\n", b"7,8,9\n1,2,4\n", bytes(range(256)) * 3, b"\0", b"0.5 0.25 0.125 " * 40]


def cells_for(modality: str, sample_rate_hz: int) -> list[Any]:
    """The cells of a modality, as its encoders' `prepare` gets them."""
    if modality == "image":
        return list(image_cells())
    if modality == "audio":
        return list(audio_cells(sample_rate_hz))
    if modality == "text":
        return list(TEXTS)
    return list(table_cells() if modality == "table" else other_cells())
