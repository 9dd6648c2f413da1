"""What a model is worth on rows that did not train it: temperatures, metrics for each subset of inputs, baselines."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmtool.api import Task
from mmtool.metrics.bootstrap import measure
from mmtool.network import Network, having, key_of, only, subsets
from mmtool.training.data import Data

Table = dict[str, Any]
GOLDEN = (math.sqrt(5) - 1) / 2
RANGE = (0.05, 20.0)


def held_outputs(networks: Sequence[Network], held: Sequence[tuple[Data, Sequence[int]]], subset: Sequence[str]) \
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


def on_held(networks: Sequence[Network], held: Sequence[tuple[Data, Sequence[int]]], targets: Mapping[int, str],
            seed: int) -> tuple[Table, dict[str, float]]:
    """Metrics on held-out rows, as in a metrics.json, and the temperature of each subset of inputs."""
    task = networks[0].task
    temperatures: dict[str, float] = {}
    found: dict[str, tuple[list[dict[str, Any]], list[str]]] = {}
    for subset in subsets(networks[0].names):
        outputs, rows, parts = held_outputs(networks, held, subset)
        if not rows:
            continue
        key = key_of(subset)
        temperatures[key] = temperature(task, outputs, parts) if task.calibrated else 1.0
        found[key] = (task.decode(outputs / temperatures[key]), [targets[row] for row in rows])
    everything = _all_rows(networks, held, temperatures)
    overall = (everything[0], [targets[row] for row in everything[1]])
    return tables(task, overall, found, seed), temperatures


def _all_rows(networks: Sequence[Network], held: Sequence[tuple[Data, Sequence[int]]],
              temperatures: Mapping[str, float]) -> tuple[list[dict[str, Any]], list[int]]:
    predictions, rows = [], []
    for network, (data, numbers) in zip(networks, held, strict=True):
        divisors = divisors_of(data, network.names, temperatures)
        with torch.no_grad():
            predictions += network.task.decode(network(data.inputs).double() / divisors)
        rows += list(numbers)
    return predictions, rows


def divisors_of(data: Data, names: Sequence[str], temperatures: Mapping[str, float]) -> Tensor:
    """The temperature of each row's own inputs, `[N, 1]`; that of all inputs where its subset was never measured."""
    default = temperatures.get(key_of(names), 1.0)
    present = torch.stack([data.inputs[n].present for n in sorted(names)], 1).tolist()
    keys = [key_of([n for n, there in zip(sorted(names), row, strict=True) if there]) for row in present]
    return torch.tensor([[temperatures.get(key, default)] for key in keys], dtype=torch.float64)


def tables(task: Task, overall: tuple[list[dict[str, Any]], list[str]],
           by_inputs: Mapping[str, tuple[list[dict[str, Any]], list[str]]], seed: int) -> Table:
    """`overall`, `by_inputs` and `baselines`, each metric with its interval, from predictions and targets."""
    predictions, targets = overall
    whole = measure(task, predictions, targets, seed)
    each = {key: measure(task, *pair, seed) for key, pair in by_inputs.items()}
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
