"""Encoders that are fast and simple enough to know their output by heart; found through the dist-info beside this file."""

import os
import signal
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from mmtool.api import CellError, Encoder, Tokens


class Colour(Encoder):
    """Mean colour of a picture."""

    api = 1
    modality = "image"
    dim = 3
    pretrained = True

    def __init__(self, *, scale: float = 255.0) -> None:
        super().__init__()
        self.scale = scale

    def prepare(self, cell: Tensor) -> Tensor:
        return cell.float().mean((1, 2)).unsqueeze(0) / self.scale  # [1, 3]

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        return Tokens(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device))


class Letters(Encoder):
    """One token a character: its code point and one, so that sums and lengths are known."""

    api = 1
    modality = "text"
    dim = 2
    pretrained = True
    space = "tiny"
    space_temperature = 1.0

    def prepare(self, cell: str) -> Tensor:
        if "unreadable" in cell:
            raise CellError("says so itself")
        if "kill the reader" in cell:
            os.kill(os.getpid(), signal.SIGKILL)
        if "not a number" in cell:
            return torch.tensor([[float("nan"), 1.0]])
        return torch.tensor([[float(ord(c)), 1.0] for c in cell])  # [characters, 2]

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        mask = torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(1)
        return Tokens(x, mask)

    def to_space(self, tokens: Tokens) -> Tensor:
        return tokens.mean()


class Loudness(Encoder):
    """Root mean square of a sound."""

    api = 1
    modality = "audio"
    dim = 1
    pretrained = True
    sample_rate_hz = 8000

    def prepare(self, cell: Tensor) -> Tensor:
        return cell.square().mean().sqrt().reshape(1, 1)

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        return Tokens(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device))


class Raw(Encoder):
    """Length of any file, for a modality that the host does not decode."""

    api = 1
    modality = "blob"
    dim = 1
    pretrained = True

    def prepare(self, cell: bytes | str) -> Tensor:
        return torch.tensor([[float(len(cell))]])

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        return Tokens(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device))


class Greedy(Letters):
    """Runs out of memory with more than four cells at once."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        if len(x) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory (pretended)")
        return super().forward(x, lengths)


class Untrained(Letters):
    """Random weights."""

    pretrained = False

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(2))


class Learned(Encoder):
    """A random vector for each character: must be trained."""

    api = 1
    modality = "text"
    dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.vectors = torch.nn.Embedding(256, 4)
        self.dropout = torch.nn.Dropout(0.1)

    def prepare(self, cell: str) -> Tensor:
        return torch.tensor([min(ord(c), 255) for c in cell])

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        mask = torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(1)
        return Tokens(self.dropout(self.vectors(x)), mask)


class Tied(Letters):
    """Pretrained weights that can be tuned, known by two names."""

    def __init__(self, *, scale: float = 0.01) -> None:
        super().__init__()
        self.first = scale
        self.scale = torch.nn.Parameter(torch.randn(2, 2))
        self.same = self.scale

    def load(self) -> None:
        with torch.no_grad():
            self.scale.copy_(torch.tensor([[self.first, 0.0], [0.0, 1.0]]))

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        tokens = super().forward(x, lengths)
        return Tokens(tokens.values @ (self.scale + self.same) / 2, tokens.mask)


class Counted(Letters):
    """Learns how many training cells there were; its feature is that number."""

    dim = 1

    def __init__(self) -> None:
        super().__init__()
        self.count = -1

    def fit(self, cells: Iterable[Any]) -> None:
        self.count = sum(1 for _ in cells)

    def assets(self) -> dict[str, Tensor]:
        return {"count": torch.tensor([self.count])}

    def set_assets(self, assets: dict[str, Tensor]) -> None:
        self.count = int(assets["count"])

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        return Tokens.pooled(torch.full((len(x), 1), float(self.count)))


class Sized(Counted):
    """Pretrained weights whose number is known only after `fit`; the feature is their sum."""

    def build(self) -> None:
        self.ones = torch.nn.Parameter(torch.ones(self.count))

    def fit(self, cells: Iterable[Any]) -> None:
        super().fit(cells)
        self.build()

    def set_assets(self, assets: dict[str, Tensor]) -> None:
        super().set_assets(assets)
        self.build()

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        return Tokens.pooled(self.ones.sum().expand(len(x), 1))


class Normed(Letters):
    """A batch norm over single values, with random weights; the word "surprise" surprises it."""

    pretrained = False

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(2)

    def prepare(self, cell: str) -> Tensor:
        if "surprise" in cell:
            raise ZeroDivisionError(cell)
        return super().prepare(cell)[:1]

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        return Tokens.pooled(self.norm(x[:, 0]))
