"""Sound through a recurrent network that is trained from scratch, over log-mel frames."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from mmtool.api import Encoder, Tokens
from mmtool.encoders.log_mel import LogMel, spec_augment
from mmtool.encoders.options import within
from mmtool.encoders.recurrent import Cell, Recurrent, mean_and_max


class AudioRNN(Encoder):
    """Log-mel frames of 10 ms, `stack` of them side by side, then `layers` of recurrent cells, `width` in each direction.

    A sound is cut at `max_seconds` and brought to mean 0 and variance 1 over all its bands and frames. `mask` hides
    stretches of time and bands in training (SpecAugment); `dropout` acts on the frames' vectors and between layers.
    Tokens are the outputs at every stack (30 ms); the pooled feature is their mean and their maximum, twice as wide.
    Raises UsageError for options out of range.
    Papers: Hochreiter and Schmidhuber, 1997 (LSTM); Cho et al., 2014 (GRU); Sak et al., 2015 (stacked frames);
    Park et al., 2019 (SpecAugment).
    """

    api: ClassVar[int] = 1
    modality: ClassVar[str] = "audio"
    example: ClassVar[str] = "bilstm,sample_rate=8000,n_mels=16,width=12"

    def __init__(self, *, cell: Cell = "bilstm", sample_rate: int = 16_000, n_mels: int = 64, width: int = 128,
                 layers: int = 2, stack: int = 3, dropout: float = 0.1, max_seconds: float = 15.0, mask: bool = True) -> None:
        super().__init__()
        within("audio-rnn", "width", width, 1, 4096)
        within("audio-rnn", "layers", layers, 1, 16)
        within("audio-rnn", "stack", stack, 1, 16)
        within("audio-rnn", "dropout", dropout, 0, 0.99)
        self.log_mel = LogMel("audio-rnn", sample_rate=sample_rate, n_mels=n_mels, max_seconds=max_seconds)
        self.sample_rate_hz, self.stack, self.mask = sample_rate, stack, mask
        self.project = nn.Sequential(nn.Linear(stack * n_mels, width), nn.ReLU(), nn.Dropout(dropout))
        self.recurrent = Recurrent(cell, width, width, layers, dropout)
        self.dim = self.recurrent.dim

    def prepare(self, cell: Tensor) -> Tensor:
        """float32 `[S]` -> log-mel frames `[L, n_mels]`. Raises CellError for a sound without samples."""
        return self.log_mel.frames(cell)

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        """Frames `[B, L, n_mels]` -> outputs `[B, T, dim]`, T = L / stack, rounded up."""
        lengths = lengths.to(x.device)
        inside = torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(1)  # [B, L]
        # the last stack of a row may hold frames of its padding
        x = (spec_augment(x) if self.mask and self.training else x).masked_fill(~inside.unsqueeze(-1), 0)
        x = nn.functional.pad(x, (0, 0, 0, -x.shape[1] % self.stack))
        stacks = x.reshape(len(x), -1, self.stack * x.shape[2])  # [B, T, stack * M]
        tokens: Tokens = self.recurrent(self.project(stacks), -(-lengths // self.stack))
        return tokens

    def pool(self, tokens: Tokens) -> Tensor:
        """Mean and maximum over time, `[B, 2 dim]`; zero where a sound is missing."""
        return mean_and_max(tokens)
