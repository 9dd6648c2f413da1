"""What an input costs: seconds to extract one row, bytes of its encoder's weights and of a row's features.

Times are taken afresh, one row at a time, through the same reading, preparing and encoding as in `extract`, with one thread,
and never from the cache.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmtool import cells
from mmtool.engine import Engine, choose_device
from mmtool.errors import MMToolError
from mmtool.extract import Settings as ExtractSettings
from mmtool.extraction import sources
from mmtool.extraction.sources import Reading
from mmtool.features.reader import Features
from mmtool.manifest.open import Manifest
from mmtool.manifest.rows import Row
from mmtool.model import Model
from mmtool.reading import Job, Task, read
from mmtool.report import About, Scored
from mmtool.training.solve import one_thread

MOST_CELLS, FEWEST_CELLS, MOST_SECONDS = 64, 3, 5.0
"""Cells of an input that are timed; fewer, where they take longer than so many seconds."""


def add(model: Model, features: Features, names: Sequence[str], scored: Scored, about: About,
        settings: ExtractSettings) -> None:
    """Put each input's `cost` beside its worth, measured on some of the scored rows whose cell was sound."""
    ids = list(dict.fromkeys(i for part in scored.parts.values() for i in part.ids))
    for name in names:
        sound = [i for i in ids if about.statuses[i].get(name) == "ok"]  # others may have crashed a reader
        cost = measure(model, features, name, about.rows(set(some(sound))), about.base, settings)
        for part in scored.parts.values():
            part.found["worth"]["inputs"][name]["cost"] = cost


def measure(model: Model, features: Features, name: str, rows: Mapping[str, Row], base: Path,
            settings: ExtractSettings) -> dict[str, Any]:
    """The cost of an input, as metrics.json has it; `why` says what kept its encoder from being timed.

    `rows`: scored rows by id, `base` the folder of their relative paths.
    """
    cost = {"seconds_per_row": None, "cells": 0, "device": None, "threads": 1, "encoder_bytes": None,
            "feature_bytes_per_row": _feature_bytes(features, name), "why": None}
    try:
        return {**cost, **_timed(_reading(model, name, base, settings), rows, settings)}
    except MMToolError as error:  # a weights file that is not given, an encoder of another version
        return {**cost, "why": str(error)}


def some(ids: Sequence[str]) -> list[str]:
    """As many of the ids as are timed, spread over all of them."""
    return [ids[int(at)] for at in np.unique(np.linspace(0, len(ids) - 1, min(len(ids), MOST_CELLS)).astype(int))]


def _reading(model: Model, name: str, base: Path, settings: ExtractSettings) -> Reading:
    given = {n: p for n, p in sources.parse_weights(settings.weights).items() if n == name}
    columns = model.header["inputs"][name]["columns"]
    return sources.like(model.headers([name], "the model"), Manifest("the rows", base, (), lambda: iter(())), columns, given,
                        limits=settings.limits, seed=settings.seed, device=choose_device(settings.device))[0]


def _timed(reading: Reading, rows: Mapping[str, Row], settings: ExtractSettings) -> dict[str, Any]:
    encoder = reading.built.encoder
    tensors: list[Tensor] = [*encoder.parameters(), *encoder.buffers()]
    held = None if encoder.weights_sha256 else sum(t.numel() * t.element_size() for t in tensors)
    engine = Engine(encoder, choose_device(settings.device), "fp32", 1)
    jobs = {reading.name: Job(reading.source, reading.preparer, np.zeros(0, np.uint64))}
    seconds: list[float] = []
    why = "no scored row has a cell of it that can still be read"
    with one_thread():
        for row in rows.values():
            raw = cells.raw_of(row, reading.input.columns, reading.source.modality)
            if raw is None:
                continue
            if not seconds:
                reason = _once(reading, engine, jobs, raw)[1]  # a first time is slower: not counted
                if reason:
                    why = reason
                    continue
            took, reason = _once(reading, engine, jobs, raw)
            if not reason:
                seconds.append(took)
            if len(seconds) >= FEWEST_CELLS and sum(seconds) > MOST_SECONDS:
                break
    mean = sum(seconds) / len(seconds) if seconds else None
    return {"seconds_per_row": mean, "cells": len(seconds), "device": engine.device.type, "encoder_bytes": held,
            "why": None if seconds else why}


def _once(reading: Reading, engine: Engine, jobs: Mapping[str, Job], raw: cells.Raw) -> tuple[float, str]:
    """Seconds from a cell as written to its features, and what went wrong ("": nothing)."""
    started = time.perf_counter()
    outcome = read(Task(reading.name, [raw]), jobs)[0]
    if outcome.prepared is None:
        return 0.0, outcome.reason or outcome.status
    engine.encode([torch.from_numpy(outcome.prepared)], keep=reading.keep)
    return time.perf_counter() - started, ""


def _feature_bytes(features: Features, name: str) -> int:
    """Of one row whose cell is there; of ragged tokens, the mean of some rows."""
    about = features.header["inputs"][name]
    size = int(about["dim"]) * int(getattr(torch, about["dtype"]).itemsize)
    if about["pooled"]:
        return size
    lengths = features.tokens(name, range(min(len(features), MOST_CELLS))).mask.sum(1).float()
    return round(size * float(lengths[lengths > 0].mean())) if bool((lengths > 0).any()) else 0
