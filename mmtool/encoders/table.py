"""Numbers and categories of a row as one vector."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mmtool.api import CellError, DataError, Encoder, Tokens, UsageError
from mmtool.encoders.table_columns import Column, Tally, Value, is_missing


class Table(Encoder):
    """One token a row. What a column is, numeric or categorical, is learned from the training rows.

    Numeric (every value is or spells a finite number): deviations from the mean in units of the standard deviation,
    held within -10 and 10 so that one wild value cannot drown the other columns, and whether it is missing.
    Categorical: one slot for each of the `max_categories` most frequent values, one for others, one for missing.
    Columns keep the order in which the training rows first brought them; a further one is ignored later, and an
    absent one is missing.
    """

    api: ClassVar[int] = 1
    modality: ClassVar[str] = "table"
    pretrained = True

    def __init__(self, *, max_categories: int = 32) -> None:
        super().__init__()
        if not 1 <= max_categories <= 10_000:
            raise UsageError(f"table: max_categories={max_categories} is not between 1 and 10000")
        self.max_categories = max_categories
        self.columns: tuple[Column, ...] = ()

    def fit(self, cells: Iterable[Mapping[str, Value]]) -> None:
        """Kind, mean, deviation and categories of each column, in one pass and bounded memory.

        Raises MMToolError where there is no row.
        """
        tallies: dict[str, Tally] = {}
        for cell in cells:
            for name, value in cell.items():
                tallies.setdefault(name, Tally()).add(value)
        if not tallies:
            raise DataError("there is no row to learn the columns from", "give training rows with values")
        self._take(tuple(tally.column(name, self.max_categories) for name, tally in tallies.items()))

    def _take(self, columns: tuple[Column, ...]) -> None:
        self.columns = columns
        self.dim = sum(column.width for column in columns)

    def assets(self) -> dict[str, Tensor]:
        """`columns`: a JSON list of the columns, in order, as uint8."""
        text = json.dumps([asdict(c) for c in self.columns], sort_keys=True).encode()
        return {"columns": torch.from_numpy(np.frombuffer(text, np.uint8).copy())} if self.columns else {}

    def set_assets(self, assets: dict[str, Tensor]) -> None:
        """The columns as they were learned elsewhere."""
        columns: list[dict[str, Any]] = json.loads(assets["columns"].cpu().numpy().tobytes())
        self._take(tuple(Column(**{**c, "categories": tuple(c["categories"])}) for c in columns))

    def prepare(self, cell: Mapping[str, Value]) -> Tensor:
        """A row -> `[1, dim]`. Raises CellError for a text in a numeric column, and where every value is missing."""
        if not self.columns:
            raise DataError("the columns of the table are not learned yet", "fit it on training rows")
        if all(is_missing(cell.get(column.name)) for column in self.columns):
            raise CellError("no column has a value", "E_CELL_NOTHING_LEFT")
        return torch.tensor([[x for column in self.columns for x in column.numbers(cell.get(column.name))]])

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        """`[B, 1, dim]` as it was prepared."""
        return Tokens.pooled(x[:, 0], lengths.to(x.device) > 0)
