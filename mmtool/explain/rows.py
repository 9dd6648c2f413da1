"""Explaining the rows that a model predicts: what each input contributes and, where cells are raw, where within it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from mmtool import console
from mmtool.api import Tokens
from mmtool.engine import Engine
from mmtool.explain import inputs
from mmtool.explain.overlay import Overlays
from mmtool.explain.value import margins, shown, variant_rows
from mmtool.explain.within import Within
from mmtool.extraction.sources import Reading
from mmtool.manifest.rows import Row
from mmtool.model import Model
from mmtool.network import take

AsTokens = Callable[[str, Sequence[Tensor | None]], Tokens]
"""An input's name and what its encoder made of N cells -> the tokens that the model takes."""


class Explainer:
    """Explains the rows of one run, with the encoders that predict them."""

    def __init__(self, model: Model, readings: Sequence[Reading], engines: Mapping[str, Engine], as_tokens: AsTokens,
                 overlays: Overlays) -> None:
        self.model, self.as_tokens = model, as_tokens
        self.within = Within(readings, engines, overlays)
        for name in sorted({r.name for r in readings} - set(self.within.readings)):
            console.say(f"{name}: only what it contributes as a whole is told; its cells have no parts that mmtool knows")

    def rows(self, lines: Iterator[dict[str, Any]], rows: Iterator[tuple[str, Row]],
             tokens: Mapping[str, Tokens]) -> Iterator[dict[str, Any]]:
        """The predictions of a block, explained one by one; `tokens` are the block's, `rows` go on behind it."""
        for at, line in enumerate(lines):
            yield self._row(line, next(rows)[1], take(tokens, [at]))

    def _row(self, line: dict[str, Any], row: Row, tokens: Mapping[str, Tokens]) -> dict[str, Any]:
        explained = inputs.explain(self.model, tokens, line)
        below = line.get("targets", {self.model.columns[0]: line})
        if not explained:
            return line
        whole = margins(self.model, tokens, explained)  # [1, C]
        for name in (n for n in line["inputs"] if n in self.within.readings):
            def value(variants: list[Tensor | None], name: str = name) -> Tensor:
                rows = variant_rows(tokens, name, self.as_tokens(name, variants))
                return shown(margins(self.model, rows, explained), whole, explained)

            titles = [(line["id"], name, column) if len(below) > 1 else (line["id"], name) for column in explained]
            for column, told in zip(explained, self.within.explain(name, row, titles, value), strict=False):
                below[column]["explanation"]["within"][name] = told
        return line
