"""Predictions on their way out: lines for people, JSON lines for scripts, files of three kinds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmtool import console, files
from mmtool.errors import MMToolError

FAILED, SOME_BAD = 1, 3


def show(prediction: dict[str, Any], *, alone: bool, top: int) -> None:
    """Lines for people: the best labels with bars for a row `alone`, one line for each of several rows."""
    if prediction["prediction"] is None:
        return
    source = _shares(prediction["contributions"]) if "contributions" in prediction else _measured(prediction)
    probabilities = prediction.get("probabilities", {})
    if not alone or not probabilities:
        p = prediction.get("probability")
        sure = "" if p is None else f"  {p:.1%}"
        console.out(f"{console.literal(prediction['id'])}  {_answer(prediction['prediction'])}{sure}  ({source})")
        return
    shown = dict(list(probabilities.items())[:top])
    width = max(len(console.literal(label)) for label in shown)
    for label, p in shown.items():
        console.out(f"{console.literal(label):<{width}}  {p:6.1%}  {'█' * round(24 * p)}".rstrip())
    console.out(f"from {source}")


def _answer(prediction: Any) -> str:
    return console.literal(", ".join(map(str, prediction)) or "(none)" if isinstance(prediction, list) else prediction)


def _measured(prediction: dict[str, Any]) -> str:
    """The inputs used, and what the model is worth with them."""
    known = "; ".join(f"{name} {m['value']:.3f} [{m['low']:.3f}, {m['high']:.3f}] with these inputs"
                      for name, m in prediction.get("measured", {}).items())
    return ", ".join(prediction["inputs"]) + (f"; {known}" if known else "")


def tell(found: Sequence[dict[str, Any]], output: Path | None, *, as_json: bool, top: int) -> int:
    """Print a few predictions, or write them to `output`, and say what was left out; returns the exit code."""
    if output is not None:
        write(output, found)
        console.out(str(output))
    elif as_json:
        for prediction in found:
            console.out_json(prediction)
    else:
        for prediction in found:
            show(prediction, alone=len(found) == 1, top=top)
    for prediction in found:
        for name, reason in prediction.get("errors", {}).items():
            console.warn(f"{prediction['id']}: {name} was left out: {reason}")
    unused = [p for p in found if p["prediction"] is None]
    if unused:
        p = unused[0]
        reasons = "; ".join(p.get("errors", {}).values()) or "every input is missing"
        console.error(f"{p['id']}: {reasons}" + (f" (and {len(unused) - 1} more)" if len(unused) > 1 else ""),
                      "nothing is left to predict from")
        return FAILED if len(unused) == len(found) else SOME_BAD
    return 0


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


def write(path: Path, predictions: Sequence[dict[str, Any]]) -> None:
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
