"""Text through a recurrent network that is trained from scratch, over pieces learned from the training texts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from torch import Tensor, nn

from mmtool.api import Encoder, Tokens
from mmtool.encoders.options import within
from mmtool.encoders.pieces import Pieces, drawn_seed
from mmtool.encoders.recurrent import Cell, Recurrent, mean_and_max


class TextRNN(Encoder):
    """Vectors of pieces, `dim` wide, then `layers` of recurrent cells, `width` wide in each direction.

    `fit` learns up to `vocab_size` pieces of words from the training texts, as `sentencepiece` does; only the first
    `max_pieces` of a text count. `dropout` acts on the vectors and between layers, in training.
    Tokens are the outputs at every piece; the pooled feature is their mean and their maximum, twice as wide.
    Raises UsageError for options out of range.
    Papers: Hochreiter and Schmidhuber, 1997 (LSTM); Cho et al., 2014 (GRU); Conneau et al., 2017 (the maximum).
    """

    api: ClassVar[int] = 1
    modality: ClassVar[str] = "text"
    example: ClassVar[str] = "bilstm,dim=16,width=12,vocab_size=512"

    def __init__(self, *, cell: Cell = "bilstm", dim: int = 128, width: int = 128, layers: int = 1, vocab_size: int = 4000,
                 max_pieces: int = 256, lowercase: bool = True, dropout: float = 0.2) -> None:
        super().__init__()
        within("text-rnn", "dim", dim, 1, 4096)
        within("text-rnn", "width", width, 1, 4096)
        within("text-rnn", "layers", layers, 1, 16)
        within("text-rnn", "dropout", dropout, 0, 0.99)
        self.pieces = Pieces("text-rnn", vocab_size=vocab_size, max_pieces=max_pieces, lowercase=lowercase)
        self.width_in, self.seed = dim, drawn_seed()
        self.embedding = nn.Embedding(0, dim)
        self.dropout = nn.Dropout(dropout)
        self.recurrent = Recurrent(cell, dim, width, layers, dropout)
        self.dim = self.recurrent.dim

    def fit(self, cells: Iterable[str]) -> None:
        """Pieces from the texts, in one pass and bounded memory. Raises MMToolError where there is no text."""
        self.pieces.learn(cells)
        self.embedding = self.pieces.embedding(self.width_in, self.seed)

    def assets(self) -> dict[str, Tensor]:
        """`model`: the pieces as SentencePiece writes them, uint8; nothing before `fit`."""
        return {} if self.pieces.model is None else {"model": self.pieces.model}

    def set_assets(self, assets: dict[str, Tensor]) -> None:
        """The pieces, and random vectors for them."""
        self.pieces.take(assets["model"])
        self.embedding = self.pieces.embedding(self.width_in, self.seed)

    def prepare(self, cell: str) -> Tensor:
        """A text -> ids of its pieces `[L]`, int64. Raises CellError where none are left of it."""
        return self.pieces.ids(cell)

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        """Ids `[B, L]` -> outputs `[B, L, dim]`."""
        tokens: Tokens = self.recurrent(self.dropout(self.embedding(x)), lengths)
        return tokens

    def pool(self, tokens: Tokens) -> Tensor:
        """Mean and maximum over the pieces, `[B, 2 dim]`; zero where a text is missing."""
        return mean_and_max(tokens)
