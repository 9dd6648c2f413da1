"""Training where nothing but linear heads is learned: each is solved for, its L2 strength chosen on held-out rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmtool import console
from mmtool.api import Tokens
from mmtool.fusions.concat import Concat
from mmtool.mapped import is_mapped, stretches
from mmtool.network import Head, Network, Standardise, only, subsets
from mmtool.ragged import padded
from mmtool.training import solve
from mmtool.training.data import Data, Part
from mmtool.training.solve import Problem, Solution
from mmtool.training.streamed import Streamed, Stretch

Curve = dict[str, Any]
"""One line of training: `name`, `x` (epoch or l2), `at`, `held`, `best`, and `fit` where known."""
TOLERANCE = 1e-6
"""Of the final head's gradient; its probabilities are then within 1e-5 of the optimum's."""
SOME_ROWS, SOME_NUMBERS = 1 << 14, 1 << 22
"""Rows by which a strength is chosen where not all are in memory, and their numbers, at most."""


def applies(network: Network) -> bool:
    """Is the fusion free of parameters, every head linear, and each task's loss convex?"""
    fixed = not any(True for _ in network.front.parameters()) and not any(True for _ in network.dense.parameters())
    return fixed and all(head.task.linear for head in network.heads())


def train(networks: Sequence[Network], final: Network | None, parts: Sequence[Part], whole: Part, column: str,
          modality_dropout: float) -> tuple[dict[str, float], list[Curve]]:
    """Solve the heads of one target in place: each network on its part, `final` on the `fit` rows of `whole`.

    The networks have their scales. Of rows that stay in their files the strength is chosen on some, which stand for all:
    where a Gaussian prior belongs to λ for n rows, it belongs to λ n / N for N. Then all are passed over. Returns
    the L2 strength of each head, and the held-out loss along the strengths.
    """
    strengths, curves = {}, []
    heads = [Head(network, column) for network in networks]
    for number, name in enumerate(_names(networks[0])):
        solvable: list[tuple[Head, Data, Problem]] = []
        held = []
        for head, part in zip(heads, parts, strict=True):
            _clear(head, number)
            data = part.table.of(column, part.fit)[0]
            problem = _problem(head, name, _some(data), modality_dropout, narrow=True)
            if problem is not None:
                solvable.append((head, data, problem))
                held.append(_held_losses(head, name, _some(part.table.of(column, part.held)[0])))
        strength, solutions, path = solve.choose([problem for _, _, problem in solvable], held)
        learned = [(head, data) for head, data, _ in solvable]
        if any(is_mapped(data.inputs) for _, data in learned):  # a minute for 100,000 rows should not be silent
            console.say(f"{column}: solving over {len(whole.fit):,} rows, which stay in their files")
        solvable, held = [], []  # what they keep in memory goes before the passes over all rows
        for at, ((head, data), solution) in enumerate(zip(learned, solutions, strict=True)):
            solutions[at] = _on_all(head, name, data, modality_dropout, solution, _for_all(strength, data))
            _put(head, number, solutions[at])
        strengths[name] = strength
        if path:
            curves.append({"name": name, "x": "l2", "at": [s for s, _ in path], "held": [loss for _, loss in path],
                           "best": strength})
        if final is not None:
            _clear(Head(final, column), number)
            head, data = Head(final, column), whole.table.of(column, whole.fit)[0]
            if is_mapped(data.inputs) and solutions:  # a part's rows are most of all rows
                begun: Solution | None = solutions[0]
            else:
                problem = _problem(head, name, _some(data), modality_dropout)
                if problem is not None and solutions:
                    problem.begin(solutions)
                begun = None if problem is None else problem.solve(strength, TOLERANCE)
                del problem
            if begun is not None:
                _put(head, number, _on_all(head, name, data, modality_dropout, begun, _for_all(strength, data), TOLERANCE))
    return strengths, curves


def _names(network: Network) -> list[str]:
    return network.names if network.has_towers else ["fused"]


def _problem(head: Head, name: str, data: Data, modality_dropout: float, *, narrow: bool = False) -> Problem | None:
    """The head's rows; under modality dropout each row counts once for every subset of its inputs, by its probability.

    None where no row has the target and what the head sees.
    """
    parts: list[tuple[Tensor, Data, Tensor]] = []
    chosen = subsets(head.names) if modality_dropout and not head.network.has_towers else [tuple(head.names)]
    for subset in chosen:
        there = _there(data, subset)
        x, rows = _columns(head, name, data.rows(there), subset)
        if len(rows):
            parts.append((x, rows, torch.full((len(rows),), _share(head, subset, modality_dropout))))
    if not parts:
        return None
    x = torch.cat([part[0] for part in parts])

    def loss(outputs: Tensor) -> Tensor:
        if len(parts) == 1:
            return parts[0][1].loss(head.task, outputs)
        sizes = [len(part[1]) for part in parts]
        return torch.cat([d.loss(head.task, o) for (_, d, _), o in zip(parts, torch.split(outputs, sizes), strict=True)])

    return Problem(x, loss, _linear(head, 0).out_features, torch.cat([part[2] for part in parts]), narrow=narrow)


def _some(data: Data) -> Data:
    """Rows in memory by which a strength is chosen: all that are there already, or some that are spread over all."""
    if not is_mapped(data.inputs):
        return data
    most = _most(data)
    at = torch.arange(len(data)) if len(data) <= most else torch.linspace(0, len(data) - 1, most, dtype=torch.float64).long()
    part = data.rows(at)
    return Data(padded(part.inputs), part.y, part.lengths)


def _most(data: Data) -> int:
    """Rows by which a strength is chosen, at most."""
    return min(SOME_ROWS, SOME_NUMBERS // sum(t.dim for t in data.inputs.values()))


def _for_all(strength: float, data: Data) -> float:
    """The L2 strength for all rows that belongs to one for some."""
    return strength * min(_most(data), len(data)) / len(data) if is_mapped(data.inputs) else strength


def _on_all(head: Head, name: str, data: Data, modality_dropout: float, begun: Solution, strength: float,
            tolerance: float = 1e-4) -> Solution:
    """The solution for all rows, from one for others; where all are in memory that is it."""
    problem = _streamed(head, name, data, modality_dropout) if is_mapped(data.inputs) else None
    if problem is None:
        return begun
    problem.begin(begun)
    return problem.solve(strength, tolerance)


def _streamed(head: Head, name: str, data: Data, modality_dropout: float) -> Streamed | None:
    """The problem of rows that stay in their files."""
    chosen = subsets(head.names) if modality_dropout and not head.network.has_towers else [tuple(head.names)]
    usable = [(subset, there) for subset in chosen if len(there := _there(data, subset))]
    front = head.network.front
    beside = type(front.fusion) is Concat  # rows that lack no input are then what was read, scaled, and flags
    scales = [scale for scale in front.scales if isinstance(scale, Standardise)]
    means = [scale.mean for scale in scales]

    def passes() -> Iterator[Stretch]:
        for subset, there in usable:
            for part in in_stretches(data if len(there) == len(data) else data.rows(there)):
                share = _share(head, subset, modality_dropout)
                if beside and len(subset) == len(head.names) and all(bool(t.mask.all()) for t in part.inputs.values()):
                    read = [part.inputs[n].values[:, 0] for n in head.names]  # new tensors: nobody else looks at them
                    centred = [x.sub_(mean) for x, mean in zip(read, means, strict=True)]
                    yield Stretch(centred, partial(part.loss, head.task), share, centred=True)
                    continue
                x, rows = _columns(head, name, part, subset)
                if len(rows):
                    yield Stretch([x], partial(rows.loss, head.task), share)

    if not any(True for _ in passes()):
        return None
    if not beside:
        return Streamed(passes)
    return Streamed(passes, torch.cat([scale.scale for scale in scales]), front.fusion.dim - sum(map(len, means)))


def in_stretches(data: Data) -> Iterator[Data]:
    """All rows, some at a time, in memory."""
    for at in stretches(data.inputs) if len(data) else ():
        part = data.rows(torch.arange(at.start, at.stop))
        yield Data(padded(part.inputs), part.y, part.lengths)


def _there(data: Data, subset: Sequence[str]) -> Tensor:
    """Numbers of the rows that have an input of the subset."""
    return torch.stack([data.inputs[n].present for n in subset]).any(0).nonzero().flatten()


def _share(head: Head, subset: Sequence[str], modality_dropout: float) -> float:
    """How probable it is that modality dropout leaves these inputs."""
    missing = len(head.names) - len(subset)
    return float(modality_dropout**missing * (1 - modality_dropout) ** len(subset))


def _columns(head: Head, name: str, data: Data, subset: Sequence[str]) -> tuple[Tensor, Data]:
    """What the head sees of the rows where that is there, `[n, D]`, and those rows."""
    with torch.no_grad():
        seen: Tokens = head.network.fuse(only(data.inputs, subset))[name]
    if bool(seen.mask.all()) and seen.mask.shape[1] == 1:  # nothing to leave out, and nothing to copy
        return seen.values[:, 0], data
    there = seen.present.nonzero().flatten()
    return seen.mean()[there], data.rows(there)


def _held_losses(head: Head, name: str, data: Data) -> Callable[[Solution], Tensor]:
    x, rows = _columns(head, name, data, head.names)
    return lambda solution: rows.loss(head.task, solution.outputs(x))


def _linear(head: Head, number: int) -> nn.Linear:
    layer = head.task.heads[number]
    assert isinstance(layer, nn.Linear)
    return layer


def _clear(head: Head, number: int) -> None:
    """What a head says that has no row to learn from: nothing."""
    layer = _linear(head, number)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)


def _put(head: Head, number: int, solution: Solution) -> None:
    layer = _linear(head, number)
    with torch.no_grad():
        layer.weight.copy_(solution.weight)
        layer.bias.copy_(solution.bias)


def describe(strengths: dict[str, float]) -> str:
    """For people: the strength of each head."""
    return ", ".join(f"{value:.1e}" if name == "fused" else f"{name} {value:.1e}" for name, value in strengths.items())
