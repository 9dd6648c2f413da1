"""Encoders with one mistake each, in what they state, in `__init__`, `load`, `fit` or `prepare`."""

import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from good_encoder import Good
from torch import Tensor

from mmtool.api import CellError, Encoder

PROCESS = os.getpid()


class Unstated(Good):
    api = 0


class WithoutModality(Good):
    modality = ""


class PositionalOption(Good):
    def __init__(self, width: int = 3) -> None:
        super().__init__(width=width)


class AnyOption(Good):
    def __init__(self, **options: int) -> None:
        super().__init__(**options)


class UnannotatedOption(Good):
    def __init__(self, *, width=3) -> None:  # type: ignore[no-untyped-def]
        super().__init__(width=width)


class ListOption(Good):
    def __init__(self, *, widths: list[int] | None = None) -> None:
        super().__init__()


class RequiredOption(Good):
    def __init__(self, *, model: str) -> None:
        super().__init__()


class OpensAFile(Good):
    def __init__(self) -> None:
        super().__init__()
        self.size = len(Path("pyproject.toml").read_bytes()) if Path("pyproject.toml").exists() else os.listdir()
        with open("/etc/hostname", "rb"):
            pass


class AsksTheNetwork(Good):
    def __init__(self) -> None:
        super().__init__()
        socket.getaddrinfo("localhost", 80)


class FailsToLoad(Good):
    def load(self) -> None:
        raise KeyError("layer.0")


class FitsAtRandom(Good):
    def fit(self, cells: Iterable[Any]) -> None:
        self.scale = torch.rand(1)


class CountsAnIterable(Good):
    def fit(self, cells: Any) -> None:
        self.scale = torch.tensor([float(len(cells))])


class PreparesLists(Good):
    def prepare(self, cell: str) -> Any:
        return super().prepare(cell).tolist()


class RefusesAll(Good):
    def prepare(self, cell: str) -> Tensor:
        raise CellError("no")


class VariesInShape(Good):
    def prepare(self, cell: str) -> Tensor:
        return super().prepare(cell).expand(len(cell), -1)


class FailsOnEmoji(Good):
    def prepare(self, cell: str) -> Tensor:
        return torch.tensor(list(cell.encode("cp1252")))


class Augments(Good):
    def prepare(self, cell: str) -> Tensor:
        return (super().prepare(cell) + torch.randint(0, 9, ())) % 128


class KnowsItsProcess(Good):
    def prepare(self, cell: str) -> Tensor:
        return (super().prepare(cell) + (os.getpid() != PROCESS)) % 128


class HoldsALambda(Good):
    def __init__(self) -> None:
        super().__init__()
        self.act = lambda x: x


MISTAKES: list[tuple[type[Encoder], str, str]] = [
    (Unstated, "states-what-it-is", "`api = 1`"),
    (WithoutModality, "states-what-it-is", 'modality = "image"'),
    (PositionalOption, "options-are-explicit", "def __init__(self, *, width: ...)"),
    (AnyOption, "options-are-explicit", "without *args or **kwargs"),
    (UnannotatedOption, "options-are-explicit", "'width' has no annotation"),
    (ListOption, "options-are-explicit", "cannot be written on the command line"),
    (RequiredOption, "options-are-explicit", "state `example`"),
    (OpensAFile, "builds-without-files", "file '/etc/hostname'"),
    (AsksTheNetwork, "builds-without-files", "host name 'localhost'"),
    (FailsToLoad, "loads", "KeyError"),
    (FitsAtRandom, "fits-the-same-twice", "asset 'scale' differs"),
    (CountsAnIterable, "fits-the-same-twice", "has no len() (mistakes_in_prepare.py, line "),
    (PreparesLists, "prepares-cells", "must return a tensor [L, ...], it returned list"),
    (RefusesAll, "prepares-cells", "sample_cells"),
    (VariesInShape, "prepares-cells", "differ in their first axis alone"),
    (FailsOnEmoji, "prepares-cells", "UnicodeEncodeError"),
    (Augments, "prepares-the-same-twice", "leave out randomness"),
    (KnowsItsProcess, "prepares-in-another-process", "gave other bits"),
    (HoldsALambda, "can-be-pickled", "__getstate__"),
]
"""The class, the check that it must fail, and part of what the check must say."""
