"""`mmtool info FILE`: what a model, a features folder or a report is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmtool.errors import ArtefactError, StorageError, storage_error
from mmtool.features.format import HEADER
from mmtool.report import COMPARISON, METRICS, where
from mmtool.schema import anything, fields, table
from mmtool.strictjson import Unsound, strict_json
from mmtool.tensorfile import damaged, open_plain

MOST_BYTES = 1 << 28


def info(path: Path) -> dict[str, Any]:
    """What the file or folder says of itself, `kind` first, all of it verified.

    Raises MMToolError for anything that mmtool did not write, or that is no longer what it wrote.
    """
    if not path.exists():
        raise StorageError(f"{path} does not exist", "give a model, a features folder or a report", code="E_NOT_FOUND")
    if (path / HEADER).is_file():
        from mmtool.features.reader import Features

        features = Features(path)
        features.verify()
        return {"kind": "features", **({"note": features.note} if features.note else {}), **features.header,
                "cells": features.cells()}
    if (path / METRICS).is_file():
        return {"kind": "report", **_report(path / METRICS)}
    if (path / COMPARISON).is_file():
        return {"kind": "comparison", **_comparison(path / COMPARISON)}
    if path.is_file() and path.suffix.lower() == ".safetensors":
        from mmtool.modelfile import verified

        opened = verified(path)
        note = {} if opened.digests is not None else {"note": "of format 1: nothing can be verified; train again for that"}
        return {"kind": "model", **note, **opened.header}
    raise ArtefactError(f"{path} is no model, features folder or report of mmtool",
                        "it is unfinished: run again what began it" if path.name.endswith(".partial")
                        else "give what extract, train, fuse, eval or compare wrote",
                        code="E_ARTEFACT_KIND")


def _json(path: Path) -> dict[str, Any]:
    try:
        with open_plain(path) as f:
            found = strict_json(f.read(MOST_BYTES))
        anything(found, "it")
        if not isinstance(found, dict):
            raise Unsound("it is no object")
        return found
    except Unsound as error:
        raise damaged(path, str(error), "make the report again") from None
    except OSError as error:
        raise storage_error(error) from error


def _report(path: Path) -> dict[str, Any]:
    """metrics.json, as far as it is shown. What cannot be shown is damaged."""
    from mmtool.modelfile import check_metrics
    from mmtool.page import worth as told

    found = _json(path)
    try:
        several = not all(isinstance(m, dict) and set(m) == {"value", "low", "high"} for m in found["overall"].values())
        columns = set(found["overall"]) if several else None
        for kind in ("overall", "by_inputs", "baselines"):
            check_metrics(found[kind], kind, columns, each=kind != "overall")
        for one in (found["worth"].values() if columns else [found["worth"]]) if found.get("worth") else []:
            told.lines(one)
            told.sentences(one)
    except (Unsound, ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError) as error:
        raise damaged(path, str(error) if isinstance(error, Unsound) else f"it is no table of metrics ({error!r:.100})",
                      "make the report again") from None
    return found


def _comparison(path: Path) -> dict[str, Any]:
    from mmtool.modelfile import COMPARED

    found = _json(path)
    try:
        fields({"targets": table(COMPARED)}, open_=True)(found, "it")
    except Unsound as error:
        raise damaged(path, str(error), "make the comparison again") from None
    return found


def summary(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The facts that people ask for, as pairs."""
    lines = [("kind", facts["kind"])] + ([("note", facts["note"])] if "note" in facts else [])
    for name, entry in sorted(facts.get("inputs", {}).items()):
        lines.append((f"input {name}", f"{'+'.join(entry['columns'])} ({entry['modality']}) by {entry['encoder']} of "
                                       f"{entry['package']}, {entry['dim']} wide" + ("" if entry["pooled"] else ", every token")
                                       + _weights(entry)))
    for name, cells in facts.get("cells", {}).items():
        lines.append((f"cells {name}", f"{cells['ok']} ok, {cells['missing']} missing, {cells['bad']} bad"
                      + (" (errors.jsonl says why)" if cells["bad"] else "")))
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
