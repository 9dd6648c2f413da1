"""Damage and malice for files of ours: bits, bytes, and headers that are edited by somebody who knows the format."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from random import Random
from typing import Any

from mmtool.features.header import digest_of
from mmtool.sealing import SEAL, sha256_of_file, sha256_of_json

ODD = (None, True, False, 0, 1, -1, 2, 3, 7, 1 << 20, 1 << 31, 1 << 53, 1 << 63, 1 << 64, 10**400, -(1 << 63), 0.5, -0.0, 1e308,
       1e-320, "", "a", "os", "os:system", "../../evil", "/etc/passwd", "C:\\x", "a\0b", "\u202e", "[/x]", "x" * 2000, "none",
       "concat", "cca", "late", "tag", "regress", "tensor", "perceiver", [], {}, [[]], {"a": {}}, [1, 2], ["a"],
       {"file": "../x", "sha256": "0" * 64})
NAMES = ("a", "b", "", "..", "../x", "fused", "__metadata__", "format", "rows", "inputs", "dim", "x" * 600, "\0",
         "number_colour")


def of_bytes(data: bytes, rng: Random) -> bytes:
    """One change that knows nothing of the format."""
    found = bytearray(data)
    size = max(len(found), 1)
    at, run = rng.randrange(size), rng.choice((1, 2, 4, 8, 64))
    kind = rng.randrange(10)
    if kind <= 2 and found:
        for _ in range(1 if kind else rng.randrange(2, 9)):
            found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    elif kind == 3:
        found[at : at + run] = rng.randbytes(run)
    elif kind == 4:
        found[at : at + run] = bytes(run)
    elif kind == 5:
        del found[at:]
    elif kind == 6:
        del found[at : at + run]
    elif kind == 7:
        found[at:at] = rng.randbytes(run)
    elif kind == 8:
        found += rng.randbytes(run)
    else:
        other = rng.randrange(size)
        found[at : at + run], found[other : other + run] = found[other : other + run], found[at : at + run]
    return bytes(found)


def of_tree(value: Any, rng: Random) -> Any:
    """JSON with one to three values or names changed."""
    tree = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        holder, key = _somewhere(tree, rng)
        if holder is None:
            return rng.choice(ODD)
        kind = rng.randrange(8)
        if kind == 0 and isinstance(holder, dict):
            holder[rng.choice(NAMES)] = holder.pop(key)
        elif kind == 1:
            del holder[key]
        elif kind == 2 and isinstance(holder, dict):
            holder[rng.choice(NAMES)] = copy.deepcopy(rng.choice(ODD))
        elif kind == 3 and type(holder[key]) is int:
            holder[key] += rng.choice((-1, 1, 8, 1 << 20, 1 << 40))
        elif kind == 4:
            other, name = _somewhere(tree, rng)
            if other is not None:
                holder[key] = copy.deepcopy(other[name])
        elif kind == 5:
            holder[key] = [holder[key]]
        else:
            holder[key] = copy.deepcopy(rng.choice(ODD))
    return tree


def _somewhere(tree: Any, rng: Random) -> tuple[Any, Any]:
    """A holder and a key in it; deep places as likely as shallow ones."""
    places = []
    level = [tree]
    while level:
        holder = level.pop()
        if isinstance(holder, dict | list) and holder:
            keys = list(holder) if isinstance(holder, dict) else range(len(holder))
            if isinstance(holder, list) and len(holder) > 4:  # long lists of equal things
                keys = (0, len(holder) - 1)
            places += [(holder, key) for key in keys]
            level += [holder[key] for key in keys]
    return rng.choice(places) if places else (None, None)


def of_text(value: Any, rng: Random) -> bytes:
    """JSON text, now and then with what no serializer writes: a name twice, NaN, depth."""
    text = json.dumps(value)
    kind = rng.randrange(12)
    if kind == 0 and text.startswith("{") and len(value):
        name = rng.choice(list(value))
        text = f"{{{json.dumps(name)}: {json.dumps(value[name])}, {text[1:]}"
    elif kind == 1:
        text = text.replace("1", rng.choice(("NaN", "Infinity", "1e999", "01", "1" * 5000)), 1)
    elif kind == 2:
        text = text.replace("{}", "[" * 3000 + "]" * 3000, 1)
    elif kind == 3:
        text = rng.choice((" ", "\ufeff", "\n")) + text
    return text.encode()


def of_tensors(data: bytes, rng: Random) -> bytes:
    """A safetensors file with an edited header, its length right."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    names = [n for n in header if n != "__metadata__"]
    if len(names) > 1 and rng.randrange(4) == 0:
        one, other = rng.sample(names, 2)
        key = rng.choice(("data_offsets", "shape", "dtype"))
        header[one][key], header[other][key] = header[other][key], header[one][key]
        text = of_text(header, rng)
    else:
        text = of_text(of_tree(header, rng), rng)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def resealed_model(data: bytes, rng: Random) -> bytes:
    """A model whose recipe somebody edited who then made the sums right."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    about = json.loads(header["__metadata__"]["mmtool"])
    seal = about.pop(SEAL, None)
    about = of_tree(about, rng)
    if isinstance(about, dict) and seal is not None:
        about[SEAL] = {"tensors": seal["tensors"], "header": sha256_of_json([about, seal["tensors"]])}
    header["__metadata__"]["mmtool"] = of_text(about, rng).decode()
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def resealed_features(folder: Path, name: str, rng: Random) -> None:
    """A features folder in which somebody edited the header, or replaced a file, and then made the sums right."""
    path = folder / "features.json"
    header = json.loads(path.read_bytes())
    if name == "features.json":
        header = of_tree(header, rng)
    else:
        own, file = name.split("/") if "/" in name else ("", name)
        if own and file[0].isdigit():
            header["shards"][int(file.split(".")[0])]["sha256"][own] = sha256_of_file(folder / name)
        else:
            header["files"][name] = sha256_of_file(folder / name)
    if isinstance(header, dict):
        header["digest"] = digest_of(header)
    path.write_bytes(of_text(header, rng) if name == "features.json" else json.dumps(header).encode())
