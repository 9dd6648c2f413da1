"""Augmentation of decoded cells for training: a policy is a list of words, applied as a function of seed, epoch and row."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from mmtool.errors import UsageError

WORDS: dict[str, dict[str, str]] = {
    "image": {"flip": "left and right swapped, for every second picture",
              "crop": "a part of 40 to 100 % of the area, its sides stretched by up to a quarter",
              "shift": "moved by up to an eighth of each side",
              "rotate": "turned by up to 15 degrees",
              "colour": "brightness, contrast and saturation by up to 40 %",
              "erase": "noise over 2 to 20 % of every second picture (Zhong et al., 2020)",
              "randaugment": "two operations of medium strength (Cubuk et al., 2020)",
              "trivial": "one operation of any strength (Müller and Hutter, 2021)"},
    "text": {"drop": "each word left out by a chance of 10 % (Wei and Zou, 2019)",
             "swap": "two words change places, once for every ten words (Wei and Zou, 2019)"},
    "audio": {"shift": "moved by up to a tenth of its length, what enters silent",
              "gain": "6 dB fainter to 6 dB louder, as far as nothing clips",
              "noise": "white noise 10 to 30 dB below the sound",
              "speed": "faster or slower by 10 %, or neither (Ko et al., 2015)"},
}
"""Modality -> word -> what it does. In a policy they act in the order in which they are written."""
_MODULES = {"image": "mmtool.media.augment_images", "text": "mmtool.media.augment_texts",
            "audio": "mmtool.media.augment_sounds"}


@dataclass(frozen=True, slots=True)
class Policy:
    """Words of a modality. Holds nothing else, so that it can be sent to a reader process."""

    modality: str
    words: tuple[str, ...]

    def apply(self, cell: Any, seed: int, epoch: int, row: int) -> Any:
        """A decoded cell -> one of the same kind, by arguments alone: the same bits again, in any process.

        An image is uint8 `[3, H, W]`, a sound float32 `[S]` in [-1, 1], and both may change their size. The cell
        itself is left as it is, and so are the states of all random generators.
        """
        digest = hashlib.blake2b(struct.pack("<3q", seed, epoch, row), digest_size=8).digest()
        return _augment(self.modality)(cell, self.words, int.from_bytes(digest, "little"))


def parse(text: str, modality: str) -> Policy:
    """`crop,flip,colour` -> a policy. Raises UsageError for what is not there, naming what is."""
    known = WORDS.get(modality)
    if known is None:
        raise UsageError(f"there is no augmentation of {modality}", f"there is one of {', '.join(sorted(WORDS))}")
    words = tuple(word.strip() for word in text.split(","))
    listed = f"words for {modality}: {', '.join(known)}"
    for i, word in enumerate(words):
        if word not in known:
            raise UsageError(f"no augmentation of {modality} is called {word!r}", listed)
        if word in words[:i]:
            raise UsageError(f"augmentation {word!r} is named twice", listed)
    return Policy(modality, words)


@cache
def _augment(modality: str) -> Any:
    return import_module(_MODULES[modality]).augment  # torchvision takes a second to import
