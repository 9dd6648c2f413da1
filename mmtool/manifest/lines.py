"""The lines of a text file, each of bounded length, in the encoding that the file's first bytes tell."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from mmtool.errors import DataError

MOST_CHARS = 64 * 2**20
"""Of a line, and of a cell of CSV: a row is read whole, and a file that never ends must not fill the memory."""

BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
"""A mark of UTF-32 begins as one of UTF-16 does."""


def marked(head: bytes) -> str | None:
    """The encoding that a byte-order mark states; None where there is none."""
    return next((name for mark, name in BOMS if head.startswith(mark)), None)


def lines(path: Path, encoding: str, name: str = "") -> Iterator[str]:
    """Every line with its end. A byte that is no UTF-8 becomes half of a UTF-16 pair, so that it spoils its cell alone.

    Raises DataError for a line of more than `MOST_CHARS` characters, and for broken UTF-16 or UTF-32.
    """
    errors = "surrogateescape" if encoding.startswith("utf-8") else "replace" if encoding == "cp1252" else "strict"
    with path.open(encoding=encoding, errors=errors, newline="") as f:
        number = 0
        try:
            while line := f.readline(MOST_CHARS + 1):
                number += 1
                if len(line) > MOST_CHARS:
                    raise DataError(f"{name or path}, line {number}: longer than {MOST_CHARS} characters",
                                    "put large cells into files, and their paths into the table", code="E_MANIFEST_LIMIT")
                yield line
        except UnicodeDecodeError as error:
            raise DataError(f"{name or path} is not {encoding}, after line {number}: {error.reason}", "save it as UTF-8",
                            code="E_MANIFEST") from error
