"""Running an encoder over blocks of prepared cells, on a chosen device and in a chosen precision.

What is batched with what is a function of the block alone, so that equal blocks give equal bits, whichever lane runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmtool import console, devices
from mmtool.api import Encoder, Tokens
from mmtool.encoding import pad
from mmtool.errors import DeviceError, UsageError
from mmtool.inference import paths
from mmtool.inference.lanes import Lanes
from mmtool.inference.paths import DTYPES, Keep

SMALL = 1024
"""Values of a cell; with fewer there is nothing that another path could save."""
COLOURS = 3
"""Length of a picture's first axis."""


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


def choose_batch_size(text: str, device: torch.device, modality: str = "") -> int:
    """A number, or `auto`: 128, but on a CPU 8 cells of media, whose values its caches then hold, and 32 others.

    Raises UsageError.
    """
    if text == "auto":
        return 128 if device.type != "cpu" else 8 if modality in ("image", "audio") else 32
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

    `name` is what errors call it. As made, it runs the encoder's plain path in the calling thread; `gear` is for many rows.
    """

    encoder: Encoder
    device: torch.device
    precision: str
    batch_size: int
    name: str = ""
    halved: bool = field(default=False)
    lanes: Lanes | None = None
    tier: str = "plain"
    path: paths.Path = "plain"
    ran: bool = False
    """Did a batch run at all, or did the cache have everything?"""
    known: paths.Path | None = None
    """The path that the run which is resumed has found: on other cells another one might seem right, and give other bits."""

    def __post_init__(self) -> None:
        self.name = self.name or f"encoder {type(self.encoder).__name__}"
        be_deterministic(self.device)
        with devices.watched(self.name, f"its weights do not fit into the memory of {self.device}: use --device cpu, or a "
                                        "smaller encoder"):
            self.encoder = self.encoder.to(self.device).eval()
        self._plain: dict[Keep, paths.Run] = {}
        self._fast: tuple[torch.Size, Keep, paths.Run] | None = None
        self._chosen = True

    @property
    def threads(self) -> int:
        """Threads of torch that a batch has."""
        return torch.get_num_threads() if self.lanes is None else self.lanes.threads

    @property
    def how(self) -> str:
        """What last bits depend on besides the cells of a block; it changes where memory runs out."""
        return self._how(self.batch_size)

    def _how(self, size: int) -> str:
        return f"{size} {self.threads} {self.tier}"

    @property
    def found(self) -> paths.Path | None:
        """The path of this run and of those that it resumes; None while there is none."""
        return self.path if self._chosen and self.ran else self.known

    def gear(self, lanes: Lanes | None, tier: str = "plain") -> None:
        """From here on batches go to `lanes`, by the fastest path of a `tier` that the first of them shows to be right.

        None: back to the plain path in the calling thread.
        """
        self.lanes, self.tier, self.path, self._fast = lanes, tier, "plain", None
        self._chosen = tier == "plain"

    def start(self, prepared: Sequence[Tensor | None], *, keep: Keep, ids: Sequence[str] = ()) -> Pending:
        """Begin with prepared cells (None: no usable cell there); `ids` are what errors call the cells' rows."""
        self.ran = self.ran or any(cell is not None for cell in prepared)
        size = self.batch_size  # a lane may halve it at any time
        batches = list(plan(prepared, size, padded=self.encoder.padding == "masked"))
        if not self._chosen and batches:
            self._choose([cell for i in batches[0] if (cell := prepared[i]) is not None], keep)
        return Pending(self, prepared, batches, keep, ids, self._how(size))

    def encode(self, prepared: Sequence[Tensor | None], *, keep: Keep, ids: Sequence[str] = (),
               done: Callable[[int], None] = lambda cells: None) -> list[Tensor | None]:
        """Prepared cells -> tokens `[T, D]` of each on the CPU, T = 1 unless `keep` is tokens; None for None.

        `done` is told the cells of each batch. Raises DeviceError where one cell alone does not fit, or the device fails.
        """
        return self.start(prepared, keep=keep, ids=ids).result(done)

    def _choose(self, cells: list[Tensor], keep: Keep) -> None:
        """Find the path for cells of one shape, on a whole batch of the first ones."""
        from mmtool.inference import choice

        self._chosen = True
        if self.lanes is None or self.known == "plain" or not self._of_one_shape(cells) or cells[0].numel() < SMALL:
            return
        lanes = self.lanes

        def find() -> tuple[torch.Size, choice.Chosen]:
            x, lengths = self._batch(cells, self.batch_size)  # in the lane, whose stream then waits for the copy
            return x.shape, choice.fastest(self.encoder, keep, self.device, self.precision, x, lengths, most=self.tier,
                                           lanes=lanes.count, threads=lanes.threads, known=self.known,
                                           tell=lambda told: console.say(f"{self.name}: {told}"))
        try:
            shape, found = lanes.submit(find).result()
        except (RuntimeError, MemoryError) as error:
            if not devices.ran_out(error):
                raise
            self._fall_back()  # the batches will tell it as they meet it
            return
        self.path = found.path
        if found.path != "plain":
            self._fast = shape, keep, found.run
        for why in found.refused:
            console.warn(f"{self.name}: {why}; going on with the {found.path} path")

    def _of_one_shape(self, cells: list[Tensor]) -> bool:
        """Has every cell that this encoder prepares the shape of these? Of pictures only the first axis, colours, could differ.

        Where lengths differ, the path would depend on which length comes first: a resumed run would give other bits.
        """
        return self.encoder.modality == "image" and all(len(cell) == COLOURS and cell.shape == cells[0].shape for cell in cells)

    def _fall_back(self) -> None:
        """Memory ran out: what follows takes the plain path, and is told apart from what a faster one would have given."""
        self.halved, self._fast, self.tier, self.path = True, None, "plain", "plain"

    def run(self, cells: list[Tensor | None], keep: Keep, rows: Sequence[str]) -> list[Tensor]:
        """One batch, in this thread; in halves where memory runs out."""
        out: list[Tensor] = []
        start, size = 0, min(len(cells), self.batch_size)
        while start < len(cells):
            part = cells[start : start + size]
            if all(cell is None for cell in part):
                out += [torch.zeros(0)] * len(part)
            else:
                try:
                    out += self._forward(part, keep)
                except (RuntimeError, MemoryError) as error:
                    size = self._halve(error, len(part), rows[start : start + len(part)])
                    continue
            start += len(part)
        return out

    def _forward(self, cells: list[Tensor | None], keep: Keep) -> list[Tensor]:
        given = next(c for c in cells if c is not None)
        whole = [torch.zeros_like(given) if c is None else c for c in cells]
        run, fast = self._plain.setdefault(keep, paths.plain(self.encoder, keep, self.device, self.precision)), self._fast
        if fast is not None and keep == fast[1] and given.shape == fast[0][1:] and len(cells) <= fast[0][0] \
                and all(c.shape == given.shape for c in whole):
            x, lengths = self._batch(whole, fast[0][0])
            run = fast[2]
        else:
            x, lengths = self._batch(whole, len(whole))
        values, mask = run(x, lengths)
        values, mask = values[: len(cells)].to("cpu", DTYPES[self.precision]), mask[: len(cells)].to("cpu")
        return Tokens(values, mask).rows()

    def _batch(self, cells: list[Tensor], size: int) -> tuple[Tensor, Tensor]:
        """`x [size, L, ...]` and `lengths` on the device; a batch that is not full repeats its last cell."""
        x, lengths = pad([*cells, *[cells[-1]] * (size - len(cells))], channels_last=self.encoder.channels_last)
        if self.device.type == "cuda":
            return x.pin_memory().to(self.device, non_blocking=True), lengths.pin_memory().to(self.device, non_blocking=True)
        return x.to(self.device), lengths.to(self.device)

    def _halve(self, error: Exception, batch: int, rows: Sequence[str]) -> int:
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
        self.batch_size = min(self.batch_size, max(1, batch // 2))
        self._fall_back()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return max(1, batch // 2)


class Pending:
    """A block whose batches are on their way; without lanes they run when they are asked for. `how`: `Engine.how` at first."""

    def __init__(self, engine: Engine, prepared: Sequence[Tensor | None], batches: list[list[int]], keep: Keep,
                 ids: Sequence[str], how: str) -> None:
        self.engine, self.prepared, self.batches, self.keep, self.ids, self.how = engine, prepared, batches, keep, ids, how
        self.futures: list[Future[list[Tensor]]] = []
        if engine.lanes is not None:
            self.futures = [engine.lanes.submit(lambda batch=batch: self._run(batch)) for batch in batches]  # type: ignore[misc]

    def _run(self, batch: list[int]) -> list[Tensor]:
        return self.engine.run([self.prepared[i] for i in batch], self.keep, [self.ids[i] for i in batch if self.ids])

    def result(self, done: Callable[[int], None] = lambda cells: None) -> list[Tensor | None]:
        """Tokens of each cell, as `Engine.encode` gives them."""
        out: list[Tensor | None] = [None] * len(self.prepared)
        for number, batch in enumerate(self.batches):
            rows = self.futures[number].result() if self.futures else self._run(batch)
            for i, row in zip(batch, rows, strict=True):
                if self.prepared[i] is not None:
                    out[i] = row
            done(len(batch))
        return out


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
