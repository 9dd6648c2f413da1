"""Frozen features on their way to the network, batch by batch, and the order of the rows.

Features that fit on a CUDA device are moved there once. Those that stay in their files are read by windows: the rows of many
batches in one pass over the shards, so that no work is done row by row; on their way to a device they lie in pinned memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from mmtool.api import Tokens
from mmtool.mapped import Mapped, stretches
from mmtool.network import take
from mmtool.ragged import Ragged
from mmtool.training.graph import to_device

WINDOW_BYTES = 1 << 25
"""Of all mapped inputs' rows that are read at once."""
PERMUTED_BYTES = 1 << 33
"""Mapped features up to this size are shuffled as a whole; larger ones, which no memory may hold, by blocks and windows."""
BLOCK, BLOCKS = 256, 256
"""Rows that lie side by side in one shard, and how many such blocks are shuffled among themselves."""


class Source:
    """The frozen inputs of a table, for batches on a device."""

    def __init__(self, inputs: Mapping[str, Tokens], device: torch.device, room: int | None = None) -> None:
        """`room`: bytes of the device that features may take; by default half of what is free on a CUDA device, else 0."""
        self.device = device
        if room is None:
            room = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else 0
        self.inputs: dict[str, Tokens] = dict(inputs)
        for name, tokens in sorted(inputs.items()):
            size = 0 if isinstance(tokens, Ragged) else 4 * len(tokens.lengths) * tokens.dim
            if 0 < size <= room and (not isinstance(tokens, Mapped) or tokens.bytes == size):
                self.inputs[name] = moved(tokens, device)
                room -= size

    def batches(self, rows: Sequence[Tensor]) -> Iterator[dict[str, Tokens]]:
        """Every input's tokens of each batch of `rows`, padded, on the device."""
        mapped = {n: t for n, t in self.inputs.items() if isinstance(t, Mapped)}
        near = {n: t for n, t in self.inputs.items() if n not in mapped and t.mask.device == self.device} \
            if self.device.type != "cpu" else {}
        rest = {n: t for n, t in self.inputs.items() if n not in mapped and n not in near}
        for window in windows(rows, sum(4 * t.dim for t in mapped.values())) if mapped or near else ([at] for at in rows):
            index = torch.cat(window)
            read = {n: self._staged(t.take(index).padded()) for n, t in mapped.items()}
            there = index.to(self.device, non_blocking=True)
            start = 0
            for at in window:
                stop = start + len(at)
                own = {n: Tokens(t.values[start:stop], t.mask[start:stop]) for n, t in read.items()}
                own |= take(near, there[start:stop])
                yield to_device({**own, **take(rest, at)}, self.device)
                start = stop

    def _staged(self, tokens: Tokens) -> Tokens:
        return Tokens(tokens.values.pin_memory(), tokens.mask) if self.device.type == "cuda" else tokens


def moved(tokens: Tokens, device: torch.device) -> Tokens:
    """The same on a device, in stretches, so that there is never a second copy in memory."""
    if not isinstance(tokens, Mapped):
        return Tokens(tokens.values.to(device), tokens.mask.to(device))
    values = torch.empty(len(tokens.lengths), 1, tokens.dim, device=device)
    for at in stretches({"": tokens}):
        values[at.start : at.stop] = tokens.take(torch.arange(at.start, at.stop)).values.to(device)
    return Tokens(values, tokens.mask.to(device))


def windows(rows: Sequence[Tensor], bytes_per_row: int) -> Iterator[list[Tensor]]:
    """Batches after one another, as many as `WINDOW_BYTES` hold, or one."""
    window: list[Tensor] = []
    size = 0
    for at in rows:
        if window and (size + len(at)) * bytes_per_row > WINDOW_BYTES:
            yield window
            window, size = [], 0
        window.append(at)
        size += len(at)
    if window:
        yield window


def shuffled(rows: Sequence[int], chance: torch.Generator, inputs: Mapping[str, Tokens]) -> Tensor:
    """The rows of an epoch in their order: a permutation of all, whatever it is that reads them.

    Features that no memory may hold are read by blocks of neighbours, in any order, of which some are mixed at a time.
    """
    size = sum(t.bytes for t in inputs.values() if isinstance(t, Mapped))
    every = torch.as_tensor(rows)
    if size <= PERMUTED_BYTES:
        return every[torch.randperm(len(every), generator=chance)]
    blocks = torch.split(every, BLOCK)
    order = torch.randperm(len(blocks), generator=chance).tolist()
    mixed = []
    for start in range(0, len(order), BLOCKS):
        window = torch.cat([blocks[i] for i in order[start : start + BLOCKS]])
        mixed.append(window[torch.randperm(len(window), generator=chance)])
    return torch.cat(mixed)
