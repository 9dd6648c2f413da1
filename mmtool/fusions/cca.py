"""Generalised canonical correlation: what inputs have in common, found without a label."""

from __future__ import annotations

import torch
from torch import Tensor

from mmtool.api import Fusion, Tokens
from mmtool.fusions.attend import masked_mean
from mmtool.fusions.options import within

CHUNK = 4096
LEAST = 1e-6
"""Of the shrinkage: covariances can be inverted then, and of directions that correlate alike the wider one comes first."""


class Cca(Fusion):
    """A linear map of each input into one space, where inputs of a row lie close; the mean of those that are there.

    MAXVAR: with G [N, dim] of unit variance it minimises Σ_i ‖K_i (G - X_i U_i)‖², where K_i picks the rows that have input
    i, so that each row takes part with what it has; each U_i is a ridge regression on G. Covariances are shrunk towards a
    multiple of the identity, (1 - s) C + s tr(C)/D I, by `shrinkage` s, from 0 to 1; by default as Ledoit & Wolf (2004)
    estimate it. Fitted in float64 on training rows; nothing is trained. Dimensions beyond what the rows span are 0.
    Raises UsageError for options out of range.
    Papers: Kettenring, 1971 (Biometrika 58(3)); shrunk as by Tenenhaus & Tenenhaus, 2011 (Psychometrika 76(2)); with missing
    inputs as in Rastogi et al., 2015 (Multiview LSA, NAACL).
    """

    api = 1

    def __init__(self, dims: dict[str, int], *, dim: int = 128, shrinkage: float | None = None) -> None:
        super().__init__(dims)
        within("cca", "dim", dim, 1, 1024)
        within("cca", "shrinkage", 0 if shrinkage is None else shrinkage, 0, 1)
        self.dim, self.shrinkage = dim, shrinkage
        for number, width in enumerate(self.dims.values()):
            self.register_buffer(f"map{number}", torch.zeros(width, dim))
            self.register_buffer(f"bias{number}", torch.zeros(dim))

    def fit(self, inputs: dict[str, Tokens]) -> None:
        x = [inputs[name].mean() for name in self.dims]  # each [N, D_i]
        present = torch.stack([inputs[name].present for name in self.dims], 1)  # [N, M]
        found = [_whiten(one[there].double(), self.shrinkage) for one, there in zip(x, present.T, strict=True)]
        widths = [w.shape[1] for _, w in found]
        gram = torch.zeros(sum(widths), sum(widths), dtype=torch.float64)  # Zᵀ Z with Z = K^-½ [X_1 W_1, X_2 W_2, ...]
        for at in range(0, len(present), CHUNK):
            there = present[at : at + CHUNK].double()
            z = torch.cat([(one[at : at + CHUNK].double() - mean) @ w * there[:, i : i + 1]
                           for i, (one, (mean, w)) in enumerate(zip(x, found, strict=True))], 1)
            z = z / there.sum(1, keepdim=True).clamp(min=1).sqrt()
            gram += z.T @ z
        values, vectors = torch.linalg.eigh(gram)  # ascending, from 0 to 1; (1 + ρ) / 2 for two inputs
        values, vectors = values.flip(0)[: self.dim].clamp(min=0), vectors.flip(1)[:, : self.dim]
        # G = Z V λ^-½ to a scale, and U_i = W_i W_iᵀ X_iᵀ G
        scaled = vectors * (values * float(present.sum())).sqrt()
        maps = torch.cat([w @ part for (_, w), part in zip(found, torch.split(scaled, widths), strict=True)])  # [ΣD, k]
        maps = maps * _signs(maps)
        for number, one in enumerate(torch.split(maps, list(self.dims.values()))):
            into, bias = self.get_buffer(f"map{number}"), self.get_buffer(f"bias{number}")
            into.zero_()[:, : one.shape[1]] = one
            bias.zero_()[: one.shape[1]] = -(found[number][0] @ one)

    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        present = torch.stack([inputs[name].present for name in self.dims], 1)  # [B, M]
        x = [inputs[name].mean() @ self.get_buffer(f"map{number}") + self.get_buffer(f"bias{number}")
             for number, name in enumerate(self.dims)]
        return Tokens.pooled(masked_mean(torch.stack(x, 1), present), present.any(1))


def _whiten(x: Tensor, shrinkage: float | None) -> tuple[Tensor, Tensor]:
    """The mean `[D]` of rows `x [n, D]`, and W `[D, r]`: on what the rows span, W Wᵀ = (n ((1 - s) C + s tr(C)/D I))^-1."""
    rows, width = x.shape
    mean = x.sum(0) / max(rows, 1)
    x = x - mean
    wide = rows < width
    values, vectors = torch.linalg.eigh((x @ x.T if wide else x.T @ x) / max(rows, 1))
    kept = values > 1e-10 * values.clamp(min=0).sum() + 1e-30
    values, vectors = values[kept], vectors[:, kept]  # [r]
    if wide:
        vectors = x.T @ vectors / (rows * values).sqrt()
    s = _ledoit_wolf(x, values) if shrinkage is None else shrinkage
    s = max(s, LEAST)
    return mean, vectors / (rows * ((1 - s) * values + s * values.sum() / width)).sqrt()


def _ledoit_wolf(x: Tensor, values: Tensor) -> float:
    """The shrinkage that brings the covariance of centred `x [n, D]`, with these eigenvalues, closest to the true one."""
    squares, mean = float(values.square().sum()), float(values.sum()) / x.shape[1]
    far = squares / x.shape[1] - mean**2
    noise = (float(x.square().sum(1).square().mean()) - squares) / (x.shape[1] * len(x)) if len(x) else 0.0
    return min(noise, far) / far if far > 0 else 1.0


def _signs(maps: Tensor) -> Tensor:
    """`[k]`: the first entry of each column that is about its largest becomes positive, so that rounding decides nothing."""
    size = maps.abs()
    first = (size >= 0.9 * size.amax(0)).int().argmax(0) if maps.numel() else maps.new_zeros(maps.shape[1], dtype=torch.int64)
    return torch.where(maps.gather(0, first.unsqueeze(0))[0] < 0, -1.0, 1.0).double()
