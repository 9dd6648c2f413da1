"""`mmtool info FILE`: what a model, a features folder or a report is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmtool.errors import ArtefactError, StorageError
from mmtool.features.format import HEADER
from mmtool.report import COMPARISON, METRICS, where


def info(path: Path) -> dict[str, Any]:
    """What the file or folder says of itself, `kind` first. Raises MMToolError for anything that mmtool did not write."""
    if not path.exists():
        raise StorageError(f"{path} does not exist", "give a model, a features folder or a report", code="E_NOT_FOUND")
    if (path / HEADER).is_file():
        from mmtool.features.reader import Features

        return {"kind": "features", **Features(path).header}
    if (path / METRICS).is_file():
        return {"kind": "report", **json.loads((path / METRICS).read_bytes())}
    if (path / COMPARISON).is_file():
        return {"kind": "comparison", **json.loads((path / COMPARISON).read_bytes())}
    if path.is_file():
        from mmtool.model import read_header

        return {"kind": "model", **read_header(path)}
    raise ArtefactError(f"{path} is no model, features folder or report of mmtool", "check the path", code="E_ARTEFACT_KIND")


def summary(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The facts that people ask for, as pairs."""
    lines = [("kind", facts["kind"])]
    for name, entry in sorted(facts.get("inputs", {}).items()):
        lines.append((f"input {name}", f"{'+'.join(entry['columns'])} ({entry['modality']}) by {entry['encoder']} of "
                                       f"{entry['package']}, {entry['dim']} wide" + ("" if entry["pooled"] else ", every token")
                                       + _weights(entry)))
    if facts["kind"] == "model":
        data = facts["data"]
        for column, task in sorted(facts["tasks"].items()):
            more = f" and {len(task['labels']) - 10} more" if len(task["labels"]) > 10 else ""
            lines.append(("predicts", f"{column} ({task['name']}: {', '.join(task['labels'][:10])}{more})"))
        made = facts["fusion"]["name"] + (f" after {facts['upstream']['fusion']['name']}" if facts["upstream"] else "")
        lines += [("fusion", made), ("trained by", str(facts["recipe"]["optimizer"])),
                  ("rows", f"{data['train']} train, {data['val']} val, {data['test']} test"),
                  ("measured", where(facts["metrics"]["measured_on"]))]
        if data.get("calib"):
            lines.append(("calibrated by", f"{data['calib']} rows that took no part in training"))
    if facts["kind"] == "features" and facts.get("upstream"):
        lines.append(("fused from", ", ".join(sorted(facts["upstream"]["inputs"]))))
    for key in ("rows", "scored"):
        if key in facts:
            lines.append((key, str(facts[key])))
    return lines


def _weights(entry: dict[str, Any]) -> str:
    told = {"trained": ", trained here", "bundled": ", weights in this file", "brought": ", weights in this file"}
    return told.get(entry.get("weights", ""), "")
