"""Predictions on their way out: lines for people, JSON lines for scripts, files of three kinds."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

from mmtool import console, files
from mmtool.errors import TOO_MANY_BAD, StorageError, UsageError, split_status
from mmtool.manifest.rows import text_of

COLUMNS = ("id", "prediction", "probability", "probabilities", "set", "interval", "abstained", "targets", "inputs",
           "contributions", "explanation", "measured", "unlike", "errors")
UNLIKE = 0.01
"""Inputs are told to be unlike the training data where a smaller share of held-out rows is as far away."""


def is_empty(prediction: dict[str, Any]) -> bool:
    """Was there no usable input?"""
    below = prediction.get("targets", {"": prediction})
    return all(found.get("prediction") is None for found in below.values())


def show(prediction: dict[str, Any], *, alone: bool, top: int) -> None:
    """Lines for people: the best labels with bars for a row `alone`, one line for each of several rows."""
    if is_empty(prediction):
        return
    if "targets" in prediction:
        for column, found in prediction["targets"].items():
            if alone:
                console.out(f"{console.literal(column)}:")
            name = prediction["id"] if alone else f"{prediction['id']}  {column}"
            show({**found, "id": name, "inputs": prediction["inputs"]}, alone=alone, top=top)
        return
    if "explanation" in prediction:
        _explain(prediction, alone=alone, top=top)
        return
    source = _shares(prediction["contributions"]) if "contributions" in prediction else _measured(prediction)
    probabilities = prediction.get("probabilities", {})
    doubt = _doubt(prediction)
    if not alone or not probabilities:
        p = prediction.get("probability")
        sure = "" if p is None or isinstance(prediction["prediction"], list) else f"  {percent(p)}"
        name = "" if alone else f"{console.literal(prediction['id'])}  "
        console.out(f"{name}{_answer(prediction['prediction'])}{sure}" + "".join(f"  {d}" for d in doubt) + f"  ({source})")
        return
    shown = dict(list(probabilities.items())[:top])
    width = max(len(console.literal(label)) for label in shown)
    given = prediction["prediction"] if isinstance(prediction["prediction"], list) else None
    for label, p in shown.items():
        mark = "" if given is None else "✓ " if label in given else "  "
        console.out(f"{mark}{console.literal(label):<{width}}  {percent(p):>6}  {'█' * round(24 * p)}".rstrip())
    for line in doubt:
        console.out(line)
    console.out(f"from {source}")


def _doubt(prediction: dict[str, Any]) -> list[str]:
    """The set or interval, and whether the model abstains."""
    out = []
    if "set" in prediction:
        out.append(console.literal(f"set: {{{', '.join(prediction['set'])}}}"))
    if "interval" in prediction:
        found = prediction["interval"]
        pairs = found if isinstance(found[0], list) else [found]
        out.append("interval: " + ", ".join(f"{_end(low, '−∞')} to {_end(high, '∞')}" for low, high in pairs))
    return [*out, "abstained"] if prediction.get("abstained") else out


def _end(value: float | None, unbounded: str) -> str:
    return unbounded if value is None else f"{value:.5g}"


def unlike(prediction: dict[str, Any]) -> dict[str, float]:
    """The inputs that are unlike the training data, each with its p."""
    return {name: p for name, p in prediction.get("unlike", {}).items() if p < UNLIKE}


def _explain(prediction: dict[str, Any], *, alone: bool, top: int) -> None:
    from mmtool.explain.show import lines

    known = "baseline" in prediction["explanation"]  # zero-shot contributions are shown as shares, too
    show({k: v for k, v in prediction.items() if k != "explanation" and not (known and k == "contributions")},
         alone=alone, top=top)
    for line in lines(prediction):
        console.out(line)


def _answer(prediction: Any) -> str:
    if isinstance(prediction, float):
        return f"{prediction:.5g}"
    parts = [f"{p:.5g}" if isinstance(p, float) else str(p) for p in prediction] if isinstance(prediction, list) else None
    return console.literal((", ".join(parts) or "(none)") if parts is not None else prediction)


def _measured(prediction: dict[str, Any]) -> str:
    """The inputs used, and what the model is worth with them."""
    known = "; ".join(f"{name} {m['value']:.3f} [{m['low']:.3f}, {m['high']:.3f}] with these inputs"
                      for name, m in prediction.get("measured", {}).items())
    return ", ".join(prediction["inputs"]) + (f"; {known}" if known else "; not measured with these inputs alone")


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
    for prediction in (p for p in found if not is_empty(p)):
        for name, reason in prediction.get("errors", {}).items():
            console.warn(f"{prediction['id']}: {name} was left out: {reason}")
        for name, share in unlike(prediction).items():
            told = f"{name} is unlike the training data (farther than {1 - share:.1%} of held-out rows)"
            console.warn(f"{prediction['id']}: {told}")
    unused = [p for p in found if is_empty(p)]
    if unused:
        p = unused[0]
        code, reasons = split_status("; ".join(p.get("errors", {}).values()) or "E_CELL_MISSING: every input is missing")
        console.error(f"{p['id']}: {reasons}" + (f" (and {len(unused) - 1} more)" if len(unused) > 1 else ""),
                      "nothing is left of it to predict from", code=code)
        return TOO_MANY_BAD
    return 0


def percent(p: float) -> str:
    """A probability as people read it; never rounded to a certainty."""
    return ">99.9%" if p > 0.999 else "<0.1%" if p < 0.001 else f"{p:.1%}"


def _shares(contributions: dict[str, float]) -> str:
    total = sum(abs(c) for c in contributions.values()) or 1.0
    if len(contributions) == 1:
        return next(iter(contributions))
    return ", ".join(f"{name} {'+' if c >= 0 else '−'}{abs(c) / total:.0%}"
                     for name, c in sorted(contributions.items(), key=lambda item: -item[1]))


def stream(predictions: Iterable[dict[str, Any]], output: Path | None) -> int:
    """Print each prediction as it comes, or write them to `output`; returns the exit code."""
    count = bad = odd = spoiled = 0

    def counted() -> Iterator[dict[str, Any]]:
        nonlocal count, bad, odd, spoiled
        for prediction in predictions:
            count += 1
            bad += is_empty(prediction)
            odd += bool(unlike(prediction))
            spoiled += bool(prediction.get("errors"))
            yield prediction

    if output is None:
        for prediction in counted():
            console.out_json(prediction)
    else:
        write(output, counted())
        console.out(str(output))
    console.say(f"{count} rows, {bad} without a usable input"
                + (f", {spoiled} with a bad cell (`errors` says why)" if spoiled else "")
                + (f", {odd} unlike the training data" if odd else ""))
    return TOO_MANY_BAD if bad > 0.01 * count else 0


def check_target(path: Path) -> None:
    """May a file be written there? Raises MMToolError, before any work is done."""
    parent = path.absolute().parent
    if path.is_dir():
        raise StorageError(f"{path} is a folder", "-o takes a file: .jsonl, .csv or .parquet", code="E_OUTPUT")
    if path.suffix.lower() not in (".jsonl", ".ndjson", ".csv", ".parquet"):
        raise UsageError(f"-o {path}: a predictions file ends in .jsonl, .csv or .parquet", f"write -o {path}.jsonl")
    if not parent.is_dir():
        raise StorageError(f"{path}: the folder {parent} does not exist", "make it, or choose another -o", code="E_NOT_FOUND")
    if not os.access(parent, os.W_OK):
        raise StorageError(f"{path}: the folder {parent} cannot be written to", "choose another -o", code="E_PERMISSION")


def write(path: Path, predictions: Iterable[dict[str, Any]]) -> None:
    """JSONL, or CSV or Parquet by the suffix (nested values as JSON); the file appears when it is whole.

    Of an interrupted run what is there is kept as `NAME.partial.SUFFIX`: it may have cost hours.
    """
    writer = {".csv": _write_csv, ".parquet": _write_parquet}.get(path.suffix.lower(), _write_jsonl)
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    interrupted = False

    def until_interrupted() -> Iterator[dict[str, Any]]:
        nonlocal interrupted
        try:
            yield from predictions
        except KeyboardInterrupt:
            interrupted = True

    with files.writing(path, lambda: partial if interrupted else path) as f:
        writer(f, until_interrupted())
    if interrupted:
        console.warn(f"the predictions so far are in {partial}")
        raise KeyboardInterrupt
    if partial.is_file() and _begins_with(path, partial):  # then nothing is lost with it
        partial.unlink()


def _begins_with(whole: Path, part: Path) -> bool:
    with whole.open("rb") as one, part.open("rb") as other:
        while data := other.read(1 << 20):
            if one.read(len(data)) != data:
                return False
    return True


def _write_jsonl(f: IO[bytes], predictions: Iterable[dict[str, Any]]) -> None:
    f.writelines((console.to_json(p) + "\n").encode() for p in predictions)


def _flat(prediction: dict[str, Any]) -> dict[str, Any]:
    def one(value: Any) -> Any:
        return console.to_json(value) if isinstance(value, dict | list) else text_of(value) if isinstance(value, str) else value

    return {k: one(prediction.get(k)) for k in COLUMNS}


def _write_csv(f: IO[bytes], predictions: Iterable[dict[str, Any]]) -> None:
    text = io.TextIOWrapper(f, encoding="utf-8", newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    formulas = 0
    for prediction in predictions:
        row = _flat(prediction)
        formulas += any(_is_formula(cell) for cell in row.values())
        writer.writerow(row)
    text.detach()  # flushed; the file is closed by whoever opened it
    if formulas:  # they stay as they are, since scripts join by them
        console.warn(f"{formulas} row{'' if formulas == 1 else 's'} hold a text that begins with =, +, - or @, which a "
                     "spreadsheet would compute: import the columns as text")


def _is_formula(cell: Any) -> bool:
    if not isinstance(cell, str) or not cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return False
    try:
        float(cell)
    except ValueError:
        return True
    return False


def _write_parquet(f: IO[bytes], predictions: Iterable[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(c, pa.float64() if c == "probability" else pa.string()) for c in COLUMNS])
    rows = iter(predictions)
    with pq.ParquetWriter(f, schema) as writer:
        while batch := list(islice(rows, 1000)):
            writer.write_table(pa.Table.from_pylist([_flat(p) for p in batch], schema))
