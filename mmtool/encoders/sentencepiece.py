"""Text without a pretrained network: pieces learned from the training texts, and vectors by latent semantic analysis."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from mmtool.api import Encoder, Tokens, UsageError
from mmtool.encoders.pieces import Pieces
from mmtool.encoders.sentencepiece_fit import latent_vectors


class SentencePiece(Encoder):
    """Learns up to `vocab_size` pieces of words, and a vector of `dim` numbers for each, from the training texts.

    Few texts give fewer pieces, and no more directions than texts: the others stay zero. Any Unicode text can be
    read: what no piece covers is spelled in bytes. `lowercase` folds case; only the first `max_pieces` count.
    A token is a piece's vector times its inverse document frequency; the pooled feature is the text's place in the
    latent space, of length 1.
    At most 200,000 training texts, drawn evenly, are used, 20 million characters in all, 2,000 of each.
    Raises UsageError for sizes that leave nothing to learn.
    Papers: Kudo and Richardson, 2018 (SentencePiece); Deerwester et al., 1990 (latent semantic analysis).
    """

    api: ClassVar[int] = 1
    modality: ClassVar[str] = "text"

    def __init__(self, *, vocab_size: int = 4000, dim: int = 128, model_type: Literal["unigram", "bpe"] = "unigram",
                 lowercase: bool = True, max_pieces: int = 2048) -> None:
        super().__init__()
        if dim < 1:
            raise UsageError(f"sentencepiece: dim={dim} must be at least 1")
        self.dim = dim
        self.pieces = Pieces("sentencepiece", vocab_size=vocab_size, max_pieces=max_pieces, lowercase=lowercase,
                             model_type=model_type)
        self.embedding = nn.Embedding(0, dim)
        self._fitted: dict[str, Tensor] = {}

    def fit(self, cells: Iterable[str]) -> None:
        """Pieces and vectors from the texts, in one pass over them and bounded memory.

        Raises MMToolError where there is no text.
        """
        texts = self.pieces.learn(cells)
        processor = self.pieces.processor
        documents = (processor.encode(text)[: self.pieces.max_pieces] for text in texts)
        vectors = latent_vectors(documents, processor.get_piece_size(), self.dim)  # [V, D]
        assert self.pieces.model is not None
        self.set_assets({"model": self.pieces.model, "vectors": vectors})

    def assets(self) -> dict[str, Tensor]:
        """`model`, the pieces as SentencePiece writes them (uint8), and `vectors [V, dim]` as they were fitted."""
        return dict(self._fitted)

    def set_assets(self, assets: dict[str, Tensor]) -> None:
        """The vectors also become the weights of an embedding, which training may change."""
        self._fitted = {"model": assets["model"].cpu(), "vectors": assets["vectors"].cpu()}
        self.pieces.take(self._fitted["model"])
        pieces, dim = assets["vectors"].shape
        self.embedding = nn.Embedding(pieces, dim, _weight=assets["vectors"].clone())
        self.pretrained = True

    def prepare(self, cell: str) -> Tensor:
        """A text -> ids of its pieces `[L]`, int64. Raises CellError where none are left of it."""
        return self.pieces.ids(cell)

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        """Ids `[B, L]` -> vectors of the pieces `[B, L, dim]`."""
        return Tokens(self.embedding(x), torch.arange(x.shape[1], device=x.device) < lengths.to(x.device).unsqueeze(1))

    def pool(self, tokens: Tokens) -> Tensor:
        """The text's place in the latent space, `[B, dim]`, of length 1; zero where it is missing or unknown."""
        return nn.functional.normalize(tokens.mean(), dim=1)
