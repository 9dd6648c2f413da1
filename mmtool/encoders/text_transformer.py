"""Text through a small Transformer that is trained from scratch, over pieces learned from the training texts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmtool.api import Encoder, Tokens, UsageError
from mmtool.encoders.options import within
from mmtool.encoders.pieces import Pieces, drawn_seed


class TextTransformer(Encoder):
    """Vectors of pieces plus sinusoids of their positions, then `layers` of attention with norms in front.

    `heads` share `dim`, the width of the tokens; `ff` is the width inside the feed-forward parts. `fit` learns up to
    `vocab_size` pieces of words from the training texts, as `sentencepiece` does; only the first `max_pieces` of a text
    count. `dropout` acts in training. The pooled feature is the mean.
    Raises UsageError for options out of range, and for heads that do not divide `dim`.
    Papers: Vaswani et al., 2017; Xiong et al., 2020 (norms in front).
    """

    api: ClassVar[int] = 1
    modality: ClassVar[str] = "text"
    example: ClassVar[str] = "2,heads=2,dim=16,ff=32,vocab_size=512"
    positions: Tensor

    def __init__(self, *, layers: int = 2, heads: int = 4, dim: int = 128, ff: int = 256, vocab_size: int = 4000,
                 max_pieces: int = 256, lowercase: bool = True, dropout: float = 0.1) -> None:
        super().__init__()
        within("text-transformer", "layers", layers, 1, 48)
        within("text-transformer", "heads", heads, 1, 64)
        within("text-transformer", "dim", dim, 2, 4096)
        within("text-transformer", "ff", ff, 1, 16_384)
        within("text-transformer", "max_pieces", max_pieces, 1, 8192)  # attention grows with its square
        within("text-transformer", "dropout", dropout, 0, 0.99)
        if dim % heads or dim % 2:
            raise UsageError(f"text-transformer: dim={dim} is not even, or not a multiple of heads={heads}")
        self.pieces = Pieces("text-transformer", vocab_size=vocab_size, max_pieces=max_pieces, lowercase=lowercase)
        self.dim, self.seed = dim, drawn_seed()
        self.embedding = nn.Embedding(0, dim)
        # options alone decide it, so it is no weight and not saved
        self.register_buffer("positions", _sinusoids(max_pieces, dim), persistent=False)  # [max_pieces, D]
        self.dropout = nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(dim, heads, ff, dropout, "gelu", batch_first=True, norm_first=True)
        # nested tensors would drop the padding, and with it T
        self.network = nn.TransformerEncoder(layer, layers, nn.LayerNorm(dim), enable_nested_tensor=False)
        for parameter in self.network.parameters():
            if parameter.dim() > 1:  # the layers are copies of one, and would start out equal
                nn.init.xavier_uniform_(parameter)

    def fit(self, cells: Iterable[str]) -> None:
        """Pieces from the texts, in one pass and bounded memory. Raises MMToolError where there is no text."""
        self.pieces.learn(cells)
        self.embedding = self.pieces.embedding(self.dim, self.seed)

    def assets(self) -> dict[str, Tensor]:
        """`model`: the pieces as SentencePiece writes them, uint8; nothing before `fit`."""
        return {} if self.pieces.model is None else {"model": self.pieces.model}

    def set_assets(self, assets: dict[str, Tensor]) -> None:
        """The pieces, and random vectors for them."""
        self.pieces.take(assets["model"])
        self.embedding = self.pieces.embedding(self.dim, self.seed)

    def prepare(self, cell: str) -> Tensor:
        """A text -> ids of its pieces `[L]`, int64. Raises CellError where none are left of it."""
        return self.pieces.ids(cell)

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        """Ids `[B, L]` -> tokens `[B, L, dim]`."""
        steps, ends = torch.arange(x.shape[1], device=x.device), lengths.to(x.device).unsqueeze(1)  # [L], [B, 1]
        values = self.dropout(self.embedding(x) + self.positions[: x.shape[1]])  # [B, L, D]
        # an empty row sees its first step, since a softmax over nothing is no number
        values = self.network(values, src_key_padding_mask=steps >= ends.clamp(min=1))
        return Tokens(values, steps < ends)


def _sinusoids(count: int, dim: int) -> Tensor:
    rates = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000.0) / dim))  # [D / 2]
    angles = torch.arange(count).unsqueeze(1) * rates  # [N, D / 2]
    return torch.cat([angles.sin(), angles.cos()], dim=1)
