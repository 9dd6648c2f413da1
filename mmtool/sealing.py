"""Our own files carry SHA-256 sums of all that they hold, so that a bit that flipped is named with its place.

A sum says that a file is as it was written. It does not say who wrote it: whoever makes a file can make its sums.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmtool import files
from mmtool.errors import ArtefactError
from mmtool.strictjson import Unsound, strict_json
from mmtool.tensorfile import REMEDY, damaged, open_plain, read

if TYPE_CHECKING:
    from torch import Tensor

KEY = "mmtool"
"""The one metadata key of our safetensors; several would be written in random order."""
SEAL, SUM = "digests", "sha256"


def sha256_of(tensor: Tensor) -> str:
    """Of dtype, shape and bytes."""
    import torch

    plain = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{plain.dtype}\0{tuple(plain.shape)}\0".encode())
    digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def sha256_of_file(path: Path) -> str:
    """Raises OSError, and Unsound for what is no regular file."""
    with open_plain(path) as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def sha256_of_json(value: Any) -> str:
    """Of the value, whatever the order and the blanks of its text."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()


def sealed(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> bytes:
    """A safetensors file whose one metadata key holds `about` as sorted JSON, with a SHA-256 of it and of every tensor."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    told = json.loads(json.dumps(dict(about), allow_nan=False))  # as it will be read
    sums = {name: sha256_of(tensor) for name, tensor in plain.items()}
    seal = {"tensors": sums, "header": sha256_of_json([told, sums])}
    return save(plain, {KEY: json.dumps({**told, SEAL: seal}, sort_keys=True)})


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """An object with its SHA-256."""
    files.write_json(path, {**value, SUM: sha256_of_json(value)})


def read_json(path: Path) -> dict[str, Any] | None:
    """What `write_json` wrote; None where it is not there, or damaged."""
    try:
        found = json.loads(path.read_bytes())
        return found if found.pop(SUM) == sha256_of_json(found) else None
    except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError):
        return None


def about_of(path: Path, metadata: Mapping[str, str], remedy: str) -> dict[str, Any]:
    """What `sealed` was told, with its digests still under `digests`. Raises ArtefactError for what is no JSON object."""
    try:
        about = strict_json(metadata[KEY]) if set(metadata) == {KEY} else None
    except Unsound as error:
        raise damaged(path, f"its metadata is damaged: {error}", remedy) from None
    if not isinstance(about, dict):
        raise ArtefactError(f"{path} is no file of mmtool", remedy, code="E_ARTEFACT_KIND")
    return about


def unseal(path: Path, about: dict[str, Any], names: Iterable[str], remedy: str) -> dict[str, str]:
    """Take the digests out of `about`, check its own; returns that of each tensor. Raises ArtefactError."""
    found = about.pop(SEAL, None)
    tensors = found.get("tensors") if isinstance(found, dict) and set(found) == {"header", "tensors"} else None
    if not isinstance(tensors, dict) or found["header"] != sha256_of_json([about, tensors]):
        raise altered(path, "its header", remedy)
    if odd := sorted(set(tensors) ^ set(names)):
        raise damaged(path, f"it {'lacks' if odd[0] in tensors else 'has an unknown'} tensor {odd[0]!r}", remedy)
    return tensors


def altered(path: Path, what: str, remedy: str) -> ArtefactError:
    """Something is not what was written."""
    return ArtefactError(f"{path}: {what} does not hold what was written (SHA-256)", remedy, code="E_ARTEFACT_DAMAGED")


def verify(path: Path, tensors: Mapping[str, Tensor], digests: Mapping[str, str], remedy: str) -> None:
    """Raises ArtefactError, with its name, for a tensor that is not what was written."""
    for name, tensor in tensors.items():
        if sha256_of(tensor) != digests[name]:
            raise altered(path, f"tensor {name!r}", remedy)


def read_sealed(path: Path, names: Iterable[str] | None = None, remedy: str = REMEDY) \
        -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `sealed` wrote: some or all tensors and `about`, both verified. Raises ArtefactError, StorageError."""
    tensors, found = read(path, names, remedy)
    about = about_of(path, found.metadata, remedy)
    digests = unseal(path, about, found.tensors, remedy)
    verify(path, tensors, digests, remedy)
    return tensors, about
