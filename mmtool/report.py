"""The report folder, and metrics for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmtool import console, files
from mmtool.errors import MMToolError

METRICS, PREDICTIONS = "metrics.json", "predictions.jsonl"
PAGE, PLOTS = "report.html", "plots"
SHOWN = ("accuracy", "f1_macro", "subset_accuracy", "f1_micro", "roc_auc", "log_loss", "mae", "rmse", "r2")
"""What has room in a terminal; the rest is in metrics.json."""


def check_report(folder: Path) -> None:
    """May a report be written there? Raises MMToolError for a file, or a folder that holds anything else."""
    if folder.is_file():
        raise MMToolError(f"{folder} is a file", "choose another -o")
    if not folder.absolute().parent.is_dir():
        raise MMToolError(f"{folder}: the folder {folder.absolute().parent} does not exist", "make it, or choose another -o")
    if folder.is_dir() and (others := {p.name for p in folder.iterdir()} - {METRICS, PREDICTIONS, PAGE, PLOTS}):
        raise MMToolError(f"{folder} holds other files, such as {min(others)}", "choose another -o; nothing was overwritten")


def write_report(folder: Path, metrics: dict[str, Any], predictions: Sequence[dict[str, Any]]) -> None:
    """metrics.json and predictions.jsonl."""
    folder.mkdir(exist_ok=True)
    files.write_bytes(folder / PREDICTIONS, "".join(console.to_json(p) + "\n" for p in predictions).encode())
    files.write_json(folder / METRICS, metrics)


def show(metrics: dict[str, Any], main: Sequence[str], *, to_stdout: bool = False) -> None:
    """The table for people, on stderr unless it is the result itself."""
    lines = [("all rows", metrics["overall"]), *((f"only {k}", v) for k, v in metrics["by_inputs"].items()),
             *((k.replace("_", " "), v) for k, v in metrics["baselines"].items())]
    used = [m for m in dict.fromkeys(main) if m in metrics["overall"]]
    console.table(("", *used), [(label, *(cell(found.get(m)) for m in used)) for label, found in lines],
                  to_stdout=to_stdout)


def cell(metric: dict[str, float] | None) -> str:
    """A metric with its interval."""
    return "" if metric is None else f"{metric['value']:.3f} [{metric['low']:.3f}, {metric['high']:.3f}]"
