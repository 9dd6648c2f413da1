"""A trained model in one safetensors file, whose single metadata key holds the whole recipe as sorted JSON.

Tensors: `network/...` (scales, fusion, heads), `task/...` (classes, scales of targets), `encoder/INPUT/...` (what encoders
learned in `fit`), `trained` (64-bit hashes of the rows that took part in training, `[N, 8]`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mmtool import files, plugins, specs
from mmtool.api import Task, Tokens
from mmtool.errors import MMToolError
from mmtool.network import Network, key_of
from mmtool.training.data import Data
from mmtool.training.measure import divisors_of

FORMAT = 1
KEYS = {"format": int, "inputs": dict, "fusion": dict, "task": dict, "recipe": dict, "data": dict, "metrics": dict,
        "temperatures": dict, "versions": dict}
INPUT_KEYS = {"columns": list, "modality": str, "encoder": str, "package": str, "options": dict, "identity": dict,
              "pooled": bool, "dim": int, "dtype": str, "limits": dict, "fitted": bool}
MOST_DIMS = 1 << 20


@dataclass
class Model:
    """Header, network, and the encoders' fitted assets."""

    header: dict[str, Any]
    network: Network
    assets: dict[str, dict[str, Tensor]]
    trained: Tensor

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs, sorted."""
        return sorted(self.header["inputs"])

    @property
    def task(self) -> Task:
        """The fitted task."""
        return self.network.task

    def predict(self, inputs: Mapping[str, Tokens]) -> list[dict[str, Any]]:
        """Tokens `[B, 1, D]` of some or all inputs -> each row's prediction and `inputs`; None where it has no input."""
        rows = len(next(iter(inputs.values())).mask)
        whole = {name: inputs[name] if name in inputs else self._missing(name, rows) for name in self.inputs}
        data = Data(whole, torch.zeros(rows, 1), torch.ones(rows))
        with torch.no_grad():
            outputs = self.network(whole).double() / divisors_of(data, self.inputs, self.header["temperatures"])
        out = []
        for i, prediction in enumerate(self.task.decode(outputs)):
            used = [name for name in self.inputs if bool(whole[name].present[i])]
            empty: dict[str, Any] = {"prediction": None, "probability": None, "probabilities": {}}
            out.append({**(prediction if used else empty), "inputs": used})
        return out

    def measured(self, used: Sequence[str]) -> tuple[str, dict[str, float]] | None:
        """The main metric and its value and interval for these inputs, on rows that did not train the model."""
        name = self.task.main_metric
        found = self.header["metrics"]["by_inputs"].get(key_of(used), {}).get(name)
        return None if found is None else (name, found)

    def _missing(self, name: str, rows: int) -> Tokens:
        return Tokens(torch.zeros(rows, 1, self.header["inputs"][name]["dim"]), torch.zeros(rows, 1, dtype=torch.bool))

    def save(self, path: Path) -> None:
        """Write the file; equal models give equal bytes. Raises MMToolError where it cannot."""
        tensors = {f"network/{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"task/{k}": v for k, v in self.task.assets().items()}
        tensors |= {f"encoder/{name}/{k}": v for name, kept in self.assets.items() for k, v in kept.items()}
        tensors["trained"] = self.trained
        data = save({k: v.detach().cpu().contiguous() for k, v in sorted(tensors.items())},
                    {"mmtool": json.dumps(self.header, sort_keys=True, allow_nan=False)})
        try:
            files.write_bytes(path, data)
        except OSError as error:
            raise MMToolError(f"{path} cannot be written: {error.strerror}", "choose another -o") from error


def is_model(path: Path) -> bool:
    """Does the name say so?"""
    return path.suffix.lower() == ".safetensors"


def read_header(path: Path) -> dict[str, Any]:
    """The header of a model file, checked. Raises MMToolError for another file, a newer format or a damaged header."""
    try:
        with safe_open(path, framework="pt") as f:
            text = (f.metadata() or {}).get("mmtool")
        header = json.loads(text) if text is not None else None
    except FileNotFoundError:
        raise MMToolError(f"{path} does not exist", "make one with `mmtool train`") from None
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise MMToolError(f"{path} cannot be read ({error})", "train again, or copy the file again") from error
    if not isinstance(header, dict):
        raise MMToolError(f"{path} is no model of mmtool", "make one with `mmtool train`")
    if header.get("format") != FORMAT:
        raise MMToolError(f"{path} has format {header.get('format')!r}, this mmtool reads {FORMAT}", "upgrade mmtool")
    _check(path, header, KEYS, "the header")
    for name, entry in header["inputs"].items():
        _check(path, entry, INPUT_KEYS, f"input {name!r}")
        if not 0 < entry["dim"] <= MOST_DIMS:
            raise MMToolError(f"{path}: input {name!r} states a width of {entry['dim']}", "train again")
    return header


def _check(path: Path, value: Any, keys: Mapping[str, type], what: str) -> None:
    wrong = "is no object" if not isinstance(value, dict) else next(
        (f"lacks {k!r}" if k not in value else f"has a {k!r} that is no {t.__name__}" for k, t in keys.items()
         if type(value.get(k)) is not t), next((f"has an unknown key {k!r}" for k in sorted(set(value) - set(keys))), ""))
    if wrong:
        raise MMToolError(f"{path}: {what} {wrong}", "train again with this version of mmtool")


def load(path: Path) -> Model:
    """A model file -> Model. Imports nothing but the installed fusion and task that carry the stated names."""
    header = read_header(path)
    dims = {name: entry["dim"] for name, entry in header["inputs"].items()}
    try:
        with safe_open(path, framework="pt") as f:
            tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118  no mapping
        fusion = _plugin("fusion", header["fusion"], dims)
        task = _plugin("task", header["task"])
        task.set_assets(_under("task/", tensors))
        network = Network(dims, fusion, task)
        network.load_state_dict(_under("network/", tensors))
        assets = {name: _under(f"encoder/{name}/", tensors) for name in dims}
        return Model(header, network.eval(), assets, tensors["trained"])
    except (KeyError, RuntimeError, ValueError, TypeError, AttributeError, SafetensorError) as error:
        raise MMToolError(f"{path} does not hold what its header says ({type(error).__name__}: {str(error)[:300]})",
                          "train again, or install the versions that `mmtool info` shows") from error


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _plugin(kind: str, entry: Mapping[str, Any], *arguments: Any) -> Any:
    plugin = plugins.find(entry["name"], kind)
    cls = plugins.load(plugin)
    texts = {k: "none" if v is None else str(v) for k, v in entry["options"].items()}
    options = specs.bind(cls, specs.Spec(plugin.name, None, texts))  # checks names and types against the signature
    with torch.random.fork_rng(devices=[]):
        return cls(*arguments, **options)
