"""Running an encoder over one block of prepared cells, on a chosen device and in a chosen precision.

What is batched with what is a function of the block alone, so that equal blocks give equal bits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from mmtool import devices
from mmtool.api import Encoder, Tokens
from mmtool.encoding import pad
from mmtool.errors import DeviceError, UsageError

Keep = Literal["pooled", "tokens", "space"]
"""What is kept of a cell: one pooled vector, every token, or its vector in the space that the encoder states."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one, then MPS, then the CPU. Raises UsageError for what is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"--device {name!r} is no device", "use auto, cpu, cuda, cuda:N or mps") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise DeviceError(f"--device {name}: this machine has no CUDA device that PyTorch can use",
                              "use --device cpu, or install a driver and a CUDA build of torch")
        if (device.index or 0) >= count:
            raise DeviceError(f"--device {name}: there are {count} CUDA devices, numbered from 0")
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise DeviceError("--device mps: this machine has no Apple GPU that PyTorch can use", "use --device cpu")
    elif device.type != "cpu":
        raise DeviceError(f"--device {name!r} is not supported", "use auto, cpu, cuda, cuda:N or mps")
    return device


def be_deterministic(device: torch.device) -> None:
    """Equal inputs must give equal bits, also on a GPU."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def choose_batch_size(text: str, device: torch.device) -> int:
    """A number, or `auto`: 32 on a CPU, where more gains nothing, 128 elsewhere. Raises UsageError."""
    if text == "auto":
        return 32 if device.type == "cpu" else 128
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise UsageError(f"--batch-size {text!r} is no positive number", "give a number, or auto")
    return int(text)


def check_precision(name: str) -> None:
    """Raises UsageError for a precision that `DTYPES` does not hold."""
    if name not in DTYPES:
        raise UsageError(f"--precision {name!r} is not known", "use " + ", ".join(DTYPES))


@dataclass
class Engine:
    """One encoder on its device. `batch_size` falls by half whenever memory runs out; `halved` says so.

    `name` is what errors call it.
    """

    encoder: Encoder
    device: torch.device
    precision: str
    batch_size: int
    name: str = ""
    halved: bool = field(default=False)

    def __post_init__(self) -> None:
        self.name = self.name or f"encoder {type(self.encoder).__name__}"
        be_deterministic(self.device)
        with devices.watched(self.name, f"its weights do not fit into the memory of {self.device}: use --device cpu, or a "
                                        "smaller encoder"):
            self.encoder = self.encoder.to(self.device).eval()

    def encode(self, prepared: Sequence[Tensor | None], *, keep: Keep, ids: Sequence[str] = (),
               done: Callable[[int], None] = lambda cells: None) -> list[Tensor | None]:
        """Prepared cells (None: no usable cell there) -> tokens `[T, D]` of each on the CPU, T = 1 unless `keep` is tokens.

        `done` is told the cells of each batch; `ids` are what errors call the cells' rows. Raises DeviceError where one cell
        alone does not fit, or the device fails.
        """
        out: list[Tensor | None] = [None] * len(prepared)
        for batch in plan(prepared, self.batch_size, padded=self.encoder.padding == "masked"):
            start = 0
            while start < len(batch):
                part = batch[start : start + self.batch_size]
                if all(prepared[i] is None for i in part):  # what is left of a batch after memory ran out
                    start += len(part)
                    continue
                try:
                    rows = self._forward([prepared[i] for i in part], keep)
                except (RuntimeError, MemoryError) as error:
                    self._halve(error, len(part), [ids[i] for i in part if ids])
                    continue
                for i, row in zip(part, rows, strict=True):
                    if prepared[i] is not None:
                        out[i] = row
                start += len(part)
                done(len(part))
        return out

    def _forward(self, cells: list[Tensor | None], keep: Keep) -> list[Tensor]:
        given = next(c for c in cells if c is not None)
        x, lengths = pad([torch.zeros_like(given) if c is None else c for c in cells],
                         channels_last=self.encoder.channels_last)
        with torch.inference_mode(), self._autocast():
            tokens = self.encoder(x.to(self.device), lengths.to(self.device))
            if keep == "pooled":
                tokens = Tokens.pooled(self.encoder.pool(tokens))
            elif keep == "space":
                tokens = Tokens.pooled(self.encoder.to_space(tokens))
        return [row.to("cpu", DTYPES[self.precision]) for row in tokens.rows()]

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=DTYPES[self.precision])

    def _halve(self, error: Exception, batch: int, rows: Sequence[str]) -> None:
        where = self.name + (f", rows from {rows[0]!r} on" if rows[1:] else f", row {rows[0]!r}" if rows else "")
        if not devices.ran_out(error):
            if (told := devices.device_error(error, where)) is None:
                raise error
            raise told from error
        if batch == 1:
            way = "extract --precision bf16, or a smaller encoder"
            raise DeviceError(f"{where}: one cell does not fit into the memory of {self.device}",
                              f"free some, use {way}" if self.device.type == "cpu" else f"use --device cpu, {way}",
                              code="E_DEVICE_MEMORY") from error
        self.batch_size = max(1, batch // 2)
        self.halved = True
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def plan(prepared: Sequence[Tensor | None], batch_size: int, *, padded: bool) -> Iterator[list[int]]:
    """The batches of a block, as positions in it; a function of the block alone.

    Cells of one length keep their order, and an unusable cell (None) keeps its place, so that it changes nothing for
    the others. Ragged cells go by length; without padding (`padded` False) only equal lengths meet.
    """
    usable = [i for i, cell in enumerate(prepared) if cell is not None]
    lengths = {i: len(prepared[i]) for i in usable}  # type: ignore[arg-type]
    if len(set(lengths.values())) <= 1:
        groups = [list(range(len(prepared)))] if usable else []
    elif padded:
        groups = [sorted(usable, key=lambda i: (lengths[i], i))]
    else:
        groups = [[i for i in usable if lengths[i] == n] for n in sorted(set(lengths.values()))]
    for group in groups:
        for start in range(0, len(group), batch_size):
            batch = group[start : start + batch_size]
            if any(prepared[i] is not None for i in batch):
                yield batch
