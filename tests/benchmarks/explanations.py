"""Are explanations faithful? Deletion and insertion curves against random order, on test rows of stamps.csv and prompts.csv.

    MMTOOL_DATA=... python tests/benchmarks/explanations.py [ROWS] [compare]

Two models are trained, on the pictures and texts of stamps, and on the speech of prompts, and up to ROWS test rows of each
input are explained. Deletion takes the parts of one input away, those with the highest score first, the other inputs as they
are; insertion puts them back into the empty input in the same order (Petsiuk et al., 2018). Each curve's area is that of the
predicted label's probability, and counts as better than chance where it is below (insertion: above) the mean area of random
orders. Words are deleted; texts of fewer than 4 words, which have no order to speak of, are left out. Patches are blurred, or
take the picture's mean colour; stretches of sound are cut out, or made faint. Explanations are made with the first way, the
product's, and the curves measured with both, to see whether what holds is an artefact of one.

With `compare`, other ways to score parts are measured on the same rows: taking each away alone, putting each back alone, and
Shapley values from four random orders, which for pictures are as many variants as `attribute` makes.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import experiments
import numpy as np
import torch
from captum.attr import FeatureAblation, ShapleyValueSampling
from torch import Tensor

from mmtool import cells
from mmtool.cli.main import run
from mmtool.errors import CellError
from mmtool.explain import audio, image, text
from mmtool.explain.attribute import BATCH, attribute
from mmtool.explain.parts import Parts
from mmtool.explain.value import Explained, margins, shown, variant_rows
from mmtool.explain.variants import encode
from mmtool.manifest.open import ids_and_rows, open_manifest
from mmtool.model import Model, load
from mmtool.predict import Settings
from mmtool.predict_model import Online

RANDOM_ORDERS = 5
STEPS = 16
"""Points of a curve, at most; parts go several at a time where there are more."""
FEWEST_WORDS = 4


class Game:
    """Which parts are kept, bool `[N, P]` -> what parts are scored by, `[N, 1]`; each variant is computed once."""

    def __init__(self, online: Online, tokens: dict[str, Any], name: str, parts: Parts,
                 explained: dict[str, Explained]) -> None:
        self.online, self.tokens, self.name, self.parts, self.explained = online, tokens, name, parts, explained
        self.reading = next(r for r in online.readings if r.name == name)
        self.known: dict[bytes, Tensor] = {}

    def __call__(self, kept: Tensor) -> Tensor:
        return shown(self.margins(kept), margins(self.online.model, self.tokens, self.explained), self.explained)

    def margins(self, kept: Tensor) -> Tensor:
        """Log-odds, `[N, 1]`."""
        keys = [bytes(row) for row in kept.to(torch.uint8).tolist()]
        new = list(dict.fromkeys(k for k in keys if k not in self.known))
        if new:
            variants = encode([self.parts.keep([bool(b) for b in k]) for k in new], self.reading,
                              self.online.engines[self.name])
            rows = variant_rows(self.tokens, self.name, self.online.as_tokens(self.name, variants))
            found = margins(self.online.model, rows, self.explained)
            self.known.update(zip(new, found, strict=True))
        return torch.stack([self.known[k] for k in keys])

    def areas(self, order: list[int]) -> tuple[float, float]:
        """Of the deletion and the insertion curve of an order of the parts."""
        count = len(order)
        points = sorted({round(i) for i in np.linspace(0, count, min(STEPS, count) + 1)})
        kept = torch.ones(2 * len(points), count, dtype=torch.bool)
        for i, n in enumerate(points):
            kept[i, order[:n]] = False
            kept[len(points) + i, order[n:]] = False
        curve = self.margins(kept)[:, 0].sigmoid().numpy().reshape(2, -1)
        x = np.array(points) / count
        return float(np.trapezoid(curve[0], x)), float(np.trapezoid(curve[1], x))


def _captum(game: Game, method: str, count: int) -> Tensor:
    whole, empty = torch.ones(1, count, dtype=torch.float64), torch.zeros(1, count, dtype=torch.float64)

    def forward(kept: Tensor) -> Tensor:
        return game(kept > 0.5)[:, 0]

    torch.manual_seed(0)
    if method == "taken away alone":
        return FeatureAblation(forward).attribute(whole, empty, perturbations_per_eval=BATCH)
    if method == "put back alone":
        return -FeatureAblation(forward).attribute(empty, whole, perturbations_per_eval=BATCH)
    return ShapleyValueSampling(forward).attribute(whole, empty, n_samples=4, perturbations_per_eval=BATCH)


OURS = "mmtool"
OTHERS = ("taken away alone", "put back alone", "Shapley sampling, 4 orders")


def kinds(name: str, cell: Any, online: Online) -> dict[str, Parts]:
    """The cell cut up, for each fill that curves are measured with; the first is the one that explains."""
    encoder = next(r for r in online.readings if r.name == name).built.encoder
    if encoder.modality == "image":
        return {fill: image.parts(cell, encoder.image_size_px, fill) for fill in ("blur", "mean")}
    if encoder.modality == "audio":
        return {fill: audio.parts(cell, encoder.sample_rate_hz, fill) for fill in ("cut", "faint")}
    return {"deleted": text.parts(cell)}


def decoded(online: Online, row: dict[str, Any]) -> dict[str, Any]:
    out = {}
    for reading in online.readings:
        raw = cells.raw_of(row, reading.input.columns, reading.source.modality)
        try:
            if raw is not None:
                out[reading.name] = cells.decode(cells.load(raw, reading.source)[0], reading.source, reading.preparer)
        except CellError:
            continue
    return out


def measure(model: Model, manifest: Path, name: str, rows: int, methods: tuple[str, ...]) -> None:
    """Print the shares of rows of one input for each method and fill."""
    data = open_manifest(str(manifest))
    online = Online(model, [c for e in model.header["inputs"].values() for c in e["columns"]], data.base, Settings())
    column = model.columns[0]
    task = model.tasks[column]
    found: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    seconds = []
    for row in _spread([row for _, row in ids_and_rows(data) if row.get("split") == "test"]):
        cell = decoded(online, row)
        if name not in cell or len(seconds) == rows:
            continue
        parts = kinds(name, cell[name], online)
        main = next(iter(parts))
        count = parts[main].count
        if main == "deleted" and count < FEWEST_WORDS:
            continue
        tokens = {r.name: online.as_tokens(r.name, encode([cell.get(r.name)], r, online.engines[r.name]))
                  for r in online.readings}
        explained = Explained.choose(task, model.predictions(tokens)[column][0])
        games = {fill: Game(online, tokens, name, p, {column: explained}) for fill, p in parts.items()}
        started = time.perf_counter()
        scores = {OURS: attribute(count, games[main])}
        seconds.append(time.perf_counter() - started)
        scores |= {m: _captum(games[main], m, count) for m in methods if m != OURS}
        rng = np.random.default_rng(len(seconds))
        orders = [rng.permutation(count).tolist() for _ in range(RANDOM_ORDERS)]
        for fill, game in games.items():
            chance = np.mean([game.areas(order) for order in orders], 0)
            for method, s in scores.items():
                area = game.areas(s.flatten().argsort(descending=True, stable=True).tolist())
                found.setdefault((fill, method), []).append((*area, *chance))
    for (fill, method), lines in found.items():
        deletion, insertion, chance_d, chance_i = np.array(lines).T
        print(f"{name:<8} {fill:<8} {method:<27} {len(lines):>4}   {(deletion < chance_d).mean():>6.1%}  "
              f"{deletion.mean():.3f} ({chance_d.mean():.3f})   {(insertion > chance_i).mean():>6.1%}  "
              f"{insertion.mean():.3f} ({chance_i.mean():.3f})   {np.median(seconds):.2f} s", flush=True)


def _spread(rows: list[Any]) -> Iterator[Any]:
    """The rows in an order in which any beginning is spread over all of them."""
    yield from (rows[i] for i in np.random.default_rng(0).permutation(len(rows)))


def main() -> None:
    warnings.simplefilter("ignore")
    rows = next((int(a) for a in sys.argv[1:] if a.isdigit()), 100)
    methods: tuple[str, ...] = (OURS, *OTHERS) if "compare" in sys.argv else (OURS,)
    data = Path(os.environ["MMTOOL_DATA"])
    trainings = [
        ("stamps", "category", ["image=effnet-lite0", "text=minilm"]),
        ("prompts", "language", ["audio=spectral"])]
    print("input    fill     scores by                   rows   deletion better, area (chance)   insertion better   median",
          flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, target, encoders in trainings:
            model = Path(folder) / f"{name}.safetensors"
            chosen = [part for e in encoders for part in ("-e", e)]
            manifest = experiments.prepare(data, name, Path(folder))
            assert run(["train", str(manifest), "-t", target, *chosen, "-o", str(model), "-q"]) == 0
            for encoder in encoders:
                measure(load(model), manifest, encoder.partition("=")[0], rows, methods)


if __name__ == "__main__":
    main()
