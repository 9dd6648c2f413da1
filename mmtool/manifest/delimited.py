"""CSV and TSV, streamed with the standard library's reader, which keeps every cell as it is written."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator
from pathlib import Path

from mmtool.errors import DataError
from mmtool.manifest.rows import Row

_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
csv.field_size_limit(2**31 - 1)


def encoding_of(path: Path) -> tuple[str, str]:
    """The file's text encoding, and a note where it had to be guessed (else "")."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    position = 0
    with path.open("rb") as f:
        head = f.read(4096)
        for bom, name in _BOMS:
            if head.startswith(bom):
                return name, ""
        if head[1::2].count(0) > len(head) // 4:
            return "utf-16-le", f"{path}: no byte-order mark; read as UTF-16 (little-endian)"
        f.seek(0)
        while chunk := f.read(1 << 20):
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                at = position + max(error.start, 0)
                return "cp1252", f"{path}: not UTF-8 (near byte {at}); read as Windows-1252"
            position += len(chunk)
    return "utf-8", ""


def delimiter_of(header: str, path: Path) -> str:
    """Tab for .tsv; else the one of comma, semicolon and tab that the header line has most of."""
    if path.suffix.lower() in (".tsv", ".tab"):
        return "\t"
    return max(",;\t", key=header.count)


def columns_and_rows(path: Path, encoding: str) -> tuple[list[str], Iterator[tuple[int, Row]]]:
    """The header, and an iterator of (line number, row). Raises MMToolError for a ragged row or a bad header."""
    with path.open(encoding=encoding, errors="replace" if encoding == "cp1252" else "strict", newline="") as f:
        header = f.readline()
    delimiter = delimiter_of(header, path)
    lines = _lines(path, encoding, delimiter)
    _, columns = next(lines, (0, []))
    columns = [c.strip() for c in columns]
    if not columns:
        raise DataError(f"{path} is empty", "the first line must name the columns", code="E_MANIFEST")
    if duplicates := sorted({c for c in columns if columns.count(c) > 1}):
        raise DataError(f"{path}: two columns are called {duplicates[0]!r}", "rename one", code="E_MANIFEST")
    return columns, _rows(path, columns, lines)


def _lines(path: Path, encoding: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    with path.open(encoding=encoding, errors="replace" if encoding == "cp1252" else "strict", newline="") as f:
        reader = csv.reader(f, delimiter=delimiter, strict=True)
        before = 0
        try:
            for fields in reader:
                if fields:  # a blank line is no row
                    yield before + 1, fields
                before = reader.line_num
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}", "check the quotes around this line",
                            code="E_MANIFEST") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not {encoding}: {error.reason}", "save it as UTF-8", code="E_MANIFEST") from error


def _rows(path: Path, columns: list[str], lines: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, Row]]:
    for line, fields in lines:
        if len(fields) != len(columns):
            raise DataError(f"{path}, line {line}: {len(fields)} fields, but the header names {len(columns)} columns",
                            "a field that holds the delimiter or a line break must be in quotes", code="E_MANIFEST")
        yield line, {c: (v if v.strip() else None) for c, v in zip(columns, fields, strict=True)}
