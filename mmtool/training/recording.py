"""From what was fitted to the model that is written: header, assets, weights."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmtool import encoding, fused, opening, settings
from mmtool.api import Encoder
from mmtool.encoding import Built
from mmtool.errors import DataError
from mmtool.extraction.sources import Headers, Reading, like, parse_weights
from mmtool.inference.paths import Keep
from mmtool.manifest.open import Manifest
from mmtool.model import FORMAT, Model
from mmtool.training import comparing
from mmtool.training.fit import Result
from mmtool.training.live import Live

if TYPE_CHECKING:
    from mmtool.training.trainer import Prepared, Trainer

LIBRARIES = ("mmtool", "torch", "numpy", "scipy", "safetensors")


def model(trainer: Trainer, fitted: Result, metrics: dict[str, Any], temperatures: dict[str, Any], how: str,
          ready: Prepared) -> Model:
    """The model with a header that says all that is needed to run it, and to make it again."""
    features, asked, learning = trainer.opened.features, trainer.settings, trainer.learning
    entries, lives, upstream = dict(ready.entries), ready.lives, ready.upstream
    assets, weights = ({}, {}) if features is None else fused.tensors(features, list(entries))
    brought = dict(weights)
    for name in brought:
        entries[name] = {**entries[name], "weights": "brought"}
    for live in lives:
        encoder = fitted.encoders[live.name]
        entries[live.name] = _entry(live, encoder, fitted.network.front.fusion.dims[live.name])
        assets[live.name] = encoder.assets()
        if live.trained:
            weights[live.name] = dict(encoder.state_dict())
        else:
            weights.pop(live.name, None)
    if asked.bundle:
        built = {live.name: replace(live.built, encoder=fitted.encoders[live.name]) for live in lives}
        rest = {n: e for n, e in entries.items() if n not in weights}
        for name, state in _bundled(trainer, rest, assets, built).items():
            weights[name] = state
            entries[name] = {**entries[name], "weights": "bundled"}
    columns = opening.hashed_columns(entries, list(trainer.targets))
    known = {c: [trainer.truth[c][r] for r in learning] for c in trainer.targets}
    source = trainer.opened.ids(learning) if features is None else [s["sha256"] for s in features.header["shards"]]
    header = {
        "format": FORMAT, "inputs": entries, "temperatures": temperatures, "hidden": list(ready.run.settings.hidden),
        "recipe": {**fitted.recipe, "seed": asked.seed, "held_out": how},
        "asked": {**settings.kept(asked), "allow_random": asked.extraction.allow_random},
        "fusion": {"name": trainer.fusion.name, "options": trainer.fusion_options},
        "upstream": {} if features is None or upstream is None else fused.front_entry(features),
        "tasks": {c: {"name": a.name, "options": a.options, "package": a.package, "labels": list(a.task.labels)}
                  for c, a in trainer.targets.items()},
        "data": {"fingerprint": encoding.fingerprint([entries, source, known]), "train": len(trainer.split.train),
                 "val": len(trainer.split.val), "test": len(trainer.split.test), "calib": len(trainer.split.calib),
                 "split_made": trainer.split.made,
                 "upstream_learned": fused.learned(upstream, brought)},
        "metrics": {**metrics, "measured_on": how}, "curves": fitted.curves, "tied": {},
        "comparison": comparing.timeless(trainer.comparison), "conformal": {}, "reference": {},
        "versions": {library: version(library) for library in LIBRARIES}}
    trained = opening.row_hashes([trainer.opened.column(c) for c in columns], sorted(learning + trainer.split.calib))
    return Model(header, fitted.network, assets, trained, weights, upstream)


def _entry(live: Live, encoder: Encoder, dim: int) -> dict[str, Any]:
    built = Built(live.built.name, live.built.package, live.built.options, encoder)
    keep: Keep = "pooled" if live.keep == "pooled" else "tokens"
    reading = Reading(live.item, built, live.store.source, keep, encoding.identity(built), live.fitted, encoder)
    return {**reading.header(dim, "float32"), "weights": "trained" if live.trained else "package"}


def _bundled(trainer: Trainer, entries: dict[str, dict[str, Any]], assets: dict[str, dict[str, Tensor]],
             lives: dict[str, Built]) -> dict[str, dict[str, Tensor]]:
    """The weights of frozen encoders; `lives` are fitted already. Raises MMToolError for those that are not PyTorch's."""
    texts = {item.name: item.encoder for item in trainer.opened.to_extract}
    seed, found = trainer.settings.seed, {}
    built = {name: lives[name] if name in lives else encoding.build(texts[name], seed=seed)
             for name in entries if name in lives or name in texts}
    if rest := {n: e for n, e in entries.items() if n not in built}:
        nothing = Manifest("the features", Path(), (), lambda: iter(()))
        columns = [c for entry in rest.values() for c in entry["columns"]]
        readings = like(Headers("the features", rest, assets), nothing, columns, parse_weights(trainer.settings.weights),
                        limits=trainer.settings.extraction.limits, seed=seed, device=torch.device("cpu"))
        built |= {reading.name: reading.built for reading in readings}
    for name, one in built.items():
        if one.encoder.weights_sha256:
            raise DataError(f"input {name!r}: the weights of {one.spec} are not PyTorch's and cannot be bundled",
                            "leave --bundle out, or take another encoder")
        if state := dict(one.encoder.state_dict()):
            found[name] = state
    return found
