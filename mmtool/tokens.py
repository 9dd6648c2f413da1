"""The one shape everywhere: a ragged batch of tokens with its mask.

Shapes: B rows of a batch, T tokens of a row, D width of a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Tokens:
    """A ragged batch: `values [B, T, D]` and `mask [B, T]`, True on a prefix of each row.

    A pooled feature has T = 1; a missing cell has an all-False row. Values under a False mask mean nothing.
    """

    values: Tensor
    mask: Tensor

    @classmethod
    def pooled(cls, x: Tensor, present: Tensor | None = None) -> Tokens:
        """`x [B, D]` as one token a row; `present [B]` is False where the cell is missing."""
        mask = torch.ones(len(x), dtype=torch.bool, device=x.device) if present is None else present.bool()
        return cls(x.unsqueeze(1), mask.unsqueeze(1))  # [B, 1, D], [B, 1]

    @classmethod
    def from_rows(cls, rows: Sequence[Tensor | None], dim: int | None = None) -> Tokens:
        """Rows `[T_i, D]` (None: missing), padded with zeros to the longest. `dim` is needed where all are missing."""
        given = [row for row in rows if row is not None]
        first = given[0] if given else torch.zeros(0, dim or 0)
        lengths = torch.tensor([0 if row is None else len(row) for row in rows])
        width = max(int(lengths.max()), 1) if len(rows) else 1
        values = first.new_zeros(len(rows), width, first.shape[-1])  # [B, T, D]
        for i, row in enumerate(rows):
            if row is not None:
                values[i, : len(row)] = row
        mask = torch.arange(width) < lengths.unsqueeze(1)  # [B, T]
        return cls(values, mask.to(values.device))

    @property
    def lengths(self) -> Tensor:
        """Tokens of each row, `[B]`, int64."""
        return self.mask.sum(1)

    @property
    def present(self) -> Tensor:
        """True where the row has at least one token, `[B]`."""
        return self.mask.any(1)

    @property
    def dim(self) -> int:
        """D, the width of a token."""
        return self.values.shape[2]

    def take(self, at: Tensor) -> Tokens:
        """The rows with these numbers, or where a mask says so."""
        return Tokens(self.values[at], self.mask[at])

    def hidden(self) -> Tokens:
        """The same rows, each missing."""
        return Tokens(self.values, torch.zeros_like(self.mask))

    def padded(self) -> Tokens:
        """The same with its values at hand, where they are read only when they are needed (`mmtool.ragged`)."""
        return self

    def mean(self) -> Tensor:
        """Masked mean over the tokens, `[B, D]`; zero where a row is missing."""
        if self.values.shape[1] == 1:  # the same bits in a third of the time
            return self.values[:, 0].masked_fill(~self.mask, 0)
        w = self.mask.unsqueeze(-1)  # [B, T, 1]
        total = self.values.masked_fill(~w, 0).sum(1)  # [B, D]
        return total / w.sum(1).clamp(min=1).to(total.dtype)

    def rows(self) -> list[Tensor]:
        """Each row without its padding: B tensors `[T_i, D]`."""
        width = self.values.shape[1]
        return [v if n == width else v[:n] for v, n in zip(self.values.unbind(), self.lengths.tolist(), strict=True)]
