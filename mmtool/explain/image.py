"""Where in a picture: a grid of patches, each of which can give way to the picture's mean colour or to a blur."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mmtool.explain.parts import Kept, Parts, rounded

PATCHES = 49
"""About so many; their number along each side follows the picture's shape."""
MARGIN = 2
"""A picture larger than so many times what the encoder asks for is made smaller before it is cut up."""
LARGEST_PX = 1024
"""The shorter side, where the encoder asks for nothing."""
LONGEST = 2
"""The same for the root of height times width: there are pictures of a few pixels by millions."""

Fill = Literal["mean", "blur"]


def parts(cell: Tensor, image_size_px: int | None, fill: Fill = "blur") -> Parts:
    """uint8 `[3, H, W]` -> its patches, row by row; `grid` in the JSON is a list of rows."""
    picture = _smaller(cell, MARGIN * image_size_px if image_size_px else LARGEST_PX)
    rows, columns = grid(*picture.shape[1:])
    behind = filled(picture, fill)
    patch = patch_of(picture.shape[1], picture.shape[2], rows, columns)  # [H, W]

    def keep(kept: Kept) -> Tensor:
        shown = torch.tensor(kept)[patch]  # [H, W]
        return torch.where(shown, picture, behind)

    def describe(scores: Any) -> dict[str, Any]:
        return {"grid": [[rounded(s) for s in scores[r * columns : (r + 1) * columns]] for r in range(rows)]}

    return Parts(rows * columns, keep, describe)


def grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of nearly square patches; no patch is less than a pixel."""
    rows = min(max(1, round(math.sqrt(PATCHES * height / width))), PATCHES)
    columns = min(max(1, round(PATCHES / rows)), PATCHES)
    return min(rows, height), min(columns, width)


def patch_of(height: int, width: int, rows: int, columns: int) -> Tensor:
    """The number of the patch that each pixel lies in, `[H, W]`."""
    y = torch.arange(height) * rows // height
    x = torch.arange(width) * columns // width
    return y.unsqueeze(1) * columns + x


def filled(picture: Tensor, fill: Fill) -> Tensor:
    """What a patch gives way to, uint8 `[3, H, W]`: the mean colour, or the picture without all that is finer than a patch."""
    mean = picture.float().mean((1, 2), keepdim=True)  # [3, 1, 1]
    if fill == "mean":
        return mean.round().to(torch.uint8).expand_as(picture)
    height, width = picture.shape[1:]
    small = F.adaptive_avg_pool2d(picture.float().unsqueeze(0), (min(4, height), min(4, width)))
    large = F.interpolate(small, (height, width), mode="bilinear", align_corners=False)[0]
    return large.clamp(0, 255).round().to(torch.uint8)


def _smaller(cell: Tensor, shorter_side_px: int) -> Tensor:
    height, width = cell.shape[1:]
    scale = min(shorter_side_px / min(height, width), LONGEST * shorter_side_px / math.sqrt(height * width))
    if scale >= 1:
        return cell
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return F.interpolate(cell.unsqueeze(0), size, mode="bilinear", antialias=True)[0]
