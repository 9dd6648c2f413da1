"""A recurrent network over ragged sequences, as `text-rnn` and `audio-rnn` have it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mmtool.api import Tokens

Cell = Literal["lstm", "bilstm", "gru", "bigru", "rnn", "birnn"]
_KINDS: dict[str, type[nn.LSTM | nn.GRU | nn.RNN]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class Recurrent(nn.Module):
    """`layers` of LSTM, GRU or tanh cells of `width`; "bi" reads both ways, each with its own `width` outputs.

    Dropout acts between layers. Papers: Hochreiter and Schmidhuber, 1997 (LSTM); Cho et al., 2014 (GRU);
    Elman, 1990 (RNN); Schuster and Paliwal, 1997 (both ways).
    """

    def __init__(self, cell: Cell, dim: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        both = cell.startswith("bi")
        self.network = _KINDS[cell.removeprefix("bi")](
            dim, width, layers, batch_first=True, bidirectional=both, dropout=dropout if layers > 1 else 0.0)
        self.dim = width * (2 if both else 1)

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        """`x [B, T, dim]` and `lengths [B]` -> the output at every step `[B, T, width]`, or twice as wide."""
        # packed: no step of the padding is ever read, also backwards; an empty row is read as one step and masked
        packed = pack_padded_sequence(x, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
        values, _ = pad_packed_sequence(self.network(packed)[0], batch_first=True, total_length=x.shape[1])
        return Tokens(values, torch.arange(x.shape[1], device=x.device) < lengths.to(x.device).unsqueeze(1))


def mean_and_max(tokens: Tokens) -> Tensor:
    """Mean and largest value of each dimension over the tokens, `[B, 2 D]`; zero where a row is missing."""
    largest = tokens.values.masked_fill(~tokens.mask.unsqueeze(-1), -torch.inf).amax(1)  # [B, D]
    return torch.cat([tokens.mean(), largest.masked_fill(~tokens.present.unsqueeze(1), 0)], dim=1)
