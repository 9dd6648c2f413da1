"""Encoders with one mistake each, in `forward`, `pool`, `to_space` or what they keep."""

import time
from typing import Any

import torch
from good_encoder import Good
from torch import Tensor, nn

from mmtool.api import Encoder, Tokens


class WrongDim(Good):
    dim = 9


class NoTokens(Good):
    def forward(self, x: Tensor, lengths: Tensor) -> Any:
        return super().forward(x, lengths).values


class MaskedInFront(Good):
    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        tokens = super().forward(x, lengths)
        return Tokens(tokens.values, tokens.mask.flip(1))


class FloatMask(Good):
    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        tokens = super().forward(x, lengths)
        return Tokens(tokens.values, tokens.mask.float())


class LosesShortRows(Good):
    def mask(self, x: Tensor, lengths: Tensor) -> Tensor:
        return super().mask(x, lengths // 2)


class DividesByZero(Good):
    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        tokens = super().forward(x, lengths)
        return Tokens(tokens.values / (lengths - 1).view(-1, 1, 1), tokens.mask)


class Noisy(Good):
    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        tokens = super().forward(x, lengths)
        return Tokens(nn.functional.dropout(tokens.values), tokens.mask)


class WritesItsInput(Good):
    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        return super().forward(x.remainder_(64), lengths)


class LooksAtTheBatch(Good):
    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        tokens = super().forward(x, lengths)
        return Tokens(tokens.values - tokens.values.mean((0, 1)), tokens.mask)


class CountsPaddingAsTokens(Good):
    def mask(self, x: Tensor, lengths: Tensor) -> Tensor:
        return torch.ones_like(x, dtype=torch.bool)


class Coarse(Good):
    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        tokens = super().forward(x, lengths)
        return Tokens(tokens.values * (1 + torch.is_autocast_enabled("cpu") * len(x)), tokens.mask)


class SpoiltByZeros(Good):
    def prepare(self, cell: str) -> Tensor:
        return super().prepare(cell.ljust(50))

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        tokens = super().forward(x, lengths)
        return Tokens(tokens.values * (1 + (x == 0).all(1).any()), tokens.mask)


class RemembersTheBatch(Good):
    def forward(self, x, lengths):
        self.last = super().forward(x, lengths)
        time.sleep(0.002)  # an operation that lets other threads run
        return self.last


class GuessesThePadding(Good):
    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        values = (self.embed(x) * (x != 0).unsqueeze(-1)).transpose(1, 2) / self.scale
        return Tokens(self.mix(values).transpose(1, 2), self.mask(x, lengths))


class PoolsToTokens(Good):
    def pool(self, tokens: Tokens) -> Tensor:
        return tokens.values

    def to_space(self, tokens: Tokens) -> Tensor:
        return tokens.mean()


class PoolsToAnyWidth(PoolsToTokens):
    def pool(self, tokens: Tokens) -> Tensor:
        return tokens.values.masked_fill(~tokens.mask.unsqueeze(-1), 0).flatten(1)


class PoolsPadding(PoolsToTokens):
    def pool(self, tokens: Tokens) -> Tensor:
        return tokens.values.amax(1)


class DividesByNoTokens(PoolsToTokens):
    def pool(self, tokens: Tokens) -> Tensor:
        return (tokens.values * tokens.mask.unsqueeze(-1)).sum(1) / tokens.mask.sum(1, keepdim=True)


class SpaceOfZeros(Good):
    def to_space(self, tokens: Tokens) -> Tensor:
        return tokens.mean() * 0


class SpaceLeftOut(Good):
    def to_space(self, tokens: Tokens) -> Tensor:
        return Encoder.to_space(self, tokens)


class LosesItsAssets(Good):
    def assets(self) -> dict[str, Tensor]:
        return {}

    def set_assets(self, assets: dict[str, Tensor]) -> None:
        pass


class KeepsWeightsAside(Good):
    def __init__(self) -> None:
        super().__init__()
        self.aside = torch.randn(8)

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        tokens = super().forward(x, lengths)
        return Tokens(tokens.values * self.aside, tokens.mask)


class GrowsWhenLoaded(Good):
    def load(self) -> None:
        self.more = nn.Linear(2, 2)


class Prints(Good):
    def prepare(self, cell: str) -> Tensor:
        print("preparing")
        return super().prepare(cell)


MISTAKES: list[tuple[type[Encoder], str, str]] = [
    (WrongDim, "gives-tokens", "set self.dim"),
    (NoTokens, "gives-tokens", "must return Tokens(values, mask), it returned Tensor"),
    (MaskedInFront, "gives-tokens", "on a prefix"),
    (FloatMask, "gives-tokens", "must be torch.bool"),
    (LosesShortRows, "gives-tokens", "a row got no token"),
    (DividesByZero, "gives-tokens", "NaN or infinity"),
    (Noisy, "repeats-its-bits", "leave out dropout"),
    (WritesItsInput, "repeats-its-bits", "work on a copy"),
    (LooksAtTheBatch, "batching-changes-nothing", "take no statistic over the batch"),
    (CountsPaddingAsTokens, "batching-changes-nothing", "count tokens from `lengths`"),
    (Coarse, "batching-changes-nothing-in-bfloat16", "allowed: 2e-02"),
    (SpoiltByZeros, "bears-a-row-of-zeros", "beside a cell of zeros"),
    (RemembersTheBatch, "bears-two-threads", "while another ran in a second thread"),
    (GuessesThePadding, "ignores-padding", "padding leaks"),
    (PoolsToTokens, "pools-to-one-width", "must return a tensor [B, D]"),
    (PoolsToAnyWidth, "pools-to-one-width", "one width for every batch"),
    (PoolsPadding, "ignores-masked-values", "use tokens.mask in `pool`"),
    (DividesByNoTokens, "stays-finite-where-missing", "clamp the count"),
    (SpaceOfZeros, "fills-its-space", "vector of zeros"),
    (SpaceLeftOut, "fills-its-space", "NotImplementedError"),
    (LosesItsAssets, "survives-save-and-load", "gives other tokens"),
    (KeepsWeightsAside, "survives-save-and-load", "parameter or buffer"),
    (GrowsWhenLoaded, "survives-save-and-load", "does not know ['more.bias', 'more.weight']"),
    (Prints, "prints-nothing", "'preparing"),
]
"""The class, the check that it must fail, and part of what the check must say."""
