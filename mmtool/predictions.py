"""Predictions on their way out: lines for people, JSON lines for scripts, files of three kinds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmtool import console, files
from mmtool.errors import MMToolError

SOME_BAD = 3


def show(prediction: dict[str, Any], *, alone: bool) -> None:
    """Lines for people: the best labels with bars for a row `alone`, one line for each of several rows."""
    if prediction["prediction"] is None:
        return
    share = _shares(prediction["contributions"])
    if not alone:
        console.out(f"{console.literal(prediction['id'])}  {console.literal(prediction['prediction'])}  "
                    f"{percent(prediction['probability'])}  ({share})")
        return
    width = max(len(console.literal(label)) for label in prediction["probabilities"])
    for label, p in prediction["probabilities"].items():
        console.out(f"{console.literal(label):<{width}}  {percent(p):>6}  {'█' * round(24 * p)}".rstrip())
    console.out(f"from {share}")


def percent(p: float) -> str:
    """A probability as people read it; never rounded to a certainty."""
    return ">99.9%" if p > 0.999 else "<0.1%" if p < 0.001 else f"{p:.1%}"


def _shares(contributions: dict[str, float]) -> str:
    total = sum(abs(c) for c in contributions.values()) or 1.0
    if len(contributions) == 1:
        return next(iter(contributions))
    return ", ".join(f"{name} {'+' if c >= 0 else '−'}{abs(c) / total:.0%}"
                     for name, c in sorted(contributions.items(), key=lambda item: -item[1]))


def stream(predictions: Iterator[dict[str, Any]], output: Path | None) -> int:
    """Print each prediction as it comes, or write all to `output`; returns the exit code."""
    count = bad = 0
    kept: list[dict[str, Any]] = []
    for prediction in predictions:
        count += 1
        bad += prediction["prediction"] is None
        if output is None:
            console.out_json(prediction)
        else:
            kept.append(prediction)
    if output is not None:
        write(output, kept)
        console.out(str(output))
    console.say(f"{count} rows, {bad} without a usable input")
    return SOME_BAD if bad > 0.01 * count else 0


def write(path: Path, predictions: list[dict[str, Any]]) -> None:
    """JSONL, or CSV or Parquet by the suffix (nested values as JSON). Raises MMToolError where it cannot."""
    if path.suffix.lower() in (".csv", ".parquet"):
        import pyarrow as pa

        flat = [{k: json.dumps(v, ensure_ascii=False) if isinstance(v, dict | list) else v for k, v in p.items()}
                for p in predictions]
        names = list(dict.fromkeys(k for p in flat for k in p))
        table = pa.table({n: [p.get(n) for p in flat] for n in names})
        sink = pa.BufferOutputStream()
        if path.suffix.lower() == ".csv":
            import pyarrow.csv as pacsv

            pacsv.write_csv(table, sink)
        else:
            import pyarrow.parquet as pq

            pq.write_table(table, sink)
        data = sink.getvalue().to_pybytes()
    else:
        data = "".join(console.to_json(p) + "\n" for p in predictions).encode()
    try:
        files.write_bytes(path, data)
    except OSError as error:
        raise MMToolError(f"{path} cannot be written: {error.strerror}", "choose another -o") from error
