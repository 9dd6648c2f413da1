"""Inputs that `train` reads as cells, because their encoder is trained, or is fitted anew in each fold."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, Dataset

from mmtool import cells, console, encoding, plugins
from mmtool import engine as engines
from mmtool.api import CellError, Encoder, Tokens
from mmtool.encoding import Built, pad
from mmtool.errors import DataError
from mmtool.features.format import BLOCK_ROWS
from mmtool.inference import paths
from mmtool.inputs import Input
from mmtool.media.augment import Policy
from mmtool.ragged import Ragged
from mmtool.training.cellstore import CellStore

Keep = Literal["pooled", "tokens", "mean"]
"""What a fusion gets of a cell: the encoder's own pool, every token, or the mean of what would be kept as tokens."""


@dataclass
class Live:
    """One such input. `built` is the encoder as it begins; `trained`: do the weights change?"""

    item: Input
    built: Built
    store: CellStore
    trained: bool
    seed: int
    augment: Policy | None = None
    keep: Keep = "pooled"

    @property
    def name(self) -> str:
        return self.item.name

    @property
    def fitted(self) -> bool:
        """Does the encoder learn something in `fit`?"""
        return self.built.encoder.needs_fit()

    def encoder(self, rows: Sequence[int]) -> Encoder:
        """A new encoder as it begins, fitted on these rows where it learns from them; drawn from the run's seed."""
        if not self.fitted:
            return copy.deepcopy(self.built.encoder)
        plugin = plugins.find(self.built.name)
        fresh = encoding.from_options(plugin, plugins.load(plugin), self.built.options, seed=self.seed, load=True).encoder
        if not any(self.store.statuses[row] == "ok" for row in rows):
            raise DataError(f"input {self.name!r} has no usable cell in the {len(rows)} rows of one part, and encoder "
                            f"{self.built.name!r} learns from them", "leave it out, or have fewer parts with --folds")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            fresh.fit(self.store.cells(rows))
        return fresh.eval()

    def features(self, encoder: Encoder, device: torch.device, batch_size: int) -> Tokens:
        """Every row through a frozen encoder, on the CPU, in the blocks that `extract` has."""
        engine = engines.Engine(encoder, device, "fp32", batch_size, f"input {self.name!r}, encoder {self.built.spec}")
        keep: paths.Keep = "pooled" if self.keep == "pooled" else "tokens"
        rows: list[Tensor | None] = []
        for start in range(0, len(self.store.statuses), BLOCK_ROWS):
            block = range(start, min(start + BLOCK_ROWS, len(self.store.statuses)))
            rows += engine.encode([cell_of(self, encoder, row, None) for row in block], keep=keep)
        encoder.to("cpu")
        wild = [i for i, row in enumerate(rows) if row is not None and not bool(row.isfinite().all())]
        for i in wild:
            rows[i] = None
        if wild:
            console.warn(f"input {self.name!r}: encoder {self.built.spec} gave a value that is not finite for {len(wild)} "
                         f"cell{'' if len(wild) == 1 else 's'}, which count as missing")
        tokens = Ragged.of(rows, next((row.shape[1] for row in rows if row is not None), encoder.dim))
        return tokens if self.keep == "tokens" else Tokens.pooled(tokens.mean(), tokens.present)


def cell_of(live: Live, encoder: Encoder, row: int, epoch: int | None) -> Tensor | None:
    """A row's prepared cell, augmented in an epoch of training; None where there is none that can be used."""
    if live.store.statuses[row] != "ok":
        return None
    try:
        if live.store.prepared:
            return live.store.prepared_cell(row)
        cell = live.store.decoded(row)
        if live.augment is not None and epoch is not None:
            cell = live.augment.apply(cell, live.seed, epoch, row)
        return cells.prepare_decoded(cell, encoder)
    except CellError:  # not with these fitted pieces or columns
        return None


@dataclass(frozen=True)
class Prepared:
    """The prepared cells of the rows of a batch that have one: `x [n, L, ...]`, `lengths [n]`, `at [n]`; B rows in all."""

    x: Tensor | None
    lengths: Tensor
    at: Tensor
    rows: int

    @classmethod
    def of(cls, found: Sequence[Tensor | None]) -> Prepared:
        """Cells of a batch, None where there is none."""
        at = [i for i, cell in enumerate(found) if cell is not None]
        if not at:
            return cls(None, torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), len(found))
        x, lengths = pad([cell for cell in found if cell is not None])
        return cls(x, lengths, torch.tensor(at), len(found))

    def encode(self, encoder: Encoder, device: torch.device, width: int, keep: Keep) -> Tokens:
        """Through the encoder: `[B, 1, width]`, or `[B, T, width]` where tokens are kept; missing where there is no cell."""
        if self.x is None:
            return Tokens.pooled(torch.zeros(self.rows, width, device=device), torch.zeros(self.rows, device=device))
        tokens = _kept(encoder, _forward(encoder, self.x.to(device, non_blocking=True), self.lengths.to(device)), keep)
        at, long = self.at.to(device), tokens.mask.shape[1]
        values = torch.zeros(self.rows, long, width, device=device).index_copy(0, at, tokens.values.float())
        mask = torch.zeros(self.rows, long, dtype=torch.bool, device=device).index_copy(0, at, tokens.mask)
        return Tokens(values, mask)


def _kept(encoder: Encoder, tokens: Tokens, keep: Keep) -> Tokens:
    if keep == "tokens":
        return tokens
    return Tokens.pooled(encoder.pool(tokens)) if keep == "pooled" else Tokens.pooled(tokens.mean(), tokens.present)


def _forward(encoder: Encoder, x: Tensor, lengths: Tensor) -> Tokens:
    """The tokens of a batch. A single cell has no variance for batch norms: they then use what they have gathered so far."""
    try:
        tokens: Tokens = encoder(x, lengths)
    except ValueError:
        norms = [m for m in encoder.modules() if isinstance(m, _BatchNorm) and m.training]
        if len(x) > 1 or not norms:
            raise
        for norm in norms:
            norm.eval()
        try:
            tokens = encoder(x, lengths)
        finally:
            for norm in norms:
                norm.train()
    return tokens


@dataclass
class Feed(Dataset[Any]):
    """Prepared cells of a batch of rows for every live input; picklable, for loader processes."""

    lives: list[Live]
    encoders: dict[str, Encoder] = field(default_factory=dict)
    workers: int = 0

    def __getitem__(self, key: tuple[int | None, list[int]]) -> dict[str, Prepared]:
        epoch, rows = key
        return {live.name: Prepared.of([cell_of(live, self.encoders[live.name], row, epoch) for row in rows])
                for live in self.lives}

    def _alone(self, key: tuple[int | None, list[int]]) -> dict[str, Prepared]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in a loader process, so that the bits are the same
        try:
            return self[key]
        finally:
            torch.set_num_threads(threads)

    @cached_property
    def lengths(self) -> Tensor:
        """How long the cells of each row are together, `[N]`: rows of a length make batches with little padding."""
        count = len(self.lives[0].store.statuses) if self.lives else 0
        return torch.tensor([sum(live.store.length(row) for live in self.lives) for row in range(count)])

    def batches(self, batches: Sequence[Sequence[int]], epoch: int | None) -> Any:
        """An iterator over the batches, in their order; augmented where an epoch is given."""
        keys = [(epoch, list(rows)) for rows in batches]
        cheap = all(live.store.prepared or live.store.source.modality in ("text", "table") for live in self.lives)
        if not self.workers or cheap or len(keys) < 2:
            return (self._alone(key) for key in keys)
        return iter(DataLoader(self, sampler=keys, batch_size=None, num_workers=self.workers))


def width_of(live: Live, encoder: Encoder) -> int:
    """Width of what a fusion gets of it, found with one cell."""
    cell = next((c for row in range(len(live.store.statuses)) if (c := cell_of(live, encoder, row, None)) is not None), None)
    if cell is None:
        raise DataError(f"input {live.name!r}: encoder {live.built.spec} can use no cell of the training rows",
                        "leave it out, or check its column")
    x, lengths = pad([cell])
    with torch.inference_mode():
        return _kept(encoder, encoder(x, lengths), live.keep).dim
