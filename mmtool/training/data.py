"""Features and encoded targets of the rows that take part, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmtool.api import Task, Tokens
from mmtool.features.reader import Features
from mmtool.network import take


@dataclass(frozen=True)
class Data:
    """N rows: every input's pooled tokens `[N, 1, D]`, targets `y [N, U]` with `lengths [N]`."""

    inputs: dict[str, Tokens]
    y: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def rows(self, at: Sequence[int] | Tensor) -> Data:
        """Some of the rows."""
        index = torch.as_tensor(at, dtype=torch.int64)
        return Data(take(self.inputs, index), self.y[index], self.lengths[index])

    def loss(self, task: Task, outputs: Tensor) -> Tensor:
        """Outputs `[N, K]` -> losses `[N]`."""
        return task.loss(outputs, self.y, self.lengths)


def pooled(features: Features, names: Sequence[str], rows: Sequence[int]) -> dict[str, Tokens]:
    """Each input's features of some rows, pooled, float32."""
    out = {}
    for name in sorted(names):
        tokens = features.tokens(name, rows)
        out[name] = Tokens.pooled(tokens.mean().float(), tokens.present)
    return out


def load(features: Features, names: Sequence[str], rows: Sequence[int], task: Task, targets: Sequence[str]) -> Data:
    """The rows of a features folder with their targets, encoded by the fitted task."""
    encoded = [task.encode(target) for target in targets]
    return Data(pooled(features, names, rows), nn.utils.rnn.pad_sequence(encoded, batch_first=True),
                torch.tensor([len(e) for e in encoded]))
