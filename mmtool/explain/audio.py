"""Which seconds: a sound cut into short stretches, each of which can be cut out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from mmtool.explain.parts import Kept, Parts, rounded

Fill = Literal["cut", "faint"]

STRETCH_S = 0.25
MOST_PARTS = 40
LEAST_PARTS = 4
FAINT = 0.01


def parts(cell: Tensor, sample_rate_hz: int, fill: Fill = "cut") -> Parts:
    """float32 `[S]` -> stretches of a quarter of a second, longer in a sound of over ten seconds.

    A stretch that is not kept is cut out, or made a hundred times fainter: digital silence is like no other sound.
    `seconds` in the JSON is [[start, end, score], ...].
    """
    count = min(len(cell), max(LEAST_PARTS, min(MOST_PARTS, math.ceil(len(cell) / sample_rate_hz / STRETCH_S))))
    stretch = torch.arange(len(cell)) * count // len(cell)  # [S], the stretch of each sample
    borders = [math.ceil(len(cell) * i / count) / sample_rate_hz for i in range(count + 1)]

    def keep(kept: Kept) -> Tensor | None:
        there = torch.tensor(kept)[stretch]  # [S]
        if fill == "faint":
            return torch.where(there, cell, FAINT * cell)
        return cell[there] if any(kept) else None

    def describe(scores: Sequence[float]) -> dict[str, Any]:
        return {"seconds": [[round(borders[i], 3), round(borders[i + 1], 3), rounded(s)] for i, s in enumerate(scores)]}

    return Parts(count, keep, describe)
