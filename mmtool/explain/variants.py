"""Where within one cell: it is cut into parts, variants of it are encoded, and each part gets a score."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from mmtool import cells
from mmtool.engine import Engine
from mmtool.errors import CellError
from mmtool.explain import audio, image, table, text
from mmtool.explain.attribute import attribute
from mmtool.explain.parts import Parts
from mmtool.extraction.sources import Reading

MODALITIES = ("audio", "image", "table", "text")
"""Whose cells can be cut into parts."""

Value = Callable[[list[Tensor | None]], Tensor]
"""What N variants of a cell become in the encoder, `[T, D]` each or None -> the values of C targets, `[N, C]`."""


def parts_of(content: Any, reading: Reading) -> Parts:
    """The content of a cell of one of `MODALITIES`, cut into parts. Raises CellError."""
    encoder = reading.preparer
    cell = cells.decode(content, reading.source, encoder)
    if encoder.modality == "image":
        return image.parts(cell, encoder.image_size_px)
    if encoder.modality == "audio":
        return audio.parts(cell, encoder.sample_rate_hz)
    return text.parts(cell) if encoder.modality == "text" else table.parts(cell)


def encode(variants: Iterable[Any], reading: Reading, engine: Engine) -> list[Tensor | None]:
    """Decoded cells -> what the encoder makes of each; None for one that is None, or that cannot be used."""
    prepared = [None if cell is None else _prepared(cell, reading) for cell in variants]
    rows = engine.encode(prepared, keep=reading.keep)
    return [row if row is not None and len(row) and bool(row.isfinite().all()) else None for row in rows]


def scores(parts: Parts, reading: Reading, engine: Engine, value: Value) -> Tensor:
    """A score for each part, `[C, P]`."""
    def game(kept: Tensor) -> Tensor:
        return value(encode((parts.keep(row) for row in kept.tolist()), reading, engine))

    return attribute(parts.count, game) if parts.count else torch.zeros(1, 0)


def _prepared(cell: Any, reading: Reading) -> Tensor | None:
    try:
        return cells.prepare_decoded(cell, reading.preparer)
    except CellError:  # nothing is left of it that could be used
        return None
