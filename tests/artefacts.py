"""The golden files as targets for damage: how each is opened, and what came of it in one comparable value."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import mutations
import torch

from mmtool import console, fused, info, report
from mmtool.cache import Cache
from mmtool.errors import MMToolError
from mmtool.features.reader import Features
from mmtool.model import load
from mmtool.predictionfile import read_predictions
from mmtool.sealing import sha256_of
from mmtool.training.keeping import Keeper

GOLDEN = Path(__file__).parent / "golden"
KEYS = [hashlib.sha256(bytes([i])).hexdigest() for i in range(3)]


@dataclass(frozen=True)
class Target:
    """A file to damage. `open` gives what can be compared; `covered`: does a sum cover every bit of it?"""

    kind: str
    path: Path
    open: Callable[[], Any]
    covered: bool
    mutate: Callable[[bytes, Random], bytes]
    reseal: Callable[[Random], None] | None = None
    """Make the sums of the folder right again."""


def _sums(tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    return {name: sha256_of(t) for name, t in tensors.items()}


def model(path: Path) -> Any:
    """All that a model says and holds, and that it predicts and is shown."""
    found = load(path)
    tokens = {n: torch.ones(2, 1, e["dim"]) for n, e in found.header["inputs"].items()}
    from mmtool.api import Tokens

    if sum(t.numel() for t in tokens.values()) < 1 << 20:
        found.predict({n: Tokens(t, torch.ones(2, 1, dtype=torch.bool)) for n, t in tokens.items()})
    facts = info.info(path)
    info.summary(facts)
    report.show_all(facts["metrics"], report.SHOWN)
    report.show_comparison(facts["comparison"])
    return json.dumps(found.header, sort_keys=True), _sums(dict(found.network.state_dict())), \
        {n: _sums(w) for n, w in (found.weights | found.assets).items()}


def features(folder: Path) -> Any:
    """All that a features folder holds."""
    found = Features(folder)
    held = {n: _sums(found.assets(n) | found.weights(n)) for n in found.inputs}
    values = {n: sha256_of(found.tokens(n, range(len(found))).values) for n in found.inputs}
    front = _sums(dict(fused.read(found)[0].state_dict())) if found.header.get("upstream") else {}
    info.summary(info.info(folder))
    return json.dumps(found.header, sort_keys=True), found.rows.to_pylist(), held, values, front


def checkpoint(path: Path) -> Any:
    """What a checkpoint holds, or None."""
    kept = Keeper(path, threading.Event()).load()
    return None if kept is None else (_sums(kept["tensors"]), kept["facts"])


def pack(folder: Path) -> Any:
    """What the cache gives of a pack; None for a row that must be computed again."""
    found = Cache(folder)
    rows = [found.get(key, b"1" * 8) for key in KEYS]
    return [None if row is None else (sha256_of(row[0]), row[1]) for row in rows]


def targets(work: Path, version: int = 2) -> Iterator[Target]:
    """Copies of the golden files in `work`, and a pack, a checkpoint and predictions beside them."""
    golden = GOLDEN / f"v{version}"
    covered = version > 1
    for path in sorted(golden.glob("*.safetensors")):
        own = Path(shutil.copy(path, work / path.name))
        for mutate in (mutations.of_bytes, mutations.of_tensors):
            yield Target("model", own, lambda own=own: model(own), covered, mutate)
        yield Target("model, sums made right", own, lambda own=own: model(own), False, mutations.resealed_model)
    for name in ("features", "fused"):
        folder = Path(shutil.copytree(golden / name, work / name))
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            inner = path.relative_to(folder).as_posix()
            if inner == "errors.jsonl":
                continue
            mutate = mutations.of_tensors if path.suffix == ".safetensors" else mutations.of_bytes
            for one in {mutations.of_bytes, mutate}:
                kind = inner if path.suffix != ".safetensors" else "shard" if path.name[0].isdigit() else "assets"
                yield Target(kind, path, lambda folder=folder: features(folder),
                             covered or kind == "shard", one)
                if covered:
                    yield Target(f"{kind}, sums made right", path, lambda folder=folder: features(folder), False,
                                 (lambda data, rng: data) if inner == "features.json" else one,
                                 lambda rng, folder=folder, inner=inner: mutations.resealed_features(folder, inner, rng))
    cells = work / "cells"
    Cache(cells).put([(key, b"1" * 8, torch.full((2, 3), float(i))) for i, key in enumerate(KEYS)])
    kept = work / "part-0.safetensors"
    Keeper(kept, threading.Event()).keep({"graph/w": torch.ones(3, 2), "best/w": torch.zeros(3)}, {"steps": 3, "best": 1e9})
    for mutate in (mutations.of_bytes, mutations.of_tensors):
        yield Target("pack", next(cells.iterdir()), lambda: pack(cells), True, mutate)
        yield Target("checkpoint", kept, lambda: checkpoint(kept), True, mutate)
    lines = work / "predictions.jsonl"
    said = {"prediction": "high", "probabilities": {"high": 0.75, "low": 0.25}}
    lines.write_text("".join(json.dumps({"id": str(i), **said}) + "\n" for i in range(3)))
    yield Target("predictions", lines, lambda: read_predictions(lines), False, mutations.of_bytes)
    yield Target("predictions", lines, lambda: read_predictions(lines), False,
                 lambda data, rng: mutations.of_text(mutations.of_tree(json.loads(data.splitlines()[0]), rng), rng))


def gone(value: Any) -> bool:
    """Was it dropped, to be computed again?"""
    return value is None or (isinstance(value, list) and None in value)


def attempt(target: Target, whole: dict[Path, bytes], expected: Any, rng: Random) -> str:
    """Damage a target, open it, put it right; returns what came of it. Raises what escaped."""
    beside = [p for p in (target.path.with_name("features.json"), target.path.parents[1] / "features.json") if p in whole]
    data = target.mutate(whole[target.path], rng)
    try:
        target.path.write_bytes(data)
        if target.reseal is not None:
            target.reseal(rng)
        try:
            found = target.open()
        except MMToolError:
            return "refused"
        if found == expected:
            return "same content"
        if gone(found):
            return "dropped"
        return "other content, with a sum" if target.covered else "other content, without a sum"
    finally:
        for path in {target.path, *(beside if target.reseal else ())}:
            path.write_bytes(whole[path])


def prepared(work: Path, version: int = 2) -> tuple[list[Target], dict[Path, bytes], dict[int, Any]]:
    """The targets, the bytes of every file, and what each target is when it is whole."""
    console.set_quiet(True)
    found = list(targets(work, version))
    whole = {p: p.read_bytes() for p in work.rglob("*") if p.is_file()}
    return found, whole, {number: target.open() for number, target in enumerate(found)}
