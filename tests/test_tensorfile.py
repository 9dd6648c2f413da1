"""The reader in front of safetensors refuses what no honest writer writes, with a fact that a person understands."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file

from mmtool import tensorfile
from mmtool.encoders.weights import read_state
from mmtool.errors import ArtefactError, StorageError

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
DATA = bytes(8)


def raw(header: str | bytes | dict[str, Any], data: bytes = DATA, length: int | None = None) -> bytes:
    text = json.dumps(header).encode() if isinstance(header, dict) else header.encode() if isinstance(header, str) else header
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(**changes: Any) -> dict[str, Any]:
    return {"w": {**ENTRY, **changes}}


def two(first: list[int], second: list[int]) -> dict[str, Any]:
    return {"a": {"dtype": "U8", "shape": [first[1] - first[0]], "data_offsets": first},
            "b": {"dtype": "U8", "shape": [second[1] - second[0]], "data_offsets": second}}


BAD = {
    "empty": (b"", "it is empty"), "seven bytes": (b"1234567", "cut off"), "cut": (raw(entry())[:-3], "cut off"),
    "cut in the header": (raw(entry())[:20], "cut off"),
    "more": (raw(entry()) + b"x", "8 bytes of tensors are stated, 9 are there"),
    "length beyond the file": (raw(entry(), length=1 << 63), "cut off, or no safetensors file"),
    "a huge header": (raw(entry(), length=100_000_001), "cut off, or no safetensors file"),
    "no JSON": (raw("{nothing}"), "no JSON"), "a list": (raw("[]"), "does not begin and end"),
    "leading space": (raw(" " + json.dumps(entry())), "does not begin"),
    "a mark of byte order": (raw("\ufeff" + json.dumps(entry())), "does not begin"),
    "trailing newline": (raw(json.dumps(entry()) + "\n"), "does not begin and end"),
    "bad UTF-8": (raw(b'{"\xff": 1}'), "no UTF-8"), "half a character": (raw('{"\\ud800": 1}'), "half a character"),
    "twice": (raw(f'{{"w": {json.dumps(ENTRY)}, "w": {json.dumps(ENTRY)}}}'), "'w' twice"),
    "twice inside": (raw('{"w": {"dtype": "F32", "dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'), "'dtype' twice"),
    "deep": (raw('{"w": ' + "[" * 100_000 + "]" * 100_000 + "}"), "nested too deeply"),
    "many parts": (raw("{" + '"w":[' + "[]," * 5_000_000 + "[]]}"), "more than 5,000,000 parts"),
    "NaN": (raw('{"w": NaN}'), "NaN"), "Infinity": (raw('{"w": -Infinity}'), "Infinity"),
    "1e999": (raw('{"w": 1e999}'), "1e999"),
    "a number of 5,000 digits": (raw('{"w": ' + "1" * 5000 + "}"), "no JSON"),
    "metadata of numbers": (raw({**entry(), "__metadata__": {"a": 1}}), "__metadata__"),
    "metadata as a tensor": (raw({**entry(), "__metadata__": ENTRY}), "__metadata__"),
    "unknown field": (raw(entry(path="/etc/passwd")), "those alone"), "no shape": (raw({"w": {"dtype": "F32"}}), "those alone"),
    "no entry": (raw({"w": 1}), "those alone"), "unknown dtype": (raw(entry(dtype="F4")), "unknown dtype 'F4'"),
    "dtype is a list": (raw(entry(dtype=["F32"])), "unknown dtype"),
    "negative": (raw(entry(shape=[-2])), "absurd shape"), "float": (raw(entry(shape=[2.0])), "absurd shape"),
    "bool": (raw(entry(shape=[True, 2])), "absurd shape"), "33 dims": (raw(entry(shape=[1] * 32 + [2])), "absurd shape"),
    "overflow to 8": (raw(entry(shape=[1 << 62, 1 << 62, 2])), "absurd shape"),
    "zero of an absurd size": (raw(entry(shape=[0, 1 << 62], data_offsets=[0, 0]), b""), "absurd shape"),
    "offsets backwards": (raw(entry(data_offsets=[8, 0])), "-8 bytes instead of 8"),
    "a negative offset": (raw(entry(data_offsets=[-8, 0])), "no two offsets"),
    "three offsets": (raw(entry(data_offsets=[0, 4, 8])), "no two offsets"),
    "another length": (raw(entry(shape=[3])), "8 bytes instead of 12"),
    "overlap": (raw(two([0, 5], [4, 8])), "overlaps another"),
    "a hole": (raw(two([0, 3], [4, 8])), "follows a hole"), "not from the start": (raw(entry(data_offsets=[4, 12])), "a hole"),
    "beyond the end": (raw(entry(shape=[4], data_offsets=[0, 16])), "16 bytes of tensors are stated, 8 are there"),
    **{f"name {name!r:.12}": (raw({name: ENTRY}), "which no network has") for name in
       ("", "../w", "a/../w", "..", "/w", "a\\w", "a\0w", "a\nw", "\u202ew", "w" * 501)}}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    data, fact = BAD[name]
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    for opener in (tensorfile.layout, tensorfile.read):
        with pytest.raises(ArtefactError) as error:
            opener(path)
        assert fact in error.value.message
        assert error.value.message.startswith(f"{path} cannot be read: it")
        assert error.value.code == "E_ARTEFACT_DAMAGED"
    with pytest.raises(ArtefactError) as error:  # a user's weights, too
        read_state(path)
    assert (error.value.code, fact in error.value.message) == ("E_WEIGHTS", True)


def test_what_is_sound_is_read_as_safetensors_does(tmp_path: Path) -> None:
    tensors = {"a/b": torch.arange(6).reshape(2, 3), "c": torch.tensor(1.5), "none": torch.zeros(0, 4),
               "ok": torch.tensor([True]),
               "half": torch.ones(3).half(), "brain": torch.ones(3).bfloat16(), "small": torch.ones(2).to(torch.float8_e4m3fn),
               "complex": torch.ones(2).to(torch.complex64), "long": torch.ones(1, dtype=torch.uint64)}
    save_file(tensors, tmp_path / "w.safetensors", {"format": "pt"})
    found, layout = tensorfile.read(tmp_path / "w.safetensors")
    assert layout.metadata == {"format": "pt"}
    assert {k: (v.dtype, v.shape) for k, v in found.items()} == {k: (v.dtype, v.shape) for k, v in tensors.items()}
    assert all(torch.equal(found[k].view(torch.uint8) if v.dim() else found[k], v.view(torch.uint8) if v.dim() else v)
               for k, v in tensors.items())
    padded = raw(json.dumps(entry()) + "   ")
    (tmp_path / "padded.safetensors").write_bytes(padded)
    assert torch.equal(tensorfile.read(tmp_path / "padded.safetensors")[0]["w"], torch.zeros(2))
    with pytest.raises(ArtefactError, match="no tensor 'x'"):
        tensorfile.read(tmp_path / "w.safetensors", ("c", "x"))


@pytest.mark.parametrize("opener", [tensorfile.layout, tensorfile.read, read_state])
def test_a_pipe_is_refused_and_not_waited_for(opener: Callable[[Path], object], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.safetensors")
    with pytest.raises(ArtefactError, match="no regular file"):
        opener(tmp_path / "w.safetensors")
    with pytest.raises(ArtefactError, match="no regular file"):
        tensorfile.layout(tmp_path)


def test_a_file_that_is_not_there_and_one_that_shrinks_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError) as error:
        tensorfile.layout(tmp_path / "w.safetensors")
    assert error.value.code == "E_NOT_FOUND"
    path = tmp_path / "w.safetensors"
    path.write_bytes(save({"w": torch.ones(100)}))
    known = tensorfile.layout(path)
    path.write_bytes(path.read_bytes()[:-8])
    monkeypatch.setattr(tensorfile, "layout", lambda *_: known)  # it shrank between the two looks
    with pytest.raises(ArtefactError, match="cannot be read"):
        tensorfile.read(path)


def test_a_file_may_lie_in_a_folder_whose_name_is_no_unicode(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    save_file({"values": torch.arange(3.0)}, tmp_path / "x")
    (tmp_path / "x").rename(folder / "x")
    assert torch.equal(tensorfile.view(folder / "x", ["values"])["values"], torch.arange(3.0))
