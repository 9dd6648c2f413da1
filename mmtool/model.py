"""A trained model in one safetensors file, whose single metadata key holds the whole recipe as sorted JSON.

Tensors: `network/...` (scales, fusion, dense layers, heads), `task/NUMBER/...` (classes, scales of targets, by the order of the
columns), `encoder/INPUT/...` (what encoders learned in `fit`), `weights/INPUT/...` (of encoders that training changed, or that
were bundled), `upstream/...` (of the fusion that made the features it was trained on), `conformal/NUMBER/SUBSET` (ascending
nonconformity scores of calibration rows), `reference/INPUT/...` (what features are compared with), `trained` (64-bit hashes of
the rows that took part in training or calibration, `[N, 8]`). Of tensors that share memory one is kept; the header's `tied`
names the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mmtool import files, modelfile, sealing, tensorfile
from mmtool.api import Task, Tokens
from mmtool.bounded import bounded, check_finite, fill
from mmtool.conformal import scores_of
from mmtool.doubt import Doubt
from mmtool.errors import ArtefactError, MMToolError, UsageError, storage_error
from mmtool.extraction.sources import Headers
from mmtool.modelfile import FORMAT, TRAIN, is_model, read_header
from mmtool.modelparts import plugin_of, refuse_unknown, under, untie
from mmtool.network import Front, Network, key_of
from mmtool.reference import Reference, references_of
from mmtool.strictjson import Unsound
from mmtool.training.measure import divisors, used_in

__all__ = ["FORMAT", "Model", "is_model", "load", "plugin_of", "read_header", "under"]
EMPTY: dict[str, Any] = {"prediction": None, "probability": None, "probabilities": {}}


@dataclass
class Model:
    """Header, network, the encoders' fitted assets, and their weights where the file brings them."""

    header: dict[str, Any]
    network: Network
    assets: dict[str, dict[str, Tensor]]
    trained: Tensor
    weights: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    upstream: Front | None = None
    """Makes the network's one input, `fused`, of the model's inputs, where it was trained on fused features."""
    conformal: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """For each target column and subset of inputs the scores of the calibration rows, ascending, float64."""
    references: dict[str, Reference] = field(default_factory=dict)
    """For each input of the network what its features are compared with."""
    doubt: Doubt | None = None
    """What predictions tell besides; see `doubt.ask`."""

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs, sorted."""
        return sorted(self.header["inputs"])

    @property
    def columns(self) -> list[str]:
        """The target columns, sorted."""
        return self.network.columns

    @property
    def tasks(self) -> dict[str, Task]:
        """The fitted task of each target column."""
        return {head.column: head.task for head in self.network.heads()}

    @property
    def takes(self) -> Literal["pooled", "tokens"]:
        """What the fusion that is nearest to the inputs takes of them."""
        front = self.network.front if self.upstream is None else self.upstream
        return front.fusion.takes

    def headers(self, names: Sequence[str], origin: str) -> Headers:
        """Some of the inputs, as `extract` can build them."""
        return Headers(origin, {n: self.header["inputs"][n] for n in names}, self.assets, self.weights)

    def predict(self, inputs: Mapping[str, Tokens], used: Sequence[Sequence[str]] | None = None) -> list[dict[str, Any]]:
        """Tokens `[B, T, D]` of some or all inputs -> each row's prediction and `inputs`; None where it has no input.

        Of a model that was trained on fused features, `fused` alone may be given, with the inputs that were `used` for it.
        With several targets the predictions are below `targets`.
        """
        found = self.predictions(inputs, used)
        if len(found) == 1:
            return next(iter(found.values()))
        rows = zip(*found.values(), strict=True)
        return [{"targets": {c: {k: v for k, v in p.items() if k != "inputs"} for c, p in zip(found, row, strict=True)},
                 "inputs": row[0]["inputs"]} for row in rows]

    def predictions(self, inputs: Mapping[str, Tokens],
                    used: Sequence[Sequence[str]] | None = None) -> dict[str, list[dict[str, Any]]]:
        """The same for each target column."""
        outputs, used = self.outputs(inputs, used)
        out = {}
        for column, task in self.tasks.items():
            found = task.decode(outputs[column])
            if self.doubt is not None:
                self.doubt.add(task, self.conformal.get(column, {}), outputs[column], used, found)
            out[column] = [{**(p if used[i] else EMPTY), "inputs": list(used[i])} for i, p in enumerate(found)]
        return out

    def outputs(self, inputs: Mapping[str, Tokens],
                used: Sequence[Sequence[str]] | None = None) -> tuple[dict[str, Tensor], Sequence[Sequence[str]]]:
        """Each target's outputs `[B, K]`, divided by the temperature of each row's inputs, and those inputs."""
        seen, used = self._seen(inputs, used)
        with torch.no_grad():
            return {head.column: head(seen).double() / divisors(used, self.inputs, self.header["temperatures"][head.column])
                    for head in self.network.heads()}, used

    def unlike(self, inputs: Mapping[str, Tokens], used: Sequence[Sequence[str]] | None = None) -> list[dict[str, float]]:
        """For each row and each input of the network that it has: the share of held-out rows as far from the training rows."""
        seen, _ = self._seen(inputs, used)
        out: list[dict[str, float]] = [{} for _ in next(iter(seen.values())).mask]
        for name, reference in sorted(self.references.items()):
            there = seen[name].present.nonzero().flatten()
            for row, p in zip(there.tolist(), reference.p_values(seen[name].mean()[there]).tolist(), strict=True):
                out[row][name] = round(p, 6)
        return out

    def _seen(self, inputs: Mapping[str, Tokens],
              used: Sequence[Sequence[str]] | None) -> tuple[dict[str, Tokens], Sequence[Sequence[str]]]:
        """What the network gets, and the inputs that each row has."""
        if used is not None:
            return dict(inputs), used
        rows = len(next(iter(inputs.values())).mask)
        seen = {name: inputs[name] if name in inputs else self._missing(name, rows) for name in self.inputs}
        with torch.no_grad():
            return seen if self.upstream is None else self.upstream(seen), used_in(seen)

    def metrics(self, column: str) -> dict[str, Any]:
        """The table of metrics of one target."""
        table: dict[str, Any] = self.header["metrics"]
        return table if len(self.columns) == 1 else {part: found[column] for part, found in table.items()
                                                     if isinstance(found, dict)}

    def measured(self, column: str, used: Sequence[str]) -> tuple[str, dict[str, float]] | None:
        """The main metric and its value and interval for these inputs, on rows that did not train the model."""
        if self.header["data"].get("upstream_learned"):  # by rows that a part of the model knows
            return None
        name = self.tasks[column].main_metric
        found = self.metrics(column)["by_inputs"].get(key_of(used), {}).get(name)
        return None if found is None else (name, found)

    def _missing(self, name: str, rows: int) -> Tokens:
        return Tokens(torch.zeros(rows, 1, self.header["inputs"][name]["dim"]), torch.zeros(rows, 1, dtype=torch.bool))

    def save(self, path: Path) -> None:
        """Write the file; equal models give equal bytes. Raises MMToolError where it cannot."""
        tensors = {f"network/{k}": v for k, v in self.network.state_dict().items()}
        for number, task in enumerate(self.tasks.values()):
            tensors |= {f"task/{number}/{k}": v for k, v in task.assets().items()}
        tensors |= {f"encoder/{name}/{k}": v for name, kept in self.assets.items() for k, v in kept.items()}
        tensors |= {f"weights/{name}/{k}": v for name, kept in self.weights.items() for k, v in kept.items()}
        if self.upstream is not None:
            tensors |= {f"upstream/{k}": v for k, v in self.upstream.state_dict().items()}
        for number, scores in enumerate(self.conformal.values()):
            tensors |= {f"conformal/{number}/{key}": v for key, v in scores.items()}
        for name, reference in self.references.items():
            tensors |= {f"reference/{name}/{k}": v for k, v in reference.tensors().items()}
        tensors["trained"] = self.trained
        kept, self.header["tied"] = untie({k: v.detach().cpu() for k, v in sorted(tensors.items())})
        try:
            files.write_bytes(path, sealing.sealed(kept, self.header))
        except OSError as error:
            raise storage_error(error, "the model cannot be written") from error


def load(path: Path) -> Model:
    """A model file -> Model, all of it verified. Imports only the installed fusions and tasks that carry the stated names."""
    opened = modelfile.open_model(path)
    tensors, _ = tensorfile.read(path, remedy=TRAIN)
    if opened.digests is not None:
        sealing.verify(path, tensors, opened.digests, TRAIN)
    header = opened.header
    tensors |= {other: tensors[name] for other, name in header["tied"].items()}
    try:
        return _build(header, tensors)
    except Unsound as error:
        raise tensorfile.damaged(path, str(error), TRAIN) from None
    except UsageError as error:  # of options that the header states
        raise ArtefactError(f"{path}: {error.message}", "train again, or install the versions that `mmtool info` shows",
                            code="E_ARTEFACT_MISMATCH") from error
    except MMToolError:
        raise
    except Exception as error:  # a plugin that gets what it never wrote can raise anything
        raise ArtefactError(f"{path} does not hold what its header says ({type(error).__name__}: {str(error)[:300]})",
                            "train again, or install the versions that `mmtool info` shows",
                            code="E_ARTEFACT_DAMAGED") from error


def _build(header: dict[str, Any], tensors: dict[str, Tensor]) -> Model:
    dims = {name: entry["dim"] for name, entry in header["inputs"].items()}
    upstream = None
    with bounded(tensors):
        if header["upstream"]:
            upstream = Front(dims, plugin_of("fusion", header["upstream"]["fusion"], dims))
            dims = {"fused": upstream.fusion.dim}
        tasks = {}
        for number, column in enumerate(sorted(header["tasks"])):
            tasks[column] = plugin_of("task", header["tasks"][column])
            tasks[column].set_assets(under(f"task/{number}/", tensors))
        network = Network(Front(dims, plugin_of("fusion", header["fusion"], dims)), tasks, header["hidden"])
    if upstream is not None:
        fill(upstream, under("upstream/", tensors), "upstream/")
    fill(network, under("network/", tensors), "network/")
    names = sorted(header["inputs"])
    weights = {n: found for n in names if (found := under(f"weights/{n}/", tensors))}
    for name, state in weights.items():
        check_finite(state, f"weights/{name}/", masks=True)
    scores, references = scores_of(header, tensors), references_of(header, tensors, dims)
    trained = tensors.get("trained")
    if trained is None or trained.dtype != torch.uint8 or trained.dim() != 2 or trained.shape[1] != 8:
        raise Unsound("its tensor 'trained' does not hold rows of 8 bytes")
    refuse_unknown(header, tensors)
    return Model(header, network.eval(), {n: under(f"encoder/{n}/", tensors) for n in names}, trained, weights,
                 None if upstream is None else upstream.eval(), scores, references)
