"""rows.parquet: written shard by shard while a run goes on, then joined, so that memory does not grow with the rows."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmtool import files
from mmtool.errors import split_status, storage_error
from mmtool.features.format import status_column
from mmtool.features.header import AGAIN
from mmtool.features.part import Part
from mmtool.manifest.rows import text_of
from mmtool.strictjson import Unsound
from mmtool.tensorfile import damaged, open_plain

OPTIONS = {"compression": "zstd", "store_schema": False, "write_statistics": False}
USABLE = ("ok", "missing")
"""Statuses that are no error."""
BATCH_ROWS = 1 << 16


MOST_TEXT, MOST_GROWTH = 4 << 30, 50
"""Bytes of text, and those for each byte of the file, of which the larger is the most that is read."""


@dataclass(frozen=True)
class Count:
    """What a part amounts to: rows, rows with a bad cell, each input's ok, missing and bad cells, and its notes."""

    rows: int
    bad_rows: int
    counts: dict[str, dict[str, int]]
    notes: dict[str, dict[str, Any]]


def write_part(path: Path, part: Part, columns: Sequence[str]) -> None:
    """One shard's rows; the file's appearance says that the whole shard is done."""
    data = {"id": list[str | None](part.ids)}
    data |= {c: [row.get(c) for row in part.rows] for c in columns if c != "id"}
    data |= {status_column(name): [text_of(s) for s in part.statuses[name]] for name in sorted(part.statuses)}
    table = pa.table({k: pa.array(v, pa.string()) for k, v in data.items()})
    table = table.replace_schema_metadata({"mmtool": json.dumps(part.notes)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    files.write_bytes(path, buffer.getvalue())


def join(parts: Sequence[Path], target: Path) -> None:
    """All parts as one file, a row group each."""
    with files.writing(target) as f, pq.ParquetWriter(f, pq.read_schema(parts[0]).remove_metadata(), **OPTIONS) as writer:
        for part in parts:
            with pq.ParquetFile(part) as opened:
                writer.write_table(opened.read().replace_schema_metadata(None))


def write_errors(parts: Sequence[Path], target: Path, inputs: dict[str, tuple[str, ...]]) -> None:
    """errors.jsonl: one line a bad cell, in the order of the rows."""
    with files.writing(target) as f:
        for part in parts:
            with pq.ParquetFile(part) as opened:
                bad = pc.indices_nonzero(_bad(_statuses(opened, list(inputs))))
                found = opened.read().take(bad).to_pylist() if len(bad) else []
            for row in found:
                for name in sorted(inputs):
                    status = row[status_column(name)]
                    if status not in USABLE:
                        column, (code, reason) = "+".join(inputs[name]), split_status(status)
                        cell = row[inputs[name][0]] if len(inputs[name]) == 1 else None
                        f.write((json.dumps({"id": row["id"], "input": name, "column": column,
                                            "path": cell if cell is None or len(cell) < 1000 else cell[:1000] + "…",
                                            "code": code, "reason": reason}, ensure_ascii=False) + "\n")
                                .encode("utf-8", "backslashreplace"))


def _statuses(part: Any, inputs: Sequence[str]) -> dict[str, Any]:
    """The statuses of each input, of an opened Parquet file."""
    table = part.read(columns=[status_column(name) for name in inputs])
    return {name: table[status_column(name)] for name in inputs}


def _bad(statuses: dict[str, Any]) -> Any:
    """Where any of some inputs, one at least, has a bad cell."""
    return reduce(pc.or_, [pc.invert(pc.is_in(column, pa.array(USABLE))) for column in statuses.values()])


def counted(statuses: Any) -> dict[str, int]:
    """How many of a column of statuses are ok, missing and bad."""
    times = {one["values"].as_py(): one["counts"].as_py() for one in pc.value_counts(statuses)}
    ok, missing = (times.get(status, 0) for status in USABLE)
    return {"ok": ok, "missing": missing, "bad": len(statuses) - ok - missing}


def count(part: Path, inputs: Sequence[str]) -> Count:
    """What a part amounts to."""
    with pq.ParquetFile(part) as opened:
        statuses = _statuses(opened, inputs)
        notes = json.loads(opened.schema_arrow.metadata[b"mmtool"])
        return Count(opened.metadata.num_rows, pc.sum(_bad(statuses)).as_py() or 0,
                     {name: counted(column) for name, column in statuses.items()}, notes)


def notes(part: Path) -> dict[str, dict[str, Any]]:
    """What a part tells beside its rows."""
    found: dict[str, dict[str, Any]] = json.loads(pq.read_metadata(part).metadata[b"mmtool"])
    return found


def read_rows(path: Path, header: dict[str, Any], inputs: Sequence[str]) -> Any:
    """rows.parquet as a table of strings, with the rows, columns and statuses that the header states.

    A few bytes can stand for terabytes of equal texts, so they are read as a dictionary and counted first.
    Raises ArtefactError, StorageError.
    """
    with _read(path, header, inputs) as (opened, size):
        found = opened.read()
        if len(found) != header["rows"]:
            raise Unsound(f"it holds {len(found)} rows instead of {header['rows']}")
        if sum(map(_bytes_of, found.columns)) > max(MOST_TEXT, MOST_GROWTH * size):
            raise Unsound("its texts are too large for a file of its size")
        found = pa.table([column.cast(pa.string()) for column in found.columns], found.column_names)
        found.validate(full=True)
        return found


def count_cells(path: Path, header: dict[str, Any], inputs: Sequence[str]) -> dict[str, dict[str, int]]:
    """How many cells of each input, or upstream input, are ok, missing and bad; some rows at a time. Raises as `read_rows`."""
    names = _upstream(header, inputs)
    totals = {name: Counter(counted(pa.array([], pa.string()))) for name in names}
    with _read(path, header, inputs) as (opened, _):
        for batch in opened.iter_batches(BATCH_ROWS, columns=[status_column(name) for name in names]):
            for name in names:
                column = batch.column(status_column(name))
                column.validate(full=True)
                totals[name].update(counted(column))
        if any(total.total() != header["rows"] for total in totals.values()):
            raise Unsound(f"it does not hold {header['rows']} rows")
    return {name: dict(total) for name, total in totals.items()}


@contextmanager
def _read(path: Path, header: dict[str, Any], inputs: Sequence[str]) -> Iterator[tuple[pq.ParquetFile, int]]:
    """The file, texts as dictionaries, with the rows and columns that the header states, and its bytes.

    Raises ArtefactError and StorageError, also for what the block raises.
    """
    try:
        with open_plain(path) as f:
            size = os.fstat(f.fileno()).st_size
            known = pq.ParquetFile(f, thrift_string_size_limit=1 << 26, thrift_container_size_limit=1 << 22)
            schema = known.schema_arrow
            if known.metadata.num_rows != header["rows"]:
                raise Unsound(f"it has {known.metadata.num_rows} rows instead of {header['rows']}")
            if len(set(schema.names)) < len(schema.names) or any(t != pa.string() for t in schema.types):
                raise Unsound("its columns are not texts of different names")
            needed = {"id", *header["columns"], *(status_column(n) for n in _upstream(header, inputs))}
            if lacking := sorted(needed - set(schema.names)):
                raise Unsound(f"it has no column {lacking[0]!r}")
            f.seek(0)
            yield pq.ParquetFile(f, read_dictionary=schema.names), size
    except Unsound as error:
        raise damaged(path, str(error), AGAIN) from None
    except (pa.ArrowException, ValueError, TypeError, KeyError, MemoryError, OverflowError) as error:
        raise damaged(path, str(error).splitlines()[0][:200] if str(error) else type(error).__name__, AGAIN) from error
    except OSError as error:  # pyarrow raises it for a damaged page, too
        if error.errno is None:
            raise damaged(path, str(error)[:200], AGAIN) from error
        raise storage_error(error) from error


def _upstream(header: dict[str, Any], inputs: Sequence[str]) -> Sequence[str]:
    return sorted(header["upstream"]["inputs"]) if header.get("upstream") else inputs


def _bytes_of(column: Any) -> int:
    """Bytes of a column of texts once its dictionary is spelled out."""
    total = 0
    for chunk in column.chunks:
        chunk.validate(full=True)
        total += pc.sum(pc.binary_length(chunk.dictionary).take(chunk.indices)).as_py() or 0
    return total
