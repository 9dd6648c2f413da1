"""What the learned fusions are for: what a linear head on inputs side by side cannot tell, and inputs that may be missing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmtool import plugins, specs
from mmtool.api import Tokens
from mmtool.network import Front, Head, Network, only
from mmtool.tasks.classify import Classify
from mmtool.training.descend import drop_inputs

BY_TOKENS = ("transformer:16,heads=2,ff=32", "transformer:16,heads=2,ff=32,experts=true", "mult:16,heads=2,ff=32",
             "bottleneck:16,heads=2,ff=32", "perceiver:16,heads=2,ff=32,latents=4")
LEARNED = ("film", "film:a", "lmf", "tensor", "mfb", "mutan", "moe", "deepset", *BY_TOKENS)
Inputs = dict[str, Tokens]


def trained(spec: str, inputs: Inputs, y: Tensor, *, steps: int, lr: float = 0.01, dropped: float = 0.0) -> Head:
    """A fusion with a linear head after full-batch steps of AdamW."""
    torch.manual_seed(0)
    parsed = specs.parse(spec)
    cls = plugins.load(plugins.find(parsed.name, "fusion"))
    dims = {name: t.values.shape[2] for name, t in inputs.items()}
    task = Classify()
    task.fit(["0", "1"])
    network = Network(Front(dims, cls(dims, **specs.bind(cls, parsed))), {"y": task})
    network.front.fit_scales(inputs)
    optimizer, chance = torch.optim.AdamW(network.parameters(), lr, weight_decay=0.01), torch.Generator().manual_seed(0)
    for _ in range(steps):
        seen = drop_inputs(inputs, dropped, chance)
        task.loss(Head(network, "y")(seen), y.unsqueeze(1), torch.ones(len(y))).mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    network.eval()
    return Head(network, "y")


def accuracy(head: Head, inputs: Inputs, y: Tensor) -> float:
    with torch.no_grad():
        return float((head(inputs).argmax(1) == y).float().mean())


def xor(rows: int, seed: int) -> tuple[Inputs, Tensor]:
    """Two inputs, each with a sign among noise; y is whether the signs differ."""
    g = torch.Generator().manual_seed(seed)
    a, b = torch.randn(rows, 4, generator=g), torch.randn(rows, 3, generator=g)
    signs = torch.randint(0, 2, (2, rows), generator=g)
    a[:, 0] += 6 * signs[0] - 3
    b[:, 0] += 6 * signs[1] - 3
    return {"a": Tokens.pooled(a), "b": Tokens.pooled(b)}, (signs[0] != signs[1]).long()


def test_concat_with_a_linear_head_cannot_tell_whether_signs_differ() -> None:
    head = trained("concat", *xor(256, 0), steps=150)
    assert accuracy(head, *xor(256, 1)) < 0.65


@pytest.mark.parametrize("spec", LEARNED)
def test_a_fusion_learns_whether_signs_differ(spec: str) -> None:
    head = trained(spec, *xor(256, 0), steps=100, lr=5e-3)
    assert accuracy(head, *xor(256, 1)) > 0.9


def lookup(rows: int, seed: int) -> tuple[Inputs, Tensor]:
    """`a` has tokens (key, value), in any order, and `b` names one key; y is its value. Means over tokens do not tell."""
    g = torch.Generator().manual_seed(seed)
    values, wanted = torch.randint(0, 2, (2, rows), generator=g), torch.randint(0, 2, (rows,), generator=g)
    tokens = torch.stack([torch.stack([torch.full((rows,), 4.0 * k - 2), 4.0 * values[k] - 2], 1) for k in (0, 1)], 1)
    turned = torch.rand(rows, generator=g) < 0.5
    tokens = torch.where(turned.view(-1, 1, 1), tokens.flip(1), tokens) + 0.3 * torch.randn(rows, 2, 2, generator=g)
    b = torch.stack([4.0 * wanted - 2, torch.randn(rows, generator=g)], 1)
    a = Tokens(tokens, torch.ones(rows, 2, dtype=torch.bool))
    return {"a": a, "b": Tokens.pooled(b)}, values[wanted, torch.arange(rows)]


@pytest.mark.parametrize("spec", BY_TOKENS)
def test_attention_looks_up_in_one_input_what_another_asks_for(spec: str) -> None:
    head = trained(spec, *lookup(256, 0), steps=80)
    assert accuracy(head, *lookup(256, 1)) > 0.9


def twice(rows: int, seed: int) -> tuple[Inputs, Tensor]:
    """Two inputs that both tell y, with noise."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 2, (rows,), generator=g)
    a, b = torch.randn(rows, 4, generator=g), torch.randn(rows, 3, generator=g)
    a[:, 0] += 3 * y - 1.5
    b[:, 0] += 3 * y - 1.5
    return {"a": Tokens.pooled(a), "b": Tokens.pooled(b)}, y


@pytest.mark.parametrize("spec", [*LEARNED, "poe"])
def test_either_input_may_be_missing_at_prediction(spec: str) -> None:
    inputs, y = twice(256, 0)
    head = trained(spec, inputs, y, steps=60, dropped=0.3)
    new, truth = twice(1000, 1)
    both, a, b = (accuracy(head, only(new, names), truth) for names in (("a", "b"), ("a",), ("b",)))
    assert min(a, b) > 0.88, (a, b)  # the best that can be had is 0.933
    assert both > max(a, b)


@pytest.mark.parametrize("spec", [*LEARNED, "poe"])
def test_one_input_alone_is_enough(spec: str) -> None:
    inputs, y = twice(256, 0)
    new, truth = twice(1000, 1)
    assert accuracy(trained(spec, {"a": inputs["a"]}, y, steps=40), {"a": new["a"]}, truth) > 0.88
