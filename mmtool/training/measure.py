"""What a model is worth on rows that did not train it: temperatures, metrics for each subset of inputs, baselines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmtool.api import Task, Tokens
from mmtool.metrics.bootstrap import measure
from mmtool.network import Head, having, key_of, only, subsets
from mmtool.training.data import Data

Table = dict[str, Any]
GOLDEN = (math.sqrt(5) - 1) / 2
RANGE = (0.05, 20.0)
LEAST_ROWS = 20
"""Of fused rows that had the same inputs: fewer are not measured by themselves."""


def held_outputs(networks: Sequence[Head], held: Sequence[tuple[Data, Sequence[int]]], subset: Sequence[str]) \
        -> tuple[Tensor, list[int], list[Data]]:
    """Outputs `[n, K]`, float64, of each network on its held-out rows that have the subset, given only that; the rows."""
    outputs, rows, parts = [], [], []
    for network, (data, numbers) in zip(networks, held, strict=True):
        at = having(data.inputs, subset)
        if len(at):
            part = data.rows(at)
            with torch.no_grad():
                outputs.append(network(only(part.inputs, subset)).double())
            rows += [numbers[i] for i in at.tolist()]
            parts.append(part)
    return torch.cat(outputs) if outputs else torch.zeros(0, 1), rows, parts


def temperature(task: Task, outputs: Tensor, parts: Sequence[Data]) -> float:
    """The divisor of the outputs with the least mean loss (Guo et al., 2017), by golden section on its logarithm."""
    sizes = [len(p) for p in parts]

    def loss(log_t: float) -> float:
        pieces = torch.split(outputs / math.exp(log_t), sizes)
        return float(torch.cat([p.loss(task, o) for p, o in zip(parts, pieces, strict=True)]).mean())

    low, high = math.log(RANGE[0]), math.log(RANGE[1])
    for _ in range(40):
        a, b = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        low, high = (low, b) if loss(a) <= loss(b) else (a, high)
    return round(math.exp((low + high) / 2), 6)


def on_held(heads: Sequence[Head], held: Sequence[tuple[Data, Sequence[int]]], targets: Mapping[int, str], seed: int,
            final: Task, patterns: Sequence[str] | None = None) -> tuple[Table, dict[str, float]]:
    """Metrics on held-out rows, as in a metrics.json, and the temperature of each subset of inputs.

    `final` is the task of the model that will be kept; it settles on the same rows.

    `patterns`: the inputs that each row had before they were fused; then rows are told apart by them instead.
    """
    task = heads[0].task
    temperatures: dict[str, float] = {}
    found: dict[str, tuple[list[dict[str, Any]], list[str]]] = {}
    groups = list(_groups(heads, held, patterns))
    for key, outputs, _, parts in groups:
        temperatures[key] = temperature(task, outputs, parts) if task.calibrated else 1.0
    scaled = []
    for head, (data, own) in zip(heads, held, strict=True):
        used = [patterns[n].split("+") for n in own] if patterns is not None else used_in(data.inputs)
        with torch.no_grad():
            scaled.append(head(data.inputs).double() / divisors(used, head.names, temperatures))
    known = torch.cat([data.y for data, _ in held])
    for one in {id(t): t for t in (task, *(head.task for head in heads), final)}.values():
        one.settle(torch.cat(scaled), known)
    predictions = [p for outputs in scaled for p in task.decode(outputs)]
    numbers = [n for _, own in held for n in own]
    overall = (predictions, [targets[n] for n in numbers])
    for key, outputs, rows, _ in groups:
        if patterns is not None and len(rows) < LEAST_ROWS:
            continue
        if rows == numbers and torch.equal(outputs / temperatures[key], torch.cat(scaled)):  # nothing is to be told apart
            found[key] = overall
        else:
            found[key] = (task.decode(outputs / temperatures[key]), [targets[row] for row in rows])
    return tables(task, overall, found, seed), temperatures


def _groups(heads: Sequence[Head], held: Sequence[tuple[Data, Sequence[int]]],
            patterns: Sequence[str] | None) -> Iterator[tuple[str, Tensor, list[int], list[Data]]]:
    if patterns is None:
        for subset in subsets(heads[0].names):
            outputs, rows, parts = held_outputs(heads, held, subset)
            if rows:
                yield key_of(subset), outputs, rows, parts
        return
    for key in sorted({patterns[n] for _, own in held for n in own} - {""}):
        some = []
        for data, own in held:
            at = [i for i, n in enumerate(own) if patterns[n] == key]
            some.append((data.rows(at), [own[i] for i in at]))
        outputs, rows, parts = held_outputs(heads, some, heads[0].names)
        if rows:
            yield key, outputs, rows, parts


def used_in(inputs: Mapping[str, Tokens]) -> list[list[str]]:
    """The inputs that each row has."""
    names = sorted(inputs)
    present = torch.stack([inputs[n].present for n in names], 1).tolist()
    return [[n for n, there in zip(names, row, strict=True) if there] for row in present]


def divisors(used: Sequence[Sequence[str]], names: Sequence[str], temperatures: Mapping[str, float]) -> Tensor:
    """The temperature of each row's own inputs, `[N, 1]`; that of all inputs where its subset was never measured."""
    default = temperatures.get(key_of(names), 1.0)
    return torch.tensor([[temperatures.get(key_of(row), default)] for row in used], dtype=torch.float64).reshape(-1, 1)


def tables(task: Task, overall: tuple[list[dict[str, Any]], list[str]],
           by_inputs: Mapping[str, tuple[list[dict[str, Any]], list[str]]], seed: int) -> Table:
    """`overall`, `by_inputs` and `baselines`, each metric with its interval, from predictions and targets."""
    predictions, targets = overall
    whole = measure(task, predictions, targets, seed)
    each = {key: whole if pair is overall else measure(task, *pair, seed) for key, pair in by_inputs.items()}
    baselines = {"without_inputs": measure(task, [task.baseline()] * len(targets), targets, seed)}
    single = {key: each[key] for key in each if "+" not in key}
    if len(single) > 1 and (best := best_of(task, single)) is not None:
        baselines[f"best_single_input:{best}"] = single[best]
    return {"overall": whole, "by_inputs": each, "baselines": baselines}


def best_of(task: Task, each: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str | None:
    """The key with the best main metric."""
    sign = 1 if task.greater_is_better else -1
    known = {key: sign * m[task.main_metric]["value"] for key, m in each.items() if task.main_metric in m}
    pick: Callable[[str], float] = known.__getitem__
    return max(sorted(known), key=pick) if known else None
