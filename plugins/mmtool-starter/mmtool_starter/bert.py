"""The network of all-MiniLM-L6-v2 (BERT, 6 layers of 384) in plain torch.

Not through transformers or sentence-transformers, whose imports take 0.8 and 4.7 s; the numbers are theirs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DIM, HEADS, LAYERS, WIDE, WORDS, POSITIONS, EPS = 384, 12, 6, 1536, 30_522, 512, 1e-12


class Layer(nn.Module):
    """Attention and a two-layer network, each followed by the layer norm of its residual (post-norm)."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(DIM, 3 * DIM)
        self.out = nn.Linear(DIM, DIM)
        self.norm1 = nn.LayerNorm(DIM, EPS)
        self.up = nn.Linear(DIM, WIDE)
        self.down = nn.Linear(WIDE, DIM)
        self.norm2 = nn.LayerNorm(DIM, EPS)

    def forward(self, x: Tensor, at: Tensor, mask: Tensor) -> Tensor:
        """`x [N, 384]`, the tokens of all texts; `at [N]`, their places in `mask [B, T]`."""
        b, t = mask.shape
        qkv, full = self.qkv(x), len(at) == b * t
        if not full:
            qkv = qkv.new_zeros(b * t, 3 * DIM).index_copy(0, at, qkv)  # its own dtype: autocast made it a shorter one than x's
        q, k, v = qkv.view(b, t, 3, HEADS, DIM // HEADS).permute(2, 0, 3, 1, 4)  # each [B, heads, T, 32]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=None if full else mask[:, None, None, :])
        y = y.transpose(1, 2).reshape(b * t, DIM)
        x = self.norm1(x + self.out(y if full else y[at]))
        normed: Tensor = self.norm2(x + self.down(F.gelu(self.up(x))))
        return normed


class Bert(nn.Module):
    """Token ids `[B, T]` and a bool mask `[B, T]` -> states `[B, T, 384]`, zero where nothing is.

    Everything but attention is computed for the tokens that are there: of 32 short texts a third was padding.
    """

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, DIM)
        self.positions = nn.Embedding(POSITIONS, DIM)
        self.types = nn.Embedding(2, DIM)
        self.norm = nn.LayerNorm(DIM, EPS)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        b, t = ids.shape
        at = mask.flatten().nonzero().flatten()  # [N]
        x: Tensor = self.words(ids.flatten()[at]) + self.positions.weight[at % t] + self.types.weight[0]  # [N, 384]
        x = self.norm(x)
        for layer in self.layers:
            x = layer(x, at, mask)
        return x.new_zeros(b * t, DIM).index_copy(0, at, x).view(b, t, DIM)


def from_hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a Hugging Face `BertModel` under the names of `Bert`; the pooler, unused here, is left out."""
    ours = {"words.weight": state["embeddings.word_embeddings.weight"],
            "positions.weight": state["embeddings.position_embeddings.weight"],
            "types.weight": state["embeddings.token_type_embeddings.weight"]}
    parts = {"out": "attention.output.dense", "norm1": "attention.output.LayerNorm", "up": "intermediate.dense",
             "down": "output.dense", "norm2": "output.LayerNorm"}
    for kind in ("weight", "bias"):
        ours[f"norm.{kind}"] = state[f"embeddings.LayerNorm.{kind}"]
        for i in range(LAYERS):
            theirs = f"encoder.layer.{i}"
            ours[f"layers.{i}.qkv.{kind}"] = torch.cat(
                [state[f"{theirs}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")])
            for name, part in parts.items():
                ours[f"layers.{i}.{name}.{kind}"] = state[f"{theirs}.{part}.{kind}"]
    return ours
