"""Fusions that keep the contract, one of each kind, for others to break."""

import torch
from torch import Tensor, nn

from mmtool.api import Fusion, Tokens


class Good(Fusion):
    """Every input in one width, weighted by a softmax over those that are there; everything that a contract can ask."""

    api = 1

    def __init__(self, dims: dict[str, int], *, dim: int = 6) -> None:
        super().__init__(dims)
        self.dim = dim
        self.layers = nn.ModuleList(nn.Linear(d, dim) for d in self.dims.values())
        self.score = nn.Linear(dim, 1)

    def pool(self, tokens: Tokens) -> Tensor:
        return tokens.mean()

    def project(self, inputs: dict[str, Tokens]) -> tuple[Tensor, Tensor]:
        present = torch.stack([inputs[name].present for name in self.dims], 1)  # [B, M]
        x = [layer(self.pool(inputs[name])) for name, layer in zip(self.dims, self.layers, strict=True)]
        return torch.stack(x, 1), present  # [B, M, dim], [B, M]

    def weights(self, x: Tensor, present: Tensor) -> Tensor:
        scores = self.score(x).squeeze(-1)  # [B, M]
        return scores.masked_fill(~present, torch.finfo(scores.dtype).min).softmax(1) * present

    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        x, present = self.project(inputs)
        w = self.weights(x, present)
        return Tokens.pooled((w.unsqueeze(-1) * x.masked_fill(~present.unsqueeze(-1), 0)).sum(1), present.any(1))


class GoodTokens(Fusion):
    """The tokens of every input in one width, one after the other."""

    api = 1
    takes = "tokens"
    returns = "tokens"
    dim = 6

    def __init__(self, dims: dict[str, int]) -> None:
        super().__init__(dims)
        self.layers = nn.ModuleList(nn.Linear(d, self.dim) for d in self.dims.values())

    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        given = [inputs[name] for name in self.dims]
        clean = [t.values.masked_fill(~t.mask.unsqueeze(-1), 0) for t in given]
        x = torch.cat([layer(v) for layer, v in zip(self.layers, clean, strict=True)], 1)  # [B, sum T, dim]
        mask = torch.cat([t.mask for t in given], 1)  # [B, sum T]
        order = torch.argsort(mask.int(), dim=1, descending=True, stable=True)
        return Tokens(x.gather(1, order.unsqueeze(-1).expand(x.shape)), mask.gather(1, order))


class GoodTowers(Fusion):
    """A layer an input; probabilities are multiplied, with learned exponents shared out among the towers that are there."""

    api = 1
    returns = "towers"

    def __init__(self, dims: dict[str, int]) -> None:
        super().__init__(dims)
        self.layers = nn.ModuleList(nn.Linear(d, d) for d in self.dims.values())
        self.exponent = nn.Parameter(torch.zeros(len(dims)))

    def forward(self, inputs: dict[str, Tokens]) -> dict[str, Tokens]:
        return {name: Tokens.pooled(layer(inputs[name].mean()), inputs[name].present)
                for name, layer in zip(self.dims, self.layers, strict=True)}

    def combine(self, scores: dict[str, Tensor], present: dict[str, Tensor]) -> Tensor:
        there = torch.stack([present[name] for name in self.dims], 1)  # [B, M]
        logs = torch.stack([scores[name].masked_fill(~present[name].unsqueeze(1), 1).log() for name in self.dims], 1)
        w = self.exponent.expand(there.shape).masked_fill(~there, torch.finfo(torch.float32).min).softmax(1) * there
        return (w.unsqueeze(-1) * logs).sum(1).softmax(-1)  # [B, K]


class GoodFitted(Fusion):
    """Inputs side by side, each less the mean of the rows that it learned from, over their deviation."""

    api = 1

    def __init__(self, dims: dict[str, int]) -> None:
        super().__init__(dims)
        self.dim = sum(dims.values())
        for number, d in enumerate(self.dims.values()):
            self.register_buffer(f"mean{number}", torch.zeros(d))
            self.register_buffer(f"scale{number}", torch.ones(d))

    def pool(self, tokens: Tokens) -> Tensor:
        return tokens.mean()

    def fit(self, inputs: dict[str, Tokens]) -> None:
        for number, name in enumerate(self.dims):
            x = self.pool(inputs[name])[inputs[name].present].double()
            if len(x):
                self.learn(number, x)

    def learn(self, number: int, x: Tensor) -> None:
        self.get_buffer(f"mean{number}").copy_(x.mean(0))
        self.get_buffer(f"scale{number}").copy_(x.std(0, correction=0).clamp(min=1e-3))

    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        parts = [(inputs[name].mean() - self.get_buffer(f"mean{i}")) / self.get_buffer(f"scale{i}")
                 for i, name in enumerate(self.dims)]
        parts = [x.masked_fill(~inputs[name].present.unsqueeze(1), 0) for x, name in zip(parts, self.dims, strict=True)]
        return Tokens.pooled(torch.cat(parts, 1), torch.stack([inputs[n].present for n in self.dims]).any(0))
