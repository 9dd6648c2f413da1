"""A network of timm with weights from a file, the classic way to features: nothing of the file's place stays in the model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Pictures whose brightness is the answer, with a text that says nothing."""
    rng = np.random.default_rng(0)
    lines = ["picture,words,answer,split"]
    (tmp_path / "pictures").mkdir()
    for i in range(40):
        bright = i % 2
        Image.fromarray(rng.integers(0, 60, (32, 32, 3), dtype=np.uint8) + np.uint8(150 * bright)).save(
            tmp_path / f"pictures/{i}.png")
        lines.append(f"pictures/{i}.png,words of {i},{'day' if bright else 'night'},{'test' if i % 8 > 5 else 'train'}")
    path = tmp_path / "data.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "secret-place" / "resnet.safetensors"
    path.parent.mkdir()
    save_file(timm.create_model("resnet10t", pretrained=False).state_dict(), path)
    return path


def test_features_of_a_resnet_from_a_file_with_a_text_encoder(mmtool: Callable, tmp_path: Path, data: Path,
                                                              weights: Path) -> None:
    model, told = tmp_path / "m.safetensors", ("-e", f"picture=timm:resnet10t,img_size=32,weights={weights}",
                                               "-e", "words=tiny-letters")
    ran = mmtool("train", data, "-t", "answer", "-o", model, *told)
    assert ran.code == 0, ran.err
    assert b"secret-place" not in model.read_bytes()
    ran = mmtool("eval", model, data, "-o", tmp_path / "r")
    assert ran.code == 2
    assert "give it: --weights picture=FILE" in ran.err
    given = ("--weights", f"picture={weights}")
    ran = mmtool("eval", model, data, "-o", tmp_path / "r", *given)
    assert ran.code == 0, ran.err
    assert json.loads((tmp_path / "r/metrics.json").read_text())["overall"]["accuracy"]["value"] == 1
    ran = mmtool("predict", tmp_path / "pictures/1.png", "-m", model, "--json", *given)
    assert json.loads(ran.out)["prediction"] == "day", ran.err
    assert mmtool("predict", "--text", "words", "-m", model).code == 0  # the picture's weights are not needed for that
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, other)
    ran = mmtool("predict", tmp_path / "pictures/1.png", "-m", model, "--weights", f"picture={other}")
    assert ran.code == 4
    assert "is not the 'resnet.safetensors'" in ran.err
    again = tmp_path / "again.safetensors"
    ran = mmtool("train", data, "--like", model, "-o", again, *given)
    assert ran.code == 0, ran.err
    assert again.read_bytes() == model.read_bytes()


@pytest.mark.parametrize("told", [("--bundle",), ("--finetune", "picture", "--epochs", "1", "--batch-rows", "16")])
def test_a_model_that_holds_the_weights_needs_no_file(mmtool: Callable, tmp_path: Path, data: Path, weights: Path,
                                                      told: tuple[str, ...]) -> None:
    model = tmp_path / "m.safetensors"
    encoder = f"picture=timm:resnet10t,img_size=32,weights={weights}"
    ran = mmtool("train", data, "-t", "answer", "-o", model, "-e", encoder, *told)
    assert ran.code == 0, ran.err
    weights.unlink()
    ran = mmtool("eval", model, data, "-o", tmp_path / "r")
    assert ran.code == 0, ran.err
    ran = mmtool("predict", tmp_path / "pictures/1.png", "-m", model, "--json")
    assert json.loads(ran.out)["inputs"] == ["picture"], ran.err
