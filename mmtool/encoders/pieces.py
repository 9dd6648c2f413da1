"""Texts as ids of pieces of words, learned from the training texts: what the encoders of text share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import sentencepiece
import torch
from torch import Tensor, nn

from mmtool.api import CellError, DataError
from mmtool.encoders.options import within
from mmtool.encoders.sentencepiece_fit import learn_pieces, sample, valid

LEAST_PIECES = 512
"""256 of them are bytes."""


class Pieces:
    """A SentencePiece tokenizer that is learned, kept as bytes, and made again from them where it is needed.

    `name` is the encoder's, for errors. Any Unicode text can be read: what no piece covers is spelled in bytes.
    Raises UsageError for sizes out of range. Paper: Kudo and Richardson, 2018.
    """

    def __init__(self, name: str, *, vocab_size: int, max_pieces: int, lowercase: bool, model_type: str = "unigram") -> None:
        within(name, "vocab_size", vocab_size, LEAST_PIECES, 1_000_000)
        within(name, "max_pieces", max_pieces, 1, 1_000_000)
        self.name, self.vocab_size, self.max_pieces = name, vocab_size, max_pieces
        self.lowercase, self.model_type = lowercase, model_type
        self.model: Tensor | None = None
        self._processor: sentencepiece.SentencePieceProcessor | None = None

    def learn(self, cells: Iterable[str]) -> list[str]:
        """At most `vocab_size` pieces from a sample of the texts, which is returned. Raises MMToolError without text."""
        texts = sample(cells)
        if not texts:
            raise DataError("there is no text to learn pieces from", "give rows with text, or another encoder")
        model = learn_pieces(texts, self.vocab_size, self.model_type, lowercase=self.lowercase)
        self.take(torch.from_numpy(np.frombuffer(model, np.uint8).copy()))
        return texts

    def take(self, model: Tensor) -> None:
        """The tokenizer's bytes, uint8 `[N]`."""
        self.model, self._processor = model.cpu(), None

    @property
    def processor(self) -> sentencepiece.SentencePieceProcessor:
        """The tokenizer, made when first asked for. Raises MMToolError before `learn` or `take`."""
        if self.model is None:
            raise DataError(f"the pieces of {self.name} are not learned yet", "fit it on training texts")
        if self._processor is None:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=self.model.numpy().tobytes())
        return self._processor

    def __getstate__(self) -> dict[str, Any]:
        """Without the tokenizer, which is made again from its bytes."""
        return {**self.__dict__, "_processor": None}

    def ids(self, text: str) -> Tensor:
        """The first `max_pieces` pieces of a text as ids `[L]`, int64. Raises CellError where there are none."""
        ids = self.processor.encode(valid(text))[: self.max_pieces]
        if not ids:
            raise CellError("no text left after tokenizing", "E_CELL_NOTHING_LEFT")
        return torch.tensor(ids)

    def embedding(self, dim: int, seed: int) -> nn.Embedding:
        """Random vectors of the pieces, a pure function of `seed`, each number of variance 1."""
        count = self.processor.get_piece_size()
        weight = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))  # [V, D]
        return nn.Embedding(count, dim, _weight=weight)


def drawn_seed() -> int:
    """A seed from torch's generator, for what can only be made later, when the vocabulary is known."""
    return int(torch.randint(2**31, ()))
