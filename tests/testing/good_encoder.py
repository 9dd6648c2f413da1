"""An encoder that keeps the contract, for others to break."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mmtool.api import Encoder, Tokens


class Good(Encoder):
    """Characters through an embedding, a convolution and a fitted scale; everything that a contract can ask."""

    api = 1
    modality = "text"
    pretrained = True
    space = "letters"
    dim = 8

    def __init__(self, *, width: int = 3) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, 8)
        self.mix = nn.Conv1d(8, 8, width, padding=width // 2)
        self.scale = torch.ones(1)

    def fit(self, cells: Iterable[Any]) -> None:
        self.scale = torch.tensor([float(max(len(cell) for cell in cells))])

    def assets(self) -> dict[str, Tensor]:
        return {"scale": self.scale}

    def set_assets(self, assets: dict[str, Tensor]) -> None:
        self.scale = assets["scale"]

    def prepare(self, cell: str) -> Tensor:
        return torch.tensor([ord(ch) % 127 + 1 for ch in cell[:50]])

    def mask(self, x: Tensor, lengths: Tensor) -> Tensor:
        return torch.arange(x.shape[1]) < lengths.unsqueeze(1)  # [B, L]

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        mask = self.mask(x, lengths)
        values = self.embed(x) * mask.unsqueeze(-1) / self.scale  # [B, L, 8]
        return Tokens(self.mix(values.transpose(1, 2)).transpose(1, 2), mask)

    def to_space(self, tokens: Tokens) -> Tensor:
        return self.pool(tokens)


CELLS = ["a red bicycle", "A", "größer 🚲", "赤い自転車", "the quick brown fox " * 3]
