"""What is installed can be built within the memory that its own file allows."""

from __future__ import annotations

import pytest
import torch

from mmtool import plugins, specs
from mmtool.bounded import bounded
from mmtool.encoding import build, from_options
from mmtool.strictjson import Unsound

ENCODERS = ["image-cnn", "text-rnn", "text-transformer", "audio-cnn", "audio-rnn", "timm:resnet10t",
            "timm:vit_tiny_patch16_224", "spectral", "table", "sentencepiece"]


@pytest.mark.parametrize("text", ENCODERS)
def test_an_encoder_with_its_own_weights(text: str) -> None:
    plugin, state = plugins.find(specs.parse(text).name), build(text, load=False).encoder.state_dict()
    cls = plugins.load(plugin)
    with bounded(state):
        made = from_options(plugin, cls, specs.bind(cls, specs.parse(text)), seed=0, load=False).encoder
    assert made.state_dict().keys() == state.keys()


@pytest.mark.parametrize("name", [p.name for p in plugins.found() if p.kind == "fusion" and p.distribution == "mmtool"])
def test_a_fusion_with_its_own_weights(name: str) -> None:
    dims = {"a": 64, "b": 64, "c": 64}
    cls = plugins.load(plugins.find(name, "fusion"))
    state = cls(dims).state_dict()
    with bounded(state):
        made = cls(dims)
    assert made.state_dict().keys() == state.keys()


@pytest.mark.parametrize("make", [
    lambda: torch.zeros(1 << 16, 1 << 16), lambda: torch.arange(1 << 34), lambda: torch.eye(1 << 16),
    lambda: torch.linspace(0, 1, 1 << 33), lambda: torch.ones(1).repeat(1 << 34)])
def test_what_a_small_file_does_not_explain_is_refused_before_it_is_made(make: object) -> None:
    with pytest.raises(Unsound, match="far larger than the file"), bounded({"w": torch.zeros(8)}):
        make()


def test_numbers_that_are_no_sizes_cost_nothing() -> None:
    with bounded({}):
        torch.randint(1 << 40, ())
        torch.full((3,), 1 << 40)
