"""Networks that are trained side by side take the steps that each would take alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from mmtool import plugins
from mmtool.api import Fusion, Tokens
from mmtool.errors import MMToolError
from mmtool.network import Front, Network
from mmtool.training import descend, together
from mmtool.training.data import Part, Table, answers_of
from mmtool.training.graph import Graph
from mmtool.training.live import Feed
from mmtool.training.recipe import Recipe
from mmtool.training.together import One

ROWS, FOLDS = 63, 3
CPU = torch.device("cpu")
LETTERS = ["abc"[i % 3] for i in range(ROWS)]


class Nothing:
    """Neither watches nor keeps."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *_: None


def task(name: str = "classify") -> Any:
    made = plugins.load(plugins.find(name, "task"))()
    made.fit(LETTERS)
    return made


def table(seed: int = 0, tokens: int = 1) -> Table:
    chance = torch.Generator().manual_seed(seed)
    inputs = {}
    for name, dim in (("x", 5), ("y", 3)):
        values = torch.randn(ROWS, tokens, dim, generator=chance) + torch.tensor([ord(c) - 98 for c in LETTERS]).view(-1, 1, 1)
        mask = torch.ones(ROWS, tokens, dtype=torch.bool)
        mask[::7 if name == "x" else 11] = False
        inputs[name] = Tokens(values, mask)
    return Table(inputs, answers_of({"t": task()}, {"t": list(LETTERS)}))


def runs(fusion: Callable[[dict[str, int]], Fusion], recipe: Recipe, hidden: tuple[int, ...] = (),
         tokens: int = 1) -> list[One]:
    """A network for each fold, of unequal sizes, from one seed."""
    data, out = table(tokens=tokens), []
    held = [list(range(20)), list(range(20, 41)), list(range(41, ROWS))]
    for part in held:
        torch.manual_seed(1)
        network = Network(Front({"x": 5, "y": 3}, fusion({"x": 5, "y": 3})), {"t": task()}, hidden, 0.2 if hidden else 0.0)
        fit = [i for i in range(ROWS) if i not in part]
        network.front.fit({n: t.take(torch.tensor(fit)) for n, t in data.inputs.items()})
        out.append(One(network, Part(data, fit, part), recipe))
    return out


def alone(each: list[One]) -> list[descend.Outcome]:
    return [descend.train(Graph(one.network, {}, {}), one.part, Feed([]), one.recipe, CPU, Nothing(), Nothing(),  # type: ignore[arg-type]
                          [str(i) for i in range(ROWS)], lambda _: None, begun=False) for one in each]


def built_in(name: str) -> Callable[[dict[str, int]], Fusion]:
    cls = plugins.load(plugins.find(name, "fusion"))
    return lambda dims: cls(dims)  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


LEARNED = sorted(p.name for p in plugins.found() if p.kind == "fusion" and p.distribution == "mmtool" and p.name != "cca")


@pytest.mark.parametrize("name", LEARNED)
def test_every_fusion_trains_the_same_together_as_alone(name: str) -> None:
    recipe = Recipe(epochs=6, patience=3, batch_size=16)
    first, second = runs(built_in(name), recipe), runs(built_in(name), recipe)
    found, wanted = together.train(first, CPU), alone(second)
    for got, want, a, b in zip(found, wanted, first, second, strict=True):
        assert torch.allclose(torch.tensor(got.curve), torch.tensor(want.curve), atol=1e-4)
        assert got.best_epoch == want.best_epoch
        x = a.part.table.inputs
        with torch.no_grad():
            assert torch.allclose(a.network.heads()[0](x), b.network.heads()[0](x), atol=1e-4)


@pytest.mark.parametrize("changes", [
    {"optimizer": "sgd", "lr": 0.05}, {"optimizer": "adam", "weight_decay": 0.01}, {"l1": 0.01}, {"clip": 0.0}, {"clip": 0.01},
    {"schedule": "step", "warmup": 0.0}, {"modality_dropout": 0.5}, {"seed": 5}, {"batch_size": 21}], ids=str)
def test_so_does_every_way_to_descend(changes: dict[str, Any]) -> None:
    recipe = replace(Recipe(epochs=5, patience=5, batch_size=16), **changes)
    first, second = (runs(built_in("gated"), recipe, hidden=(8,)) for _ in range(2))
    found, wanted = together.train(first, CPU), alone(second)
    for got, want in zip(found, wanted, strict=True):
        assert torch.allclose(torch.tensor(got.curve), torch.tensor(want.curve), atol=1e-4)


def test_tokens_train_the_same_together() -> None:
    recipe = Recipe(epochs=4, batch_size=16)
    first, second = (runs(built_in("transformer"), recipe, tokens=4) for _ in range(2))
    for got, want in zip(together.train(first, CPU), alone(second), strict=True):
        assert torch.allclose(torch.tensor(got.curve), torch.tensor(want.curve), atol=1e-4)


def test_settings_differ_side_by_side() -> None:
    """Weight decays, seeds and learning rates of their own: what fits together is trained together."""
    def mixed() -> list[One]:
        made = runs(built_in("gated"), Recipe(epochs=4, batch_size=16))
        changes = [{"weight_decay": 0.5}, {"lr": 0.01}, {"seed": 3}]
        other = runs(built_in("gated"), Recipe(epochs=4, batch_size=16))
        return [replace(one, recipe=replace(one.recipe, **c)) for one, c in zip(made, changes, strict=True)] + other

    for got, want in zip(together.train(mixed(), CPU), alone(mixed()), strict=True):
        assert torch.allclose(torch.tensor(got.curve), torch.tensor(want.curve), atol=1e-4)


class Stubborn(Fusion):
    """Looks at its numbers to decide, which vmap cannot follow."""

    api = 1

    def __init__(self, dims: dict[str, int]) -> None:
        super().__init__(dims)
        self.dim = 4
        self.layer = nn.Linear(sum(dims.values()), 4)

    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        x = torch.cat([inputs[n].mean() for n in self.dims], 1)
        y = self.layer(x) if float(x.sum()) > 0 else self.layer(x).tanh()
        return Tokens.pooled(y, torch.stack([t.present for t in inputs.values()]).any(0))


def test_a_fusion_that_vmap_cannot_follow_is_trained_one_by_one() -> None:
    first, second = (runs(Stubborn, Recipe(epochs=4, batch_size=16)) for _ in range(2))
    for got, want in zip(together.train(first, CPU), alone(second), strict=True):
        assert torch.allclose(torch.tensor(got.curve), torch.tensor(want.curve), atol=1e-5)


def test_a_loss_that_is_no_number_is_told() -> None:
    made = runs(built_in("gated"), Recipe(epochs=3, batch_size=16, lr=1e30, clip=0.0, warmup=0.0))
    with pytest.raises(MMToolError, match="loss is"):
        together.train(made, CPU)
