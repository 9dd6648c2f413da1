"""The picture of where in a picture: red where it speaks for the prediction, blue where against."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mmtool import files
from mmtool.errors import StorageError, storage_error
from mmtool.inputs import slug

LARGEST_PX = 1024
FOR, AGAINST = (215, 25, 28), (44, 90, 180)
STRONGEST = 0.7
"""How much of the picture the strongest patch's colour covers."""
LONGEST_NAME = 60
FOLDER = "explained"


class Overlays:
    """A folder for the pictures of one run, beside the predictions or here; made when the first one is written."""

    def __init__(self, output: Path | None) -> None:
        self.folder = Path(FOLDER) if output is None else output.with_name(f"{output.stem}-{FOLDER}")
        self.names: set[str] = set()
        if self.folder.exists() and not self.folder.is_dir():
            raise StorageError(f"{self.folder} is a file, and --explain writes pictures into a folder of that name",
                               "move it, or choose another -o", code="E_OUTPUT")

    def write(self, row: str, what: Sequence[str], png: bytes) -> str:
        """Write one, named by the row's id and `what` it shows, in safe characters; returns its path."""
        stem = "-".join(slug(part[-LONGEST_NAME:]) for part in (row, *what))
        names = (f"{stem}.png" if n == 1 else f"{stem}-{n}.png" for n in count(1))
        name = next(n for n in names if n.casefold() not in self.names)  # not every disk tells a from A
        self.names.add(name.casefold())
        try:
            self.folder.mkdir(exist_ok=True)
            files.write_bytes(self.folder / name, png)
        except OSError as error:
            raise storage_error(error, "a picture of --explain cannot be written") from error
        return str(self.folder / name)


def paint(picture: Tensor, grid: Sequence[Sequence[float]]) -> bytes:
    """uint8 `[3, H, W]` under the scores of its patches, as a PNG of its size, at most 1024 pixels on a side.

    Colours are relative to the strongest patch.
    """
    small = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
    small.thumbnail((LARGEST_PX, LARGEST_PX))
    grey = np.asarray(small.convert("L").convert("RGB"), dtype=np.float64)  # [H, W, 3]
    patches = torch.tensor(grid, dtype=torch.float64)[None, None]  # [1, 1, rows, columns]
    heat = F.interpolate(patches, (small.height, small.width), mode="bilinear", align_corners=False)[0, 0].numpy()  # [H, W]
    share = heat / (float(patches.abs().max()) or 1.0)
    colour = np.where(share[..., None] > 0, np.array(FOR, dtype=np.float64), np.array(AGAINST, dtype=np.float64))
    cover = STRONGEST * np.abs(share)[..., None]
    out = io.BytesIO()
    Image.fromarray(((1 - cover) * grey + cover * colour).round().astype(np.uint8)).save(out, "PNG")
    return out.getvalue()
