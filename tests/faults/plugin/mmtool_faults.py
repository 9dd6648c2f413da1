"""Encoders of texts that take as long as FAULTS_SLEEP says (seconds a cell or a batch), and write what they see to FAULTS_LOG.

Neither changes what they compute, so that a run that was slow, and interrupted, must end as a quick one does.
"""

import json
import os
import time

import torch
from torch import Tensor

from mmtool.api import Encoder, Tokens


def _seen(what: object) -> None:
    if log := os.environ.get("FAULTS_LOG"):
        with open(log, "a", encoding="utf-8") as f:
            f.write(json.dumps(what) + "\n")
    time.sleep(float(os.environ.get("FAULTS_SLEEP", "0")))


class Slow(Encoder):
    """Number of characters, and one."""

    api = 1
    modality = "text"
    dim = 2
    pretrained = True

    def prepare(self, cell: str) -> Tensor:
        _seen(cell)
        return torch.tensor([[float(len(cell)), 1.0]])

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        return Tokens(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device))


class Learned(Encoder):
    """A random vector for each character, with dropout: must be trained. What it sees are batches."""

    api = 1
    modality = "text"
    dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.vectors = torch.nn.Embedding(256, 4)
        self.dropout = torch.nn.Dropout(0.2)

    def prepare(self, cell: str) -> Tensor:
        return torch.tensor([min(ord(c), 255) for c in cell])

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        if self.training:
            _seen(["".join(chr(c) for c in row[:n]) for row, n in zip(x.tolist(), lengths.tolist(), strict=True)])
        mask = torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(1)
        return Tokens(self.dropout(self.vectors(x)), mask)
