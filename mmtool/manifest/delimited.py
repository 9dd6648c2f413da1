"""CSV and TSV, streamed with the standard library's reader, which keeps every cell as it is written."""

from __future__ import annotations

import codecs
import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mmtool.errors import DataError
from mmtool.manifest.lines import MOST_CHARS, lines, marked
from mmtool.manifest.rows import Row

csv.field_size_limit(MOST_CHARS)


def encoding_of(path: Path) -> tuple[str, str]:
    """The file's text encoding, and a note where it had to be guessed or some of it is damaged (else "").

    Bytes that are no UTF-8: where most of what is not ASCII is UTF-8 all the same, the others are damage, and spoil the
    cells that they are in; else the file is taken as Windows-1252, which is what old spreadsheets write.
    """
    with path.open("rb") as f:
        head = f.read(4096)
        if name := marked(head):
            return name, ""
        if head[1::2].count(0) > len(head) // 4:
            return "utf-16-le", f"{path}: no byte-order mark; read as UTF-16 (little-endian)"
        f.seek(0)
        decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        position, first, wrong, right = 0, 0, 0, 0
        while chunk := f.read(1 << 20):
            text = decoder.decode(chunk)
            if not text.isascii():
                bad = sum("\udc80" <= ch <= "\udcff" for ch in text)
                if bad and not wrong:
                    first = position + len(text[: next(i for i, ch in enumerate(text) if "\udc80" <= ch <= "\udcff")]
                                           .encode())
                wrong, right = wrong + bad, right + sum(ch > "\x7f" for ch in text) - bad
            position += len(text.encode("utf-8", "surrogateescape"))
        wrong += len(decoder.decode(b"", final=True))
    if not wrong:
        return "utf-8", ""
    if right > wrong:
        return "utf-8", f"{path}: {wrong} bytes are not UTF-8, the first at byte {first}; their cells are no text"
    return "cp1252", f"{path}: not UTF-8 (near byte {first}); read as Windows-1252"


def delimiter_of(header: str, path: Path) -> str:
    """Tab for .tsv; else the one of comma, semicolon and tab that the header line has most of."""
    if path.suffix.lower() in (".tsv", ".tab"):
        return "\t"
    return max(",;\t", key=header.count)


def columns_and_rows(path: Path, encoding: str) -> tuple[list[str], Iterator[tuple[int, Row]]]:
    """The header, and an iterator of (line number, row). Raises MMToolError for a ragged row or a bad header."""
    records = _records(path, encoding, delimiter_of(next(lines(path, encoding), ""), path))
    _, columns = next(records, (0, []))
    columns = [c.strip() for c in columns]
    if not any(columns):
        raise DataError(f"{path} is empty", "the first line must name the columns", code="E_MANIFEST")
    if (unnamed := [str(at) for at, c in enumerate(columns, 1) if not c])[1:]:
        raise DataError(f"{path}: the columns {', '.join(unnamed[:5])} have no name",
                        "name them, or take the delimiters at the ends of the lines away", code="E_MANIFEST")
    if duplicates := sorted(c for c, times in Counter(columns).items() if times > 1):
        raise DataError(f"{path}: two columns are called {duplicates[0]!r}", "rename one", code="E_MANIFEST")
    return columns, _rows(path, columns, records)


def _records(path: Path, encoding: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each record's first line, counted from 1, and its fields."""
    reader = csv.reader(lines(path, encoding), delimiter=delimiter, strict=True)
    before = 0
    try:
        for fields in reader:
            if fields:  # a blank line is no row
                yield before + 1, fields
            before = reader.line_num
    except csv.Error as error:
        if "field larger" in str(error):
            raise DataError(f"{path}, line {before + 1}: a cell has more than {MOST_CHARS} characters",
                            "close its quotes, or put large cells into files, and their paths into the table",
                            code="E_MANIFEST_LIMIT") from error
        raise DataError(f"{path}, line {before + 1}: {error}", "check the quotes from this line on",
                        code="E_MANIFEST") from error


def _rows(path: Path, columns: list[str], records: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, Row]]:
    for line, fields in records:
        if len(fields) != len(columns):
            raise DataError(f"{path}, line {line}: {len(fields)} fields, but the header names {len(columns)} columns",
                            "a field that holds the delimiter or a line break must be in quotes", code="E_MANIFEST")
        yield line, {c: (v if v.strip() else None) for c, v in zip(columns, fields, strict=True)}
