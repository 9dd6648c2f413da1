"""Files of pretrained weights: read without running anything in them, and refused by name where they do not fit."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mmtool.api import MMToolError
from mmtool.encoders.weights import fill, read_state


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path(self.target),)  # type: ignore[return-value]

    def __init__(self, target: Path) -> None:
        self.target = str(target)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return dict(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).state_dict())


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors"])
def test_every_kind_of_file_gives_the_same_tensors(tmp_path: Path, state: dict[str, torch.Tensor], suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    read = read_state(path)
    assert sorted(read) == sorted(state) and all(torch.equal(read[n], state[n]) for n in state)


def test_a_checkpoint_gives_its_averaged_weights_without_prefixes(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    averaged = {f"module.{n}": t + 1 if t.is_floating_point() else t for n, t in state.items()}
    torch.save({"epoch": 3, "state_dict": state, "state_dict_ema": averaged}, tmp_path / "c.pth")
    assert torch.equal(read_state(tmp_path / "c.pth")["0.weight"], state["0.weight"] + 1)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path: Path, legacy: bool) -> None:
    target = tmp_path / "it_ran"
    content = {"0.weight": torch.zeros(1), "more": Payload(target)}
    torch.save(content, tmp_path / "evil.pth", _use_new_zipfile_serialization=not legacy)
    (tmp_path / "bare.bin").write_bytes(pickle.dumps(Payload(target)))
    for name in ("evil.pth", "bare.bin"):
        with pytest.raises(MMToolError, match="refused, for it holds other Python objects"):
            read_state(tmp_path / name)
    assert not target.exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert target.exists(), "the payload must be one that would have run"


@pytest.mark.parametrize(("name", "content", "words"), [
    ("absent.pth", None, "no such file"),
    ("cut.pth", b"PK\x03\x04 and then nothing", "cannot be read|refused"),
    ("empty.pth", b"", "cannot be read|refused"),
    ("cut.safetensors", b"\x10\0\0\0\0\0\0\0{", "cannot be read"),
    ("weights.npz", b"", "no known kind"),
])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(MMToolError, match=words) as info:
        read_state(tmp_path / name)
    assert name in str(info.value)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, torch.zeros(2), [torch.zeros(2)]])
def test_a_file_without_names_and_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(MMToolError, match="no names with tensors"):
        read_state(tmp_path / "w.pth")


def test_what_does_not_fit_is_named(state: dict[str, torch.Tensor]) -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    with pytest.raises(MMToolError, match=r"w\.pth: lacks 0\.bias, 0\.weight|w\.pth: lacks 0\.weight, 0\.bias"):
        fill(network, {n: t for n, t in state.items() if n[0] == "1"}, "w.pth")
    with pytest.raises(MMToolError, match=r"has unknown 2\.a, 2\.b, 2\.c and 2 more"):
        fill(network, {**state, **{f"2.{c}": torch.zeros(1) for c in "abcde"}}, "w.pth")
    with pytest.raises(MMToolError, match=r"0\.weight \[5, 5\] instead of \[2, 3\]"):
        fill(network, {**state, "0.weight": torch.zeros(5, 5)}, "w.pth")
    fill(network, {**state, "2.a": torch.zeros(1)}, "w.pth", optional=["2."])
    assert torch.equal(network[0].weight, state["0.weight"])
