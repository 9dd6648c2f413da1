"""Plain JPEGs through libjpeg-turbo alone: half of the time that Pillow takes, and the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
"""`[H, W, 3]`, RGB."""

_COLOURS = ("YCbCr", "Gray", "RGB")


def decode(data: bytes, size: tuple[int, int], scale: int = 1) -> Pixels | None:
    """A JPEG -> RGB `[H / scale, W / scale, 3]`; `scale` is 1, 2, 4 or 8 and divides both sides of `size` (width, height).

    None where it is not sure to be right: other colours (CMYK), another size than Pillow has read in the header (and has
    checked), whatever libjpeg warns of, as a file that ends early, and where simplejpeg is not installed.
    """
    try:
        import simplejpeg
    except ImportError:
        return None
    width, height = size
    try:
        rows, columns, colours, _ = simplejpeg.decode_jpeg_header(data)
        if (columns, rows) != size or colours not in _COLOURS:
            return None
        goal = (height // scale, width // scale, 3)
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=goal[0], min_width=goal[1], min_factor=scale)
    except ValueError:  # strict: also where libjpeg only warns
        return None
    return pixels if pixels.shape == goal else None
