"""How a training goes, for people: one live line on a terminal, lines now and then elsewhere, and TensorBoard."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Any

from mmtool import console
from mmtool.errors import PluginError

EVERY_SECONDS = 15.0
"""Between two lines where stderr is no terminal."""


class Watcher:
    """Use as a context manager. `title` names the part, `steps` counts those of all epochs."""

    def __init__(self, title: str, epochs: int, steps: int, board: Path | None) -> None:
        self.title, self.epochs, self.steps, self.done = title, epochs, steps, 0
        self.writer = None if board is None else _writer(board / title.replace(" ", "-"))
        self.said = time.monotonic()
        self.fields: dict[str, str] = {"loss": "", "held": ""}
        self.bar: Any = None

    def __enter__(self) -> Watcher:
        self._live = console.live_line(self.title, self.steps)
        self.bar = self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.__exit__(kind, error, trace)
        if self.writer is not None:
            self.writer.close()

    def skip(self, steps: int) -> None:
        """So many were done by an earlier run."""
        self.done += steps
        self.bar(steps, "")

    def step(self, loss: float) -> None:
        """After each step of the optimizer."""
        self.done += 1
        self.fields["loss"] = f"loss {loss:.4f}"
        self.bar(1, " ".join(f for f in self.fields.values() if f))
        if self.writer is not None:
            self.writer.add_scalar("loss/batch", loss, self.done)

    def epoch(self, number: int, fit: float, held: float | None, metric: tuple[str, float] | None) -> None:
        """After each epoch."""
        told = [f"epoch {number} of {self.epochs}: loss {fit:.4f}"]
        if held is not None:
            told.append(f"held-out {held:.4f}")
        if metric is not None:
            told.append(f"{metric[0]} {metric[1]:.3f}")
        self.fields["held"] = ", ".join(told[1:])
        if self.bar.plain and time.monotonic() - self.said > EVERY_SECONDS:
            self.said = time.monotonic()
            console.say(f"{self.title}, {', '.join(told)}")
        if self.writer is not None:
            self.writer.add_scalar("loss/epoch", fit, number)
            if held is not None:
                self.writer.add_scalar("loss/held-out", held, number)
            if metric is not None:
                self.writer.add_scalar(f"held-out/{metric[0]}", metric[1], number)


def check_board() -> None:
    """Raises MMToolError where TensorBoard is not installed."""
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise PluginError("--tensorboard needs the package tensorboard", "pip install 'mmtool[tensorboard]'",
                          code="E_PACKAGE") from error


def _writer(folder: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))
