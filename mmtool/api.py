"""All that a plugin imports: the contracts of encoders, fusions and tasks (version 1), tokens, and the errors.

Shapes: B rows of a batch, T tokens of a row, D width of a token, L length of a prepared cell.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from mmtool.errors import ArtefactError, CellError, DataError, MMToolError, PluginError, StorageError, UsageError
from mmtool.fusion_api import Fusion
from mmtool.task_api import Task
from mmtool.tokens import Tokens

__all__ = ["API_VERSION", "ArtefactError", "CellError", "DataError", "Encoder", "Fusion", "MMToolError", "PluginError",
           "StorageError", "Task", "Tokens", "UsageError", "downloads_allowed", "read_safetensors",
           "resize_image"]

API_VERSION = 1


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
    channels_last: ClassVar[bool] = False
    """Images only: does `forward` take `x` in torch's channels_last memory? So it comes from the decoder: no copy is needed."""
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
            raise ArtefactError(f"{type(self).__name__} takes no assets, got {sorted(assets)}")

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


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Names and tensors of a file that anybody may have written, mapped; every rule of the format is checked before.

    Raises ArtefactError for a file that breaks one, StorageError where the system cannot read it.
    """
    from mmtool.tensorfile import read

    return read(path)[0]


def resize_image(image: Tensor, size_px: int, *, crop: float = 1.0, squash: bool = False,
                 interpolation: Literal["bilinear", "bicubic"] = "bicubic") -> Tensor:
    """uint8 `[3, H, W]` -> uint8 `[3, size_px, size_px]` (a view of HWC memory where `image` is one), antialiased.

    The shorter side becomes `size_px / crop` and the centre is cut out; `squash` scales both sides instead.
    """
    h, w = image.shape[1:]
    if squash:
        goal = (size_px, size_px)
    else:
        scale = int(size_px / crop) / min(h, w)
        goal = (max(size_px, round(h * scale)), max(size_px, round(w * scale)))
    if (h, w) != goal:
        batch = image.permute(1, 2, 0).unsqueeze(0).permute(0, 3, 1, 2)  # else torch makes planes of the colours
        image = nn.functional.interpolate(batch, goal, mode=interpolation, antialias=True)[0]
    top, left = round((goal[0] - size_px) / 2), round((goal[1] - size_px) / 2)  # as torchvision rounds
    return image[:, top : top + size_px, left : left + size_px]
