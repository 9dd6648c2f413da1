"""All that a plugin imports: the encoder contract (version 1), tokens, and the errors.

Shapes: B rows of a batch, T tokens of a row, D width of a token, L length of a prepared cell.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mmtool.errors import CellError, MMToolError, PluginError, UsageError

__all__ = ["API_VERSION", "CellError", "Encoder", "Fusion", "MMToolError", "PluginError", "Task", "Tokens", "UsageError",
           "downloads_allowed", "resize_image"]

API_VERSION = 1


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

    def mean(self) -> Tensor:
        """Masked mean over the tokens, `[B, D]`; zero where a row is missing."""
        w = self.mask.unsqueeze(-1)  # [B, T, 1]
        total = self.values.masked_fill(~w, 0).sum(1)  # [B, D]
        return total / w.sum(1).clamp(min=1).to(total.dtype)

    def rows(self) -> list[Tensor]:
        """Each row without its padding: B tensors `[T_i, D]`."""
        return [v[:n] for v, n in zip(self.values, self.lengths.tolist(), strict=True)]


class Encoder(nn.Module):
    """One decoded cell -> tokens. Options are the keyword-only, annotated arguments of `__init__`.

    `__init__` only builds: it opens no file and no connection. `load` fills pretrained weights and is skipped
    when a file of ours brings them. What is fitted and is no weight goes through `assets` and `set_assets`.
    """

    api: ClassVar[int] = 0
    """Version of this contract that the plugin was written for; it must state one."""
    modality: ClassVar[str] = ""
    """What kind of cell `prepare` reads: image, audio, text, table, or any other word (the file's bytes)."""
    revision: ClassVar[int] = 1
    """Bumped by the plugin when its output changes."""
    padding: ClassVar[Literal["masked", "none"]] = "masked"
    """"none": the host batches equal lengths only."""
    example: ClassVar[str] = ""
    """Options, as the command line writes them, with which the contract checks build it: `resnet18,img_size=64`."""

    dim: int = 0
    """D, the width of the tokens; may be set as late as `fit` or `set_assets`."""
    pretrained: bool = False
    """Do the weights mean something? Random ones are trained, or refused by `extract`."""
    sample_rate_hz: int = 16_000
    """Audio only: the rate of the sound that `prepare` gets."""
    image_size_px: int | None = None
    """Images only: the shorter side that `prepare` needs, so that no more than needed is decoded."""
    space: str | None = None
    """Encoders that state the same space can be compared with each other (zero-shot, search)."""
    space_temperature: float = 0.05
    """What the cosine similarities of this encoder's vectors in the space are divided by before a softmax."""
    labels: Sequence[str] = ()
    """The labels that a zero-shot prediction uses where the user gives none."""
    weights_sha256: str | None = None
    """SHA-256 of weights that are not in `state_dict` (then they cannot be fine-tuned or bundled)."""

    def load(self) -> None:
        """Fill pretrained weights from files of the machine; the default has none to fill."""

    def fit(self, cells: Iterable[Any]) -> None:
        """Learn from the decoded cells of the training rows, once (vocabulary, mean and scale). Optional."""
        raise NotImplementedError

    def assets(self) -> dict[str, Tensor]:
        """All that was fitted and is no weight, as tensors (text as uint8)."""
        return {}

    def set_assets(self, assets: dict[str, Tensor]) -> None:
        """Take what `assets` gave; called before `load_state_dict`."""
        if assets:
            raise MMToolError(f"{type(self).__name__} takes no assets, got {sorted(assets)}")

    def prepare(self, cell: Any) -> Tensor:
        """One decoded cell -> `[L, ...]`, on the CPU, from options and assets alone; runs in a reader process.

        `cell` is for image uint8 `[3, H, W]` (RGB, upright), for audio float32 `[S]` (mono, in [-1, 1], at
        `sample_rate_hz`), for text a str, for table a dict of column to number, str or None, else bytes or str.
        Raises `CellError` for a cell that it cannot use.
        """
        raise NotImplementedError

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        """`x [B, L, ...]`, padded with zeros on the first axis, and `lengths [B]` -> tokens `[B, T, dim]`."""
        raise NotImplementedError

    def pool(self, tokens: Tokens) -> Tensor:
        """What `extract` keeps without `--tokens`: `[B, pooled_dim]`; the default is the masked mean."""
        return tokens.mean()

    def to_space(self, tokens: Tokens) -> Tensor:
        """Vectors in the stated space, `[B, space_dim]`, of any length."""
        raise NotImplementedError

    @classmethod
    def sample_cells(cls) -> Sequence[Any]:
        """Decoded cells for the contract checks; empty: those that mmtool makes for the modality."""
        return ()

    @classmethod
    def needs_fit(cls) -> bool:
        """Does this encoder learn something in `fit`?"""
        return cls.fit is not Encoder.fit


def downloads_allowed() -> bool:
    """May a plugin open a connection to fetch weights? Only after `--allow-download`."""
    return os.environ.get("MMTOOL_ALLOW_DOWNLOAD") == "1"


def resize_image(image: Tensor, size_px: int, *, crop: float = 1.0, squash: bool = False,
                 interpolation: Literal["bilinear", "bicubic"] = "bicubic") -> Tensor:
    """uint8 `[3, H, W]` -> uint8 `[3, size_px, size_px]`, antialiased.

    The shorter side becomes `size_px / crop` and the centre is cut out; `squash` scales both sides instead.
    """
    h, w = image.shape[1:]
    if squash:
        goal = (size_px, size_px)
    else:
        scale = int(size_px / crop) / min(h, w)
        goal = (max(size_px, round(h * scale)), max(size_px, round(w * scale)))
    if (h, w) != goal:
        image = nn.functional.interpolate(image.unsqueeze(0), goal, mode=interpolation, antialias=True)[0]
    top, left = (goal[0] - size_px) // 2, (goal[1] - size_px) // 2
    return image[:, top : top + size_px, left : left + size_px]


class Fusion(nn.Module):
    """Tokens of several inputs -> one vector, or tokens, a row. Options are the keyword-only arguments of `__init__`.

    A missing input (an all-False mask row) must not change the result beyond its absence, and must never give NaN.
    """

    api: ClassVar[int] = 0
    """Version of this contract that the plugin was written for; it must state one."""
    returns: ClassVar[Literal["pooled", "tokens", "towers"]] = "pooled"
    """pooled: T = 1; tokens: several; towers: a dict with one output an input, which `combine` makes one again."""

    dim: int = 0
    """D of what comes out (pooled and tokens)."""

    def __init__(self, dims: dict[str, int]) -> None:
        """`dims`: the width of each input's tokens, at least one; layouts follow sorted names."""
        super().__init__()
        self.dims = {name: dims[name] for name in sorted(dims)}

    def forward(self, inputs: dict[str, Tokens]) -> Tokens | dict[str, Tokens]:
        """`inputs`: tokens `[B, T_i, D_i]` of every input in `dims`."""
        raise NotImplementedError

    def combine(self, outputs: dict[str, Tensor], present: dict[str, Tensor]) -> Tensor:
        """Towers only: each tower's output `[B, K]` (`present [B]`: is the input there?) -> `[B, K]`."""
        raise NotImplementedError


class Task(nn.Module):
    """What is predicted: target codec, head, loss, decoding and metrics. Options as an encoder's."""

    api: ClassVar[int] = 0
    """Version of this contract that the plugin was written for; it must state one."""
    needs: ClassVar[Literal["pooled", "tokens", "towers"]] = "pooled"
    """What the fusion must return; a task that needs pooled also takes towers."""

    def fit(self, targets: Sequence[str]) -> None:
        """Learn classes, scales or a vocabulary from the training rows' targets, as written in the manifest."""

    def assets(self) -> dict[str, Tensor]:
        """All that was fitted and is no weight, as tensors (text as uint8)."""
        return {}

    def set_assets(self, assets: dict[str, Tensor]) -> None:
        """Take what `assets` gave; called before `build`."""

    def build(self, dims: dict[str, int]) -> None:
        """Make the head for `{"fused": D}`, or for an entry a tower; called after `fit` or `set_assets`."""
        raise NotImplementedError

    def encode(self, target: str) -> Tensor:
        """One target -> `[U]`; the host pads to `[B, U]`. Raises `CellError` for one that training cannot know."""
        raise NotImplementedError

    def outputs(self, x: dict[str, Tokens]) -> dict[str, Tensor]:
        """The head's raw outputs `[B, K]` for each entry of `x`."""
        raise NotImplementedError

    def loss(self, outputs: Tensor, y: Tensor, lengths: Tensor) -> Tensor:
        """Outputs `[B, K]` and targets `[B, U]` -> loss of each row, `[B]`."""
        raise NotImplementedError

    def decode(self, outputs: Tensor) -> list[dict[str, Any]]:
        """Outputs `[B, K]` -> the keys of each row's prediction (`prediction`, `probability`, `probabilities`, ...)."""
        raise NotImplementedError

    def metrics(self, predictions: Sequence[dict[str, Any]], targets: Sequence[str]) -> dict[str, float]:
        """Predictions as in a predictions file, and targets as written -> metric name to value."""
        raise NotImplementedError
