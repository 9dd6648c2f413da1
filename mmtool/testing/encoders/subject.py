"""What the checks look at: an encoder, built afresh or shared, with sample cells and the tokens it gives for them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mmtool import encoding
from mmtool.api import CellError, Encoder, Tokens
from mmtool.testing.encoders.samples import cells_for
from mmtool.testing.subject import Subject
from mmtool.testing.verdicts import fail


class EncoderSubject(Subject):
    """One encoder under test. What takes long (loading, fitting, preparing) happens once, when first asked for."""

    kind = "encoder"
    base = Encoder
    instead = "move that to `load`, which is skipped when a file of mmtool brings the weights"

    def __init__(self, encoder: str | type[Encoder], *, load: bool = True, cells: Sequence[Any] | None = None) -> None:
        super().__init__(encoder)
        self._load = load
        self._cells = cells
        self.load_error: Exception | None = None

    def new(self, *, seed: int = 0) -> Encoder:
        """A fresh one in eval mode: neither loaded nor fitted."""
        return encoding.from_options(self.plugin, self.cls, self.options, seed=seed, load=False).encoder

    @cached_property
    def encoder(self) -> Encoder:
        """The one that most checks share: loaded where its weights are at hand, fitted on the sample cells."""
        encoder = self.new()
        if self._load:
            try:
                encoder.load()
            except Exception as error:  # noqa: BLE001  judged by the check `loads`; the others go on with random weights
                self.load_error = error
                encoder = self.new()
        if self.cls.needs_fit():
            encoder.fit(iter(self.cells))
        return encoder.eval()

    @property
    def module(self) -> Encoder:
        """The shared encoder."""
        return self.encoder

    def use(self) -> None:
        """Build, load, fit, prepare and run it."""
        self.outputs  # noqa: B018  cached

    @property
    def asks_for_weights(self) -> bool:
        """Was loading asked for?"""
        return self._load

    @property
    def has_weights(self) -> bool:
        """Does the shared encoder have the weights that it should have?"""
        return not self.encoder.pretrained or (self._load and self.load_error is None)

    @cached_property
    def cells(self) -> list[Any]:
        """The sample cells: the caller's, else the plugin's, else those made for its modality."""
        given = self._cells or self.cls.sample_cells()
        return list(given) or cells_for(self.cls.modality, self.new().sample_rate_hz)

    @cached_property
    def prepared(self) -> list[Tensor]:
        """Every sample cell that `prepare` takes, prepared."""
        return [x for x in prepare_all(self.encoder, self.cells) if x is not None]

    @cached_property
    def batches(self) -> list[list[int]]:
        """Which prepared cells go together: all of them, or those of equal length where the encoder pads nothing."""
        if self.encoder.padding == "masked":
            return [list(range(len(self.prepared)))]
        lengths = [len(x) for x in self.prepared]
        return [[i for i, n in enumerate(lengths) if n == length] for length in sorted(set(lengths))]

    @cached_property
    def outputs(self) -> list[Tokens]:
        """The tokens of each batch."""
        return [self.run(batch) for batch in self.batches]

    def run(self, rows: Sequence[int], encoder: Encoder | None = None) -> Tokens:
        """The tokens of some prepared cells in one batch, from the shared encoder or another."""
        return forward(encoder or self.encoder, *encoding.pad([self.prepared[i] for i in rows]))


def prepare_all(encoder: Encoder, cells: Sequence[Any]) -> list[Tensor | None]:
    """Each cell prepared; None where the encoder refuses it, or nothing is left of it."""
    prepared: list[Tensor | None] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the host's readers, so that the bits are the same
    try:
        for cell in cells:
            try:
                x = encoder.prepare(cell)
            except CellError:
                x = None
            prepared.append(None if isinstance(x, Tensor) and x.ndim and not len(x) else x)
    finally:
        torch.set_num_threads(threads)
    return prepared


def forward(encoder: Encoder, x: Tensor, lengths: Tensor) -> Tokens:
    """`x [B, L, ...]`, `lengths [B]` -> tokens, as the host computes them: no gradients."""
    with torch.inference_mode():
        tokens = encoder(x, lengths)
    if not isinstance(tokens, Tokens):
        fail(f"forward must return Tokens(values, mask), it returned {type(tokens).__name__}")
    return tokens
