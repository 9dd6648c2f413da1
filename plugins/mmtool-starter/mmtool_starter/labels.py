"""The 1000 classes of ImageNet: readable names, synonyms and definitions (WordNet 3.0), in the network's order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple, overload


class ImageNetClass(NamedTuple):
    """One class: a name that no other class has, other names (`, ` between them, maybe none), a definition."""

    label: str
    synonyms: str
    definition: str


@cache
def imagenet_classes() -> tuple[ImageNetClass, ...]:
    """The classes in the order of the logits."""
    text = files("mmtool_starter").joinpath("data/imagenet_classes.tsv").read_text("utf-8")
    return tuple(ImageNetClass(*line.split("\t")) for line in text.splitlines())


class _Labels(Sequence[str]):
    """The names alone; the file is read when the first is asked for, not when an encoder's class is made."""

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return tuple(c.label for c in imagenet_classes())[index]

    def __len__(self) -> int:
        return len(imagenet_classes())


LABELS: Sequence[str] = _Labels()
