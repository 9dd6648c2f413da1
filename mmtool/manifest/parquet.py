"""Parquet tables, a batch of rows at a time, their values as Python has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmtool.errors import DataError
from mmtool.manifest.rows import Row, to_cell

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 256


def rows(path: Path) -> Iterator[Row]:
    """Each row; a Blob is called after the file and its number. Raises DataError for what is no whole Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as f, pq.ParquetFile(f) as file:
            names = file.schema_arrow.names
            if twice := next((n for n, times in Counter(names).items() if times > 1), None):
                raise DataError(f"{path}: two columns are called {twice!r}", "rename one", code="E_MANIFEST")
            number = 0
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                for values in zip(*(_values(column) for column in batch.columns), strict=True):
                    yield {k: to_cell(v, f"{path.name}#{number}") for k, v in zip(names, values, strict=True)}
                    number += 1
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})", "write it again", code="E_MANIFEST") from error


def _values(column: pa.Array) -> list[Any]:
    """What Python has no object for becomes text: nanoseconds, years after 9999, unknown zones, bytes that are no UTF-8."""
    import pyarrow as pa

    try:
        return column.to_pylist()  # type: ignore[no-any-return]
    except (ValueError, OverflowError, KeyError, pa.ArrowException):
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            raw = column.cast(pa.large_binary()).to_pylist()
            return [None if v is None else v.decode("utf-8", "surrogateescape") for v in raw]
        if pa.types.is_timestamp(column.type):  # without its zone, which this machine does not know: the time is UTC
            column = column.cast(pa.timestamp(column.type.unit))
        return column.cast(pa.string()).to_pylist()  # type: ignore[no-any-return]
