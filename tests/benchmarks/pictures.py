"""JPEGs of 512 px that look like photos to a decoder: some 40 to 80 KB, each another one; made once, by two processes.

    python tests/benchmarks/pictures.py 5000

Where the real data are, stamps and clip art are laid on shaded, grainy grounds; else shapes are.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path

import harness
import numpy as np
from PIL import Image, ImageDraw

SIDE_PX, QUALITY, KINDS, PARTS = 512, 85, 120, 4


def pictures(count: int) -> list[Path]:
    """`count` files in the cache folder, in order; those that are there already are taken as they are."""
    folder = harness.cache_folder() / "pictures"
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{i:05d}.jpg" for i in range(count)]
    if lacking := [i for i, path in enumerate(paths) if not path.exists()]:
        with ProcessPoolExecutor(2) as pool:
            list(pool.map(_make, [folder] * len(lacking), lacking, chunksize=16))
    return paths


def manifest(path: Path, pictures: Sequence[Path]) -> Path:
    """`id,image` of these pictures."""
    with path.open("w", newline="") as f:
        csv.writer(f).writerows([("id", "image"), *((p.stem, p) for p in pictures)])
    return path


def _make(folder: Path, number: int) -> None:
    rng = np.random.default_rng(number)
    picture = Image.fromarray(_ground(rng))
    for _ in range(PARTS):
        part = _thing(rng)
        side = int(rng.integers(150, 400))
        part.thumbnail((side, side), Image.Resampling.BILINEAR)
        picture.paste(part, (int(rng.integers(-60, 400)), int(rng.integers(-60, 400))), part)
    grain = rng.integers(-5, 6, (SIDE_PX, SIDE_PX, 1), dtype=np.int16)
    pixels = np.clip(np.asarray(picture, np.int16) + grain, 0, 255).astype(np.uint8)  # [512, 512, 3]
    path = folder / f"{number:05d}.jpg"
    half = path.with_suffix(f".{os.getpid()}")
    Image.fromarray(pixels).save(half, "JPEG", quality=QUALITY)
    half.replace(path)


def _ground(rng: np.random.Generator) -> np.ndarray:
    """Shades that change slowly, and some texture, uint8 `[512, 512, 3]`."""
    coarse, fine = (Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize((SIDE_PX, SIDE_PX),
                    Image.Resampling.BICUBIC) for n in (5, 64))
    return np.asarray(Image.blend(coarse, fine, 0.2))


def _thing(rng: np.random.Generator) -> Image.Image:
    """A real picture, or shapes, RGBA."""
    if (found := _real(data := str(harness.data_folder() or ""))):
        return _opened(data, found[int(rng.integers(len(found)))]).copy()
    picture = Image.new("RGBA", (300, 300))
    draw = ImageDraw.Draw(picture)
    for _ in range(12):
        x, y, w, h = (int(n) for n in rng.integers(10, 220, 4))
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x, y, x + w, y + h), fill=(*(int(c) for c in rng.integers(0, 256, 3)), 255), outline="black")
    return picture


@lru_cache(maxsize=1)
def _real(data: str) -> list[str]:
    table = Path(data) / "stamps.csv"
    if not data or not table.exists():
        return []
    with table.open(encoding="utf-8", newline="") as f:
        return [row["image"] for row in csv.DictReader(f) if row["image"]][:: 5][:KINDS]


@lru_cache(maxsize=KINDS)
def _opened(data: str, name: str) -> Image.Image:
    picture = Image.open(Path(data) / name).convert("RGBA")
    picture.thumbnail((400, 400))
    return picture


if __name__ == "__main__":
    pictures(int(sys.argv[1]))
