"""Networks trained side by side, where their batches differ in size."""

from __future__ import annotations

import torch
from torch import nn

from mmtool.api import Fusion, Tokens
from mmtool.network import Front, Network
from mmtool.tasks.classify import Classify
from mmtool.training import together
from mmtool.training.data import Answers, Part, Table
from mmtool.training.recipe import Recipe


class Normed(Fusion):
    """With a batch norm, which gathers what it sees."""

    api = 1
    dim = 4

    def __init__(self, dims: dict[str, int]) -> None:
        super().__init__(dims)
        self.layer = nn.Linear(sum(dims.values()), 4, bias=False)  # a norm leaves no trace of one
        self.norm = nn.BatchNorm1d(4)

    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        x = torch.cat([inputs[name].mean() for name in self.dims], 1)
        return Tokens.pooled(self.norm(self.layer(x)), torch.stack([inputs[n].present for n in self.dims]).any(0))


def made(fit: list[int], held: list[int]) -> together.One:
    chance = torch.Generator().manual_seed(0)
    x = torch.randn(48, 3, generator=chance) + 2
    y = (x[:, :1] > 2).long().squeeze(1)
    task = Classify()
    task.fit(["no" if v == 0 else "yes" for v in y.tolist()])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network(Front({"a": 3}, Normed({"a": 3})), {"label": task})
    encoded = torch.stack([task.encode("no" if v == 0 else "yes") for v in y.tolist()])
    answers = Answers(encoded, torch.tensor([len(e) for e in encoded]), torch.ones(48, dtype=torch.bool))
    table = Table({"a": Tokens.pooled(x)}, {"label": answers})
    return together.One(network, Part(table, fit, held), Recipe(batch_size=16, epochs=3, patience=3))


def test_batch_norms_gather_the_same_where_last_batches_differ_in_size() -> None:
    parts = [(list(range(35)), list(range(35, 48))), (list(range(12, 48)), list(range(12)))]
    alone = [made(*part) for part in parts]
    beside = [made(*part) for part in parts]
    for one in alone:
        together.train([one], torch.device("cpu"))
    together.train(beside, torch.device("cpu"))
    for one, other in zip(alone, beside, strict=True):
        expected, found = one.network.state_dict(), other.network.state_dict()
        assert int(expected["front.fusion.norm.num_batches_tracked"]) % 3 == 0
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, atol=1e-4, rtol=1e-3, msg=name)
