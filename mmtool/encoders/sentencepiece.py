"""Text without a pretrained network: pieces learned from the training texts, and vectors by latent semantic analysis."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import numpy as np
import sentencepiece
import torch
from torch import Tensor, nn

from mmtool.api import CellError, Encoder, MMToolError, Tokens, UsageError
from mmtool.encoders.sentencepiece_fit import latent_vectors, learn_pieces, sample, valid

LEAST_PIECES = 512


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
        if vocab_size < LEAST_PIECES:
            raise UsageError(f"sentencepiece: vocab_size={vocab_size} is below {LEAST_PIECES}, and 256 are bytes")
        if dim < 1 or max_pieces < 1:
            raise UsageError(f"sentencepiece: dim={dim} and max_pieces={max_pieces} must be at least 1")
        self.vocab_size, self.dim, self.model_type = vocab_size, dim, model_type
        self.lowercase, self.max_pieces = lowercase, max_pieces
        self.embedding = nn.Embedding(0, dim)
        self._fitted: dict[str, Tensor] = {}
        self._processor: sentencepiece.SentencePieceProcessor | None = None

    def fit(self, cells: Iterable[str]) -> None:
        """Pieces and vectors from the texts, in one pass over them and bounded memory.

        Raises MMToolError where there is no text.
        """
        texts = sample(cells)
        if not texts:
            raise MMToolError("there is no text to learn pieces from", "give rows with text, or another encoder")
        model = learn_pieces(texts, self.vocab_size, self.model_type, lowercase=self.lowercase)
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        documents = (processor.encode(text)[: self.max_pieces] for text in texts)
        vectors = latent_vectors(documents, processor.get_piece_size(), self.dim)  # [V, D]
        self.set_assets({"model": torch.from_numpy(np.frombuffer(model, np.uint8).copy()), "vectors": vectors})

    def assets(self) -> dict[str, Tensor]:
        """`model`, the pieces as SentencePiece writes them (uint8), and `vectors [V, dim]` as they were fitted."""
        return dict(self._fitted)

    def set_assets(self, assets: dict[str, Tensor]) -> None:
        """The vectors also become the weights of an embedding, which training may change."""
        self._fitted = {"model": assets["model"].cpu(), "vectors": assets["vectors"].cpu()}
        self._processor = None
        pieces, dim = assets["vectors"].shape
        self.embedding = nn.Embedding(pieces, dim, _weight=assets["vectors"].clone())
        self.pretrained = True

    @property
    def processor(self) -> sentencepiece.SentencePieceProcessor:
        """The tokenizer, made when first asked for. Raises MMToolError before `fit`."""
        if not self._fitted:
            raise MMToolError("the pieces of sentencepiece are not learned yet", "fit it on training texts")
        if self._processor is None:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=self._fitted["model"].numpy().tobytes())
        return self._processor

    def __getstate__(self) -> dict[str, Any]:
        """Without the tokenizer, which is made again from its bytes."""
        return {**self.__dict__, "_processor": None}

    def prepare(self, cell: str) -> Tensor:
        """A text -> ids of its pieces `[L]`, int64. Raises CellError where none are left of it."""
        ids = self.processor.encode(valid(cell))[: self.max_pieces]
        if not ids:
            raise CellError("no text left after tokenizing")
        return torch.tensor(ids)

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        """Ids `[B, L]` -> vectors of the pieces `[B, L, dim]`."""
        return Tokens(self.embedding(x), torch.arange(x.shape[1], device=x.device) < lengths.to(x.device).unsqueeze(1))

    def pool(self, tokens: Tokens) -> Tensor:
        """The text's place in the latent space, `[B, dim]`, of length 1; zero where it is missing or unknown."""
        return nn.functional.normalize(tokens.mean(), dim=1)
