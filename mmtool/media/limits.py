"""How much one cell may cost before it is refused."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one cell may hold; what is over a limit is refused before it is decoded.

    Every limit is checked against the file's header first, so that a small file cannot unpack to a large one.
    Above 89 million pixels Pillow's own guard against bombs still refuses some TIFF, GIF and WebP files.
    """

    max_pixels: int = 64_000_000
    """Width times height of a picture, in pixels, before any reduction."""
    max_seconds: float = 600.0
    """Duration of a sound, in seconds."""
    max_pcm_bytes: int = 256 * 2**20
    """Decoded samples of a sound, all channels as float32 at the file's own rate, in bytes."""
    max_file_bytes: int = 256 * 2**20
    """The cell's bytes as they come, in bytes."""
    max_text_chars: int = 5_000_000
    """Length of a text, in characters (code points)."""

    @property
    def raised(self) -> float:
        """How far the limits are above the defaults, at least 1: a reader may take so much more memory and time."""
        usual = Limits()
        return max(1.0, self.max_pixels / usual.max_pixels, self.max_seconds / usual.max_seconds,
                   self.max_pcm_bytes / usual.max_pcm_bytes, self.max_file_bytes / usual.max_file_bytes)
