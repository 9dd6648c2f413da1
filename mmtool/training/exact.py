"""Training where nothing but linear heads is learned: each is solved for, its L2 strength chosen on held-out rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mmtool.api import Tokens
from mmtool.network import Network, only, subsets
from mmtool.training import solve
from mmtool.training.data import Data
from mmtool.training.solve import Problem, Solution

NetworkMaker = Callable[[], Network]
TOLERANCE = 1e-7


def applies(network: Network) -> bool:
    """Is the fusion free of parameters, and the task's loss convex?"""
    return network.task.linear and not any(True for _ in network.fusion.parameters())


def train(make: NetworkMaker, data: Data, pairs: Sequence[tuple[list[int], list[int]]], rows: Sequence[int],
          modality_dropout: float) -> tuple[list[Network], Network, dict[str, float]]:
    """A network for each pair of (fit, held-out) rows, the final one for all `rows`, and the L2 strength of each head."""
    networks = [_scaled(make(), data.rows(fit)) for fit, _ in pairs]
    final = _scaled(make(), data.rows(rows))
    strengths = {}
    for number, name in enumerate(_heads(final)):
        problems, held = [], []
        for network, (fit, out) in zip(networks, pairs, strict=True):
            problems.append(_problem(network, name, data.rows(fit), modality_dropout))
            held.append(_held_losses(network, name, data.rows(out)))
        strength, solutions = solve.choose(problems, held)
        for network, solution in zip(networks, solutions, strict=True):
            _put(network, number, solution)
        strengths[name] = strength
        _put(final, number, _problem(final, name, data.rows(rows), modality_dropout).solve(strength, TOLERANCE))
    return networks, final, strengths


def _scaled(network: Network, data: Data) -> Network:
    network.fit_scales(data.inputs)
    return network.eval()


def _heads(network: Network) -> list[str]:
    return network.names if network.fusion.returns == "towers" else ["fused"]


def _problem(network: Network, name: str, data: Data, modality_dropout: float) -> Problem:
    """The head's rows; under modality dropout each row counts once for every subset of its inputs, by its probability."""
    parts: list[tuple[Tensor, Data, Tensor]] = []
    chosen = subsets(network.names) if modality_dropout and network.fusion.returns != "towers" else [tuple(network.names)]
    for subset in chosen:
        kept = only(data.inputs, subset)
        there = torch.stack([t.present for t in kept.values()]).any(0).nonzero().flatten()
        x, rows = _columns(network, name, data.rows(there), subset)
        if len(rows):
            missing = len(network.names) - len(subset)
            share = modality_dropout**missing * (1 - modality_dropout) ** len(subset)
            parts.append((x, rows, torch.full((len(rows),), share)))
    x = torch.cat([part[0] for part in parts])

    def loss(outputs: Tensor) -> Tensor:
        sizes = [len(part[1]) for part in parts]
        return torch.cat([d.loss(network.task, o) for (_, d, _), o in zip(parts, torch.split(outputs, sizes), strict=True)])

    return Problem(x, loss, _linear(network, 0).out_features, torch.cat([part[2] for part in parts]))


def _columns(network: Network, name: str, data: Data, subset: Sequence[str]) -> tuple[Tensor, Data]:
    """What the head sees of the rows where that is there, `[n, D]`, and those rows."""
    with torch.no_grad():
        seen: Tokens = network.fuse(only(data.inputs, subset))[name]
    there = seen.present.nonzero().flatten()
    return seen.mean()[there], data.rows(there)


def _held_losses(network: Network, name: str, data: Data) -> Callable[[Solution], Tensor]:
    x, rows = _columns(network, name, data, network.names)
    return lambda solution: rows.loss(network.task, solution.outputs(x))


def _linear(network: Network, number: int) -> nn.Linear:
    layer = network.task.heads[number]
    assert isinstance(layer, nn.Linear)
    return layer


def _put(network: Network, number: int, solution: Solution) -> None:
    head = _linear(network, number)
    with torch.no_grad():
        head.weight.copy_(solution.weight)
        head.bias.copy_(solution.bias)


def describe(strengths: dict[str, float]) -> str:
    """For people: the strength of each head."""
    return ", ".join(f"{value:.1e}" if name == "fused" else f"{name} {value:.1e}" for name, value in strengths.items())
