"""Sound through a small convolutional network that is trained from scratch, over log-mel frames."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from mmtool.api import Encoder, Tokens
from mmtool.encoders.log_mel import LogMel, spec_augment
from mmtool.encoders.options import within


class AudioCNN(Encoder):
    """Blocks of two 3x3 convolutions over time and bands, the first in steps of 2, each with batch norm and ReLU.

    The first block has `width` channels, each further one twice as many; what is left of the bands is brought to as
    many as the last block has. A sound is cut at `max_seconds` and brought to mean 0 and variance 1 over all its bands
    and frames. `mask` hides stretches of time and bands in training (SpecAugment); `dropout` acts before that last step.
    Tokens follow each other by 10 ms * 2^blocks; the pooled feature is their mean.
    Raises UsageError for options out of range.
    Papers: Kong et al., 2020 (such blocks on sound); Park et al., 2019 (SpecAugment).
    """

    api: ClassVar[int] = 1
    modality: ClassVar[str] = "audio"
    example: ClassVar[str] = "2,sample_rate=8000,n_mels=16,width=4"

    def __init__(self, *, blocks: int = 3, width: int = 16, sample_rate: int = 16_000, n_mels: int = 64,
                 dropout: float = 0.1, max_seconds: float = 15.0, mask: bool = True) -> None:
        super().__init__()
        within("audio-cnn", "blocks", blocks, 1, 7)
        within("audio-cnn", "width", width, 1, 1024)
        within("audio-cnn", "dropout", dropout, 0, 0.99)
        self.log_mel = LogMel("audio-cnn", sample_rate=sample_rate, n_mels=n_mels, max_seconds=max_seconds)
        within("audio-cnn", "n_mels", n_mels, 2 * 2**blocks, 256)  # two bands are left to the last block's batch norm
        self.sample_rate_hz, self.mask = sample_rate, mask
        widths = [width * 2**i for i in range(blocks)]
        self.blocks = nn.ModuleList(_Block(before, after) for before, after in zip([1, *widths], widths, strict=False))
        self.dim = widths[-1]
        bands = -(-n_mels // 2**blocks)
        self.project = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.dim * bands, self.dim), nn.ReLU())

    def prepare(self, cell: Tensor) -> Tensor:
        """float32 `[S]` -> log-mel frames `[L, n_mels]`. Raises CellError for a sound without samples."""
        return self.log_mel.frames(cell)

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        """Frames `[B, L, n_mels]` -> tokens `[B, T, dim]`, T = L / 2^blocks, rounded up."""
        counts = lengths.to(x.device)
        x = (spec_augment(x) if self.mask and self.training else x).unsqueeze(2)  # [B, L, 1, M]
        x = x.masked_fill(~_inside(x, counts)[..., None, None], 0)
        for block in self.blocks:
            counts = (counts + 1) // 2
            x = block(x, counts)
        return Tokens(self.project(x.flatten(2)), _inside(x, counts))


class _Block(nn.Module):
    """`[B, T, C, F]`, zero after each row's length, -> `[B, T / 2, C', F / 2]`, rounded up and zero again."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList([nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                                           nn.Conv2d(after, after, 3, padding=1, bias=False)])
        self.norms = nn.ModuleList(nn.BatchNorm1d(after) for _ in range(2))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """`lengths [B]` are those after the block."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            maps = convolution(x.transpose(1, 2)).transpose(1, 2)  # [B, T', C', F']
            inside = _inside(maps, lengths)  # [B, T']
            # the padding is neither in the statistics of batch norm nor, being zero, seen by the next convolution
            frames = norm(maps[inside]).relu()  # [sum of lengths, C', F']
            x = frames.new_zeros(maps.shape)
            x[inside] = frames
        return x


def _inside(x: Tensor, lengths: Tensor) -> Tensor:
    return torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(1)  # [B, T]
