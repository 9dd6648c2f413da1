"""Building an encoder from its specification, who it is (identity), and padding prepared cells to a batch."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtool import plugins, specs
from mmtool.api import Encoder
from mmtool.bounded import TooLarge
from mmtool.errors import MMToolError, PluginError, UsageError


@dataclass
class Built:
    """An encoder with the name and options it was built from."""

    name: str
    package: str
    options: dict[str, Any]
    encoder: Encoder

    @property
    def spec(self) -> str:
        """The specification as the command line would write it, options at their defaults left out."""
        defaults = {n: p.default for n, p in specs.signature(type(self.encoder)).items()}
        said = {k: v.name if isinstance(v, Path) else v for k, v in self.options.items() if v != defaults[k]}
        variant = f":{said.pop(first)}" if (first := next(iter(defaults), None)) in said else ""
        return ",".join([self.name + variant, *(f"{k}={v}" for k, v in said.items())])


def build(text: str, *, seed: int = 0, load: bool = True) -> Built:
    """`NAME:VARIANT,key=value` -> an encoder in eval mode, with its pretrained weights unless `load` is False.

    Raises UsageError for bad options and PluginError, with name and distribution, where the plugin itself fails.
    """
    spec = specs.parse(text)
    plugin = plugins.find(spec.name)
    cls = plugins.load(plugin)
    return from_options(plugin, cls, specs.bind(cls, spec), seed=seed, load=load)


def from_options(plugin: plugins.Found, cls: type[Any], options: dict[str, Any], *, seed: int, load: bool) -> Built:
    """The second half of `build`, for options that come from a file's header instead of the command line."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = cls(**options)
            if load:
                encoder.load()
    except (MMToolError, KeyboardInterrupt, TooLarge):
        raise
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(f"encoder {plugin.name!r}: {error}") from error
    except Exception as error:
        raise PluginError(f"encoder {plugin.name!r} of {plugin.package} cannot be built: "
                          f"{type(error).__name__}: {error}") from error
    return Built(plugin.name, plugin.package, options, encoder.eval())


def sha256_of(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def source_sha256(plugin: torch.nn.Module | type) -> str:
    """SHA-256 of the file that holds a plugin's class: an author who edits it must not be served what is cached."""
    try:
        cls = plugin if isinstance(plugin, type) else type(plugin)
        return hashlib.sha256(Path(inspect.getfile(cls)).read_bytes()).hexdigest()
    except (OSError, TypeError):  # made in an interpreter, or frozen
        return ""


def plain_options(options: dict[str, Any]) -> dict[str, Any]:
    """Options as JSON; a path becomes the SHA-256 and base name of its file."""
    plain: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Path):
            with value.open("rb") as f:
                plain[name] = {"file": value.name, "sha256": hashlib.file_digest(f, "sha256").hexdigest()}
        else:
            plain[name] = value
    return plain


def identity(built: Built, plain: dict[str, Any] | None = None) -> dict[str, Any]:
    """What decides whether features and models fit together: name, options, revision, weights and assets.

    `plain`: the options as a header has them, where a file brings the weights that a path option names.
    """
    encoder = built.encoder
    stated = plain_options(built.options) if plain is None else plain
    options = {k: v["sha256"] if isinstance(v, dict) else v for k, v in stated.items()}
    weights = encoder.weights_sha256 or ""
    return {"name": built.name, "options": options, "revision": encoder.revision,
            "weights": sha256_of(dict(encoder.state_dict())) + weights, "assets": sha256_of(encoder.assets())}


def fingerprint(value: Any) -> str:
    """SHA-256 of a JSON value, keys sorted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def pad(prepared: Sequence[Tensor], *, channels_last: bool = False) -> tuple[Tensor, Tensor]:
    """Prepared cells `[L_i, ...]` -> `x [B, L, ...]`, padded with zeros on the first axis, and `lengths [B]`.

    With `channels_last`, pictures `[3, H, W]` of one size make an `x` whose colours lie together in memory.
    """
    lengths = torch.tensor([cell.shape[0] for cell in prepared])  # `len` of a tensor takes four times as long
    if bool((lengths == lengths[0]).all()):
        if channels_last and prepared[0].ndim == 3:
            return torch.stack([cell.permute(1, 2, 0) for cell in prepared]).permute(0, 3, 1, 2), lengths
        return torch.stack([*prepared]).contiguous(), lengths
    x = prepared[0].new_zeros(len(prepared), int(lengths.max()), *prepared[0].shape[1:])
    for i, cell in enumerate(prepared):
        x[i, : len(cell)] = cell
    return x, lengths
