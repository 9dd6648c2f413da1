"""Tensor fusion: every product of small vectors of the inputs."""

from __future__ import annotations

import torch
from torch import nn

from mmtool.api import Fusion, Tokens, UsageError
from mmtool.fusions.options import within
from mmtool.fusions.width import CommonWidth

LARGEST = 16_384
"""Entries of the outer product of a row."""


class TensorFusion(Fusion):
    """[z_1; c] ⊗ ... ⊗ [z_M; c] with z_i = tanh(W_i x_i) of `width`, then a dense layer with ReLU to `dim`.

    A missing input is z = 0, so that all products without it remain. The paper has c = 1; c = √width lets an input's few
    own values be heard among its many products with others from the start. By default the width is 16, or less where the outer
    product would have over 16,384 entries. Raises UsageError for a width that makes more, and options out of range.
    Paper: TFN (Zadeh et al., 2017, arXiv:1707.07250).
    """

    api = 1

    def __init__(self, dims: dict[str, int], *, width: int | None = None, dim: int = 128, dropout: float = 0.1) -> None:
        super().__init__(dims)
        fits = next((w for w in range(LARGEST - 1, 0, -1) if (w + 1) ** len(dims) <= LARGEST), 0)
        width = min(16, max(fits, 1)) if width is None else width
        within("tensor", "width", width, 1, LARGEST)
        within("tensor", "dim", dim, 1, 1024)
        within("tensor", "dropout", dropout, 0, 0.99)
        if width > fits:
            raise UsageError(f"tensor: the outer product of {len(dims)} inputs with width={width} has "
                             f"{width + 1}^{len(dims)} entries, more than {LARGEST:,}",
                             f"give width={fits} or less, or take lmf" if fits else "take lmf, which never writes it out")
        self.dim, self.width = dim, width
        self.project = CommonWidth(dims, width, always=True)
        self.dense = nn.Linear((width + 1) ** len(dims), dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        x, present = self.project(inputs)  # [B, M, width], zero where missing
        z = torch.nn.functional.pad(torch.tanh(x), (0, 1), value=self.width**0.5)  # [B, M, width + 1]
        product = z[:, 0]
        for i in range(1, z.shape[1]):
            product = (product.unsqueeze(2) * z[:, i].unsqueeze(1)).flatten(1)  # [B, (width + 1)^(i + 1)]
        return Tokens.pooled(torch.relu(self.dense(self.dropout(product))), present.any(1))
