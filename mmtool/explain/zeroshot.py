"""Explaining a zero-shot prediction: where within each input the evidence for the best label is, in nats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import tee
from typing import Any

import torch
from torch import Tensor

from mmtool.explain.overlay import Overlays
from mmtool.explain.within import Within
from mmtool.manifest.rows import Row
from mmtool.zeroshot import ZeroShot, as_json


def explained(model: ZeroShot, rows: Iterable[tuple[str, Row]], total: int, top: int, overlays: Overlays, *,
              caching: bool = False) -> Iterator[dict[str, Any]]:
    """The predictions of `total` rows as JSON, with an `explanation` each."""
    rows, again = tee(rows)
    for guess in model.guess(rows, total, caching=caching):
        line, row = as_json(guess, model.labels, top), next(again)[1]
        if guess.probabilities is not None:
            line["explanation"] = {"of": line["prediction"], "unit": "nats", "within": _within(model, line, row, overlays)}
        yield line


def _within(model: ZeroShot, line: dict[str, Any], row: Row, overlays: Overlays) -> dict[str, Any]:
    best = model.labels.index(line["prediction"])
    within = Within([r for r in model.readings if r.name in line["inputs"]], model.engines, overlays)
    out = {}
    for name, reading in sorted(within.readings.items()):
        def value(variants: list[Tensor | None]) -> Tensor:
            found = [0.0 if v is None else float(model.evidence(reading, v)[best]) for v in variants]  # noqa: B023
            return torch.tensor(found, dtype=torch.float64).unsqueeze(1)

        for told in within.explain(name, row, [(line["id"], name)], value):
            out[name] = told
    return out
