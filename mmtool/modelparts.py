"""The tensors of a model file by the part that reads them, and the plugins that its header names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmtool import plugins, specs
from mmtool.strictjson import Unsound


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that beginning."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def plugin_of(kind: str, entry: Mapping[str, Any], *arguments: Any) -> Any:
    """The fusion or task that a header names, with its options, checked against the signature."""
    plugin = plugins.find(entry["name"], kind)
    cls = plugins.load(plugin)
    specs.refuse_paths(cls, plugin.name, entry["options"])
    texts = {k: "none" if v is None else str(v) for k, v in entry["options"].items()}
    options = specs.bind(cls, specs.Spec(plugin.name, None, texts))
    with torch.random.fork_rng(devices=[]):
        return cls(*arguments, **options)


def untie(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """One of each set of tensors that are the same memory, and the name that each of the others goes by."""
    kept: dict[str, Tensor] = {}
    first: dict[Any, str] = {}
    tied = {}
    for name, tensor in tensors.items():
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and place in first:
            tied[name] = first[place]
        else:
            first[place] = name
            kept[name] = tensor.clone()
    return kept, tied


def refuse_unknown(header: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Raises Unsound for a tensor that no part of the model reads."""
    known = ["network/", *(f"task/{number}/" for number in range(len(header["tasks"])))]
    known += [f"{part}/{name}/" for part in ("encoder", "weights") for name in header["inputs"]]
    known += [f"reference/{name}/" for name in header["reference"]] + (["upstream/"] if header["upstream"] else [])
    known += [f"conformal/{number}/" for number in range(len(header["conformal"].get("rows", {})))]
    if strange := sorted(n for n in tensors if n != "trained" and not n.startswith(tuple(known))):
        raise Unsound(f"it has a tensor {strange[0]!r} that no part of the model reads")
