"""What people see, on stderr, and what scripts read, on stdout. Foreign text is always printed literally."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from mmtool.errors import OutputClosed, storage_error

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

# Control characters, bidirectional overrides and lone surrogates would move the cursor, hide text or fail to encode.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_C1 = re.compile("[\x7f-\x9f]")

quiet = False
debug = False
drawn = False
"""Is there a live line on stderr, which what is printed must not run into?"""
T = TypeVar("T")


def set_quiet(value: bool) -> None:
    """Silence `say`, `table` and progress; warnings and errors stay."""
    global quiet
    quiet = value


def set_debug(value: bool) -> bool:
    """Show tracebacks of the user's mistakes, too."""
    global debug
    debug = value
    return value


def literal(text: object) -> str:
    """The text with every character that a terminal would act on written as its escape."""
    return _UNSAFE.sub(lambda m: m[0].encode("unicode_escape").decode("ascii"), str(text))


@cache
def stderr() -> Console:
    """The rich console on stderr: no markup, no highlighting, no emoji codes."""
    from rich.console import Console

    return Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)


def to_nowhere(descriptor: int) -> None:
    """Let what is still printed there vanish, also when Python ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _to_stderr(text: str) -> None:
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    try:
        if drawn:
            stderr().print(text)  # above the live line
            return
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:  # a log on a full disk, a pipe that nobody reads: the work must not end with it
        to_nowhere(2)


def say(message: str) -> None:
    """A line for people; not shown with --quiet."""
    if not quiet:
        _to_stderr(literal(message))


def warn(message: str) -> None:
    """A line that people must see."""
    _to_stderr("warning: " + literal(message))


def error(message: str, hint: str = "", *, code: str) -> None:
    """What is wrong and where, then what to do; with --debug also where in the source it was found."""
    if debug and sys.exception() is not None:
        _to_stderr("\n".join(literal(line) for line in traceback.format_exc().splitlines()))
    _to_stderr(f"error[{code}]: {literal(message)}")
    if hint:
        _to_stderr("  " + literal(hint))


def out(line: str) -> None:
    """A result: one line on stdout; literal on a terminal, exact for a script."""
    if sys.stdout.isatty():
        line = literal(line)
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        to_nowhere(sys.stdout.fileno())  # or the exit would complain once more
        raise OutputClosed("the reader of the output went away") from None
    except OSError as error:
        to_nowhere(sys.stdout.fileno())
        raise storage_error(error, "stdout") from error


def to_json(value: Any) -> str:
    """One line of JSON that is safe to print: no raw control character, no lone surrogate."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value)
    return _C1.sub(lambda m: f"\\u{ord(m[0]):04x}", text)


def out_json(value: Any) -> None:
    """A result for scripts: one JSON value on a line of stdout."""
    text = to_json(value)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value)
    out(text)


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], *, to_stdout: bool = False) -> None:
    """A small aligned table, on stderr unless it is the result itself."""
    if quiet and not to_stdout:
        return
    cells = [[literal(h) for h in headers], *[[literal(c) for c in row] for row in rows]]
    from rich.cells import cell_len

    widths = [max(cell_len(row[i]) for row in cells) for i in range(len(headers))]
    for row in cells:
        line = "  ".join(c + " " * (w - cell_len(c)) for c, w in zip(row, widths, strict=True)).rstrip()
        out(line) if to_stdout else _to_stderr(line)


@contextmanager
def _drawing(*columns: ProgressColumn) -> Iterator[Progress]:
    """A live line while the block runs; what is printed meanwhile appears above it."""
    global drawn
    from rich.progress import Progress

    with Progress(*columns, console=stderr(), transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        drawn = True
        try:
            yield bar
        finally:
            drawn = False


def _undrawn() -> None:
    """In a forked process: the line is its parent's, as is whoever holds its lock."""
    global drawn
    drawn = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_undrawn)


@contextmanager
def progress(what: str, total: int, done: int = 0) -> Iterator[Callable[[float], None]]:
    """A live line with rate and time left, where stderr is a terminal; yields `advance(rows)`."""
    if quiet or not sys.stderr.isatty():
        yield lambda rows: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    with _drawing(*columns) as bar:
        task = bar.add_task(literal(what), total=total, completed=done, rate="")
        started, count = time.monotonic(), 0.0

        def advance(rows: float) -> None:
            nonlocal count
            count += rows
            bar.update(task, advance=rows, rate=f"{count / max(time.monotonic() - started, 1e-9):.0f} rows/s")

        yield advance


class _Advance:
    """What `live_line` yields; `plain`: nothing is drawn."""

    def __init__(self, draw: Callable[[int, str], None] | None) -> None:
        self.plain, self.draw = draw is None, draw

    def __call__(self, steps: int, told: str) -> None:
        if self.draw is not None:
            self.draw(steps, told)


@contextmanager
def live_line(what: str, total: int) -> Iterator[_Advance]:
    """A live line with a text of its own and the time left, where stderr is a terminal; yields `advance(steps, text)`."""
    if quiet or not sys.stderr.isatty():
        yield _Advance(None)
        return
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
               TextColumn("{task.fields[told]}", markup=False), TimeRemainingColumn())
    with _drawing(*columns) as bar:
        task = bar.add_task(literal(what), total=total, told="")
        yield _Advance(lambda steps, told: bar.update(task, advance=steps, told=literal(told)))


def counted(what: str, total: int, items: Iterable[T]) -> Iterator[T]:
    """The items, with a live line on stderr unless they are themselves printed on a terminal."""
    if sys.stdout.isatty():
        yield from items
        return
    with progress(what, total) as advance:
        for item in items:
            advance(1)
            yield item
