"""`mmtool fuse`: features of several inputs -> features of one, `fused`, which remember how they were made.

`fused/front.safetensors` holds the fusion (`front/...`) and what the upstream encoders learned (`encoder/INPUT/...`,
`weights/INPUT/...`), so that a model trained on fused features still predicts from raw cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtool import console, encoding, files, folders, plugins, specs
from mmtool.bounded import bounded, fill
from mmtool.errors import ArtefactError, DataError, UsageError
from mmtool.extraction.folder import Partial
from mmtool.features.format import ERRORS, FORMAT, FRONT, ROWS, check_target, shard_name, status_column, write_shard
from mmtool.features.header import AGAIN, seal
from mmtool.features.reader import Features
from mmtool.locks import locked
from mmtool.matching import check_features
from mmtool.model import load, plugin_of, under
from mmtool.network import Front, key_of
from mmtool.opening import Opened
from mmtool.strictjson import Unsound
from mmtool.tensorfile import damaged
from mmtool.training import splits
from mmtool.training.data import inputs_of
from mmtool.training.solve import one_thread

CHUNK = 4096


def fuse(folder: Path, output: Path, fusion: str | None, model: Path | None) -> Path:
    """Fuse every row of a features folder. Raises MMToolError for a learned fusion without the model that learned it.

    A fusion that learns without labels learns from the rows whose split is train, or from all where no column says.
    """
    if (fusion is None) == (model is None):
        raise UsageError("fuse takes a fusion or a model", "give -f FUSION, or -m MODEL")
    check_target(output)
    if folder.resolve() in (output.resolve(), *output.resolve().parents):
        raise UsageError(f"-o {output} is the folder that is fused, or lies in it", "choose another -o")
    with locked(output), one_thread():
        return _fuse(folder, output, fusion, model)


def _fuse(folder: Path, output: Path, fusion: str | None, model: Path | None) -> Path:
    features = Features(folder)
    if features.header.get("upstream"):
        raise UsageError(f"{folder} is fused already", "fuse the features that it was made from")
    front, entry = _of_model(model, features) if model is not None else _of_name(str(fusion), features)
    needs_fit = model is None and front.fusion.needs_fit()
    if front.fusion.returns != "pooled":
        raise UsageError(f"fusion {entry['name']!r} returns {front.fusion.returns}, not one vector a row",
                         "choose another; `train` can use this one")
    if needs_fit:
        rows = _training_rows(features, entry["name"])
        front.fit(inputs_of(features, front.names, rows, front.fusion.takes))
    _write(features, output, front.eval(), entry)
    return output


def _of_name(text: str, features: Features) -> tuple[Front, dict[str, Any]]:
    spec = specs.parse(text)
    plugin = plugins.find(spec.name, "fusion")
    cls = plugins.load(plugin)
    options = specs.bind(cls, spec)
    dims = {n: features.header["inputs"][n]["dim"] for n in features.inputs}
    front = Front(dims, cls(dims, **options))
    if learned := [n for n, _ in front.fusion.named_parameters()]:
        raise DataError(f"fusion {text!r} has weights ({learned[0]}, ...) that only training can give it",
                        "train a model with it and give that: -m MODEL; or use one without weights, such as concat",
                        code="E_RANDOM_WEIGHTS")
    return front, {"name": plugin.name, "options": options, "package": plugin.package}


def _training_rows(features: Features, fusion: str) -> Sequence[int]:
    """The rows that a fusion learns from. Raises MMToolError where a column `split` leaves none."""
    if "split" not in features.header["columns"]:
        console.say(f"no column 'split': {fusion} learns from all {len(features)} rows, without labels")
        return range(len(features))
    rows = splits.read(features.rows["split"].to_pylist(), range(len(features)), need_train=False).train
    if not rows:
        raise DataError(f"{features.folder}: no row has split train, and {fusion} learns from those", "mark some as train",
                        code="E_SPLIT")
    console.say(f"{fusion} learns from the {len(rows)} rows with split train, without labels")
    return rows


def _of_model(path: Path, features: Features) -> tuple[Front, dict[str, Any]]:
    model = load(path)
    if model.upstream is not None:
        raise UsageError(f"{path} was trained on fused features", "give a model that was trained on inputs")
    if absent := [n for n in model.inputs if n not in features.inputs]:
        raise ArtefactError(f"{features.folder} has no input {absent[0]!r}, which the fusion of {path} takes",
                            "extract it, too", code="E_ARTEFACT_MISMATCH")
    if unused := [n for n in features.inputs if n not in model.inputs]:
        console.warn(f"{', '.join(unused)} of {features.folder} is not fused: {path} does not know it")
    check_features(model, features, model.inputs)
    plugin = plugins.find(model.header["fusion"]["name"], "fusion")
    return model.network.front, {**model.header["fusion"], "package": plugin.package}


def _write(features: Features, output: Path, front: Front, entry: dict[str, Any]) -> None:
    partial = Partial(output, pooled=True)
    entries = {n: features.header["inputs"][n] for n in front.names}
    kept = {f"front/{k}": v for k, v in front.state_dict().items()}
    for name in front.names:
        kept |= {f"encoder/{name}/{k}": v for k, v in features.assets(name).items()}
        kept |= {f"weights/{name}/{k}": v for k, v in features.weights(name).items()}
    identity = {"name": entry["name"], "options": entry["options"], "weights": encoding.sha256_of(dict(front.state_dict())),
                "assets": encoding.fingerprint({n: e["identity"] for n, e in entries.items()}), "revision": 1}
    fused = {"columns": [c for e in entries.values() for c in e["columns"]], "modality": "fused", "encoder": entry["name"],
             "package": entry["package"], "options": entry["options"], "identity": identity, "pooled": True,
             "dim": front.fusion.dim, "dtype": "float32", "limits": {}, "fitted": False}
    header = {**features.header, "format": FORMAT, "inputs": {"fused": fused},
              "upstream": {"inputs": entries, "front": {"fusion": {k: entry[k] for k in ("name", "options")},
                                                        "identity": identity}}}
    partial.begin({"plan": encoding.fingerprint([header, "fuse"])})
    folders.make_folder(partial.folder / "fused")
    header["shards"] = _shards(features, front, partial.folder / "fused")
    files.write_tensors(partial.folder / "fused" / FRONT, kept)
    for name in (ROWS, ERRORS):
        files.copy(features.folder / name, partial.folder / name)
    seal(partial.folder, header)
    partial.place(header)


def _shards(features: Features, front: Front, folder: Path) -> list[dict[str, Any]]:
    shards, start = [], 0
    with console.progress("fuse", len(features)) as advance, torch.no_grad():
        for number, shard in enumerate(features.header["shards"]):
            rows: list[Tensor | None] = []
            for at in range(start, start + shard["rows"], CHUNK):
                some = range(at, min(at + CHUNK, start + shard["rows"]))
                tokens = front(inputs_of(features, front.names, some, front.fusion.takes))["fused"]
                rows += [row if len(row) else None for row in tokens.rows()]
                advance(len(some))
            start += shard["rows"]
            sha256 = write_shard(folder / shard_name(number), rows, torch.float32)
            shards.append({"rows": shard["rows"], "sha256": {"fused": sha256}})
    return shards


def read(features: Features) -> tuple[Front, dict[str, dict[str, Any]]]:
    """How fused features were made: the front, and the entries of the upstream inputs as a model's header has them."""
    upstream = features.header["upstream"]
    entries = {n: {**e, "weights": "package"} for n, e in upstream["inputs"].items()}
    dims = {n: e["dim"] for n, e in entries.items()}
    kept, path = features.front(), features.folder / "fused" / FRONT
    try:
        with bounded(kept):
            front = Front(dims, plugin_of("fusion", upstream["front"]["fusion"], dims))
        fill(front, under("front/", kept), "front/")
    except Unsound as error:
        raise damaged(path, str(error), AGAIN) from None
    except UsageError as error:  # of options that the header states
        raise ArtefactError(f"{features.folder}: {error.message}", AGAIN, code="E_ARTEFACT_MISMATCH") from error
    return front.eval(), entries


def learned(front: Front | None, brought: Mapping[str, object]) -> bool:
    """Did weights that a model `brought`, or a front that learned something, make the features?

    The rows that these learned from look other than new ones.
    """
    return bool(brought) or (front is not None and (front.fusion.needs_fit() or any(True for _ in front.parameters())))


def front_entry(features: Features) -> dict[str, Any]:
    """What a model's header says of the fusion of its features."""
    found: dict[str, Any] = features.header["upstream"]["front"]
    return found


def tensors(features: Features, names: Sequence[str]) -> tuple[dict[str, dict[str, Tensor]], dict[str, dict[str, Tensor]]]:
    """What the encoders of some inputs learned in `fit`, and the weights that a model brought, of plain or fused features."""
    if features.header.get("upstream"):
        kept = features.front()
        assets = {n: under(f"encoder/{n}/", kept) for n in names}
        return assets, {n: found for n in names if (found := under(f"weights/{n}/", kept))}
    return {n: features.assets(n) for n in names}, {n: found for n in names if (found := features.weights(n))}


def used_inputs(opened: Opened | Features, rows: Sequence[int]) -> list[list[str]]:
    """Which upstream inputs each of some rows of fused features had."""
    features = opened.features if isinstance(opened, Opened) else opened
    assert features is not None
    names = sorted(features.header["upstream"]["inputs"])
    statuses = {n: features.rows[status_column(n)].to_pylist() for n in names}
    return [[n for n in names if statuses[n][r] == "ok"] for r in rows]


def patterns(opened: Opened, rows: Sequence[int]) -> list[str]:
    """The same as keys of tables."""
    return [key_of(used) for used in used_inputs(opened, rows)]
