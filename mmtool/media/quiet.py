"""Keeps the libraries below us from talking to the user about a cell: its reason goes to `errors.jsonl` instead."""

from __future__ import annotations

import logging
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Without a handler, logging would print Pillow's records on stderr.
logging.getLogger("PIL").addHandler(logging.NullHandler())

_IGNORE_PILLOW = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_lock = threading.Lock()
_depth = 0
_saved_stderr = -1


def ignore_pillow_warnings() -> None:
    """Ignore warnings raised inside Pillow (odd EXIF, odd TIFF tags), in this process.

    `warnings.catch_warnings` would be local in time but not in threads: two that overlap restore each other's
    filters. A filter that names Pillow's modules alone can stay.
    """
    # Not added twice: each change of the filters makes every module repeat its once-only warnings.
    if tuple(warnings.filters[:1]) != (_IGNORE_PILLOW,):
        warnings.filterwarnings("ignore", module=r"PIL\.")


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Send file descriptor 2 to nowhere: libmpg123 prints there from C, and no option of libsndfile stops it.

    Threads may overlap; the last one out brings the descriptor back. What others print meanwhile is lost, so
    keep it short.
    """
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _depth, _saved_stderr
    with _lock:
        if _depth == 0:
            try:
                _saved_stderr = os.dup(2)
            except OSError:  # closed: nothing can be printed
                _saved_stderr = -1
            else:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, 2)
                os.close(nowhere)
        _depth += 1


def _leave() -> None:
    global _depth
    with _lock:
        _depth -= 1
        if _depth == 0 and _saved_stderr >= 0:
            os.dup2(_saved_stderr, 2)
            os.close(_saved_stderr)
