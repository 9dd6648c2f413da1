"""Made targets of every task, measured by mmtool's own tasks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import numpy as np

from mmtool.api import Task
from mmtool.metrics import bootstrap
from mmtool.page.contents import Curve, Page, Shown, TargetPart
from mmtool.tasks.classify import Classify
from mmtool.tasks.regress import Regress
from mmtool.tasks.tag import Tag
from mmtool.training.measure import tables


def part(task: Task, name: str, column: str, made: dict[str, list[dict[str, Any]]], truth: list[str],
         curves: Sequence[Curve] = ()) -> TargetPart:
    """A target whose `made` holds predictions for each subset of inputs, the whole first."""
    predictions = next(iter(made.values()))
    lines = [{"id": f"row {i}", "inputs": ["image", "text"], **p, "target": t}
             for i, (p, t) in enumerate(zip(predictions, truth, strict=True))]
    with patch.multiple(bootstrap, MOST=20, FEWEST=20):  # quick intervals
        metrics = tables(task, (predictions, truth), {k: (v, truth) for k, v in made.items()}, 0)
    return TargetPart(column, name, list(task.labels), task.main_metric, task.greater_is_better, metrics, lines, truth,
                      list(curves))


def _logits(rng: np.random.Generator, y: np.ndarray, classes: int, strength: float) -> np.ndarray:
    return rng.normal(size=(len(y), classes)) + strength * np.eye(classes)[y]


def classify(classes: int = 3, rows: int = 240, labels: Sequence[str] | None = None, seed: int = 0,
             probabilities: bool = True, subsets: int = 3) -> TargetPart:
    """Classes of falling frequency, with two inputs of which each helps."""
    rng = np.random.default_rng(seed)
    names = list(labels) if labels else [f"class {chr(97 + i % 26)}{i}" for i in range(classes)]
    weights = 1 / np.arange(1, len(names) + 1) ** 0.5
    y = rng.choice(len(names), size=rows, p=weights / weights.sum())
    y[:len(names)] = np.arange(len(names))[:rows]
    truth = [names[i] for i in y]
    task = Classify()
    task.fit(truth + names)
    made = {}
    for key, strength in (("image+text", 3.2), ("image", 2.0), ("text", 2.4))[:subsets]:
        order = [task.numbers[n] for n in names]
        logits = np.zeros((rows, len(names)))
        logits[:, order] = _logits(rng, y, len(names), strength) * 1.6
        p = np.exp(logits - logits.max(1, keepdims=True))
        made[key] = [task._prediction(row) for row in (p / p.sum(1, keepdims=True)).tolist()]
        if not probabilities:
            made[key] = [{"prediction": m["prediction"]} for m in made[key]]
    x = list(np.geomspace(1e-6, 1e2, 9))
    curves = [Curve(f"fold {k}", x, "L2 strength", [0.1 + 0.02 * i ** 1.5 for i in range(9)],
                    [0.5 + 0.02 * k - 0.05 * i + 0.008 * i * i for i in range(9)], x[3]) for k in range(5)]
    return part(task, "classify", "kind", made, truth, curves)


def tag(tags: int = 9, rows: int = 200, seed: int = 0) -> TargetPart:
    """Tags of falling frequency."""
    rng = np.random.default_rng(seed)
    names = [f"tag {i}" for i in range(tags)]
    share = 0.5 / np.arange(1, tags + 1) ** 0.7
    y = rng.random((rows, tags)) < share
    y[:2] = True
    truth = ["|".join(n for n, there in zip(names, row, strict=True) if there) for row in y]
    truth = [t or "[]" for t in truth]
    task = Tag(min_count=1)
    task.fit(truth)
    at = [names.index(n) for n in task.labels]
    made = {}
    for key, strength in (("image+text", 3.0), ("image", 1.8), ("text", 1.6)):
        logits = np.log(share / (1 - share)) + strength * (y - share) + rng.normal(size=y.shape)
        made[key] = [task._prediction(row) for row in (1 / (1 + np.exp(-logits)))[:, at].tolist()]
    curves = [Curve("validation", list(range(1, 41)), "epoch", [0.7 * 0.93 ** e for e in range(40)],
                    [0.2 + 0.5 * 0.9 ** e + 0.002 * e for e in range(40)], 24)]
    return part(task, "tag", "tags", made, truth, curves)


def regress(outputs: int = 1, rows: int = 300, seed: int = 0, constant: bool = False) -> TargetPart:
    """Numbers; with `constant` the truth of the scored rows never varies, though training's did."""
    rng = np.random.default_rng(seed)
    y = rng.gamma(2.0, 50.0, size=(rows, outputs))
    task = Regress()
    task.fit([json.dumps(row) for row in y.tolist()])
    if constant:
        y[:] = 50.0
    made = {key: [task._prediction(row) for row in (y + rng.normal(scale=s, size=y.shape)).tolist()]
            for key, s in (("image+text", 25.0), ("image", 45.0), ("text", 26.0))}
    return part(task, "regress", "price", made, [json.dumps(row) for row in y.tolist()])


def worth(names: Sequence[str] = ("image", "text", "audio"), seed: int = 0, **changes: Any) -> dict[str, Any]:
    """What inputs are worth, from a game in which the first two overlap and the last brings nothing, with costs."""
    from mmtool import worth as measured
    from mmtool.shapley import coalitions

    rng = np.random.default_rng(seed)
    powers = {n: 0.3 / (1 + i) if i < len(names) - 1 else 0.0 for i, n in enumerate(names)}
    game = {s: np.concatenate([[0.0], rng.normal(scale=0.01, size=99)]) + 0.3 + max([powers[n] for n in s], default=0)
            + 0.3 * sum(powers[n] for n in s) for s in coalitions(names)}
    task = Classify()
    task.labels = ["x", "y"]
    found = measured._worth(sorted(names), game, task, "accuracy") | {"rows": 240, "inputs_never_hidden": True}
    for at, name in enumerate(sorted(names)):
        found["inputs"][name]["cost"] = {"seconds_per_row": 0.0137 / (1 + at) ** 3, "cells": 64, "device": "cpu", "threads": 1,
                                         "encoder_bytes": 45_600_000 // (1 + at), "feature_bytes_per_row": 2048, "why": None}
    return {**found, **changes}


def comparison(count: int, names: Sequence[str] = (), seed: int = 0, **changes: Any) -> dict[str, Any]:
    """So many candidates, the best first; the ones that follow at once are within its noise."""
    rng = np.random.default_rng(seed)
    fusions = ["gated", "late", "concat", "sum", "poe", "film", "lmf", "tensor", "mfb", "mutan", "moe", "deepset"]
    values = np.sort(0.9 - np.abs(rng.normal(scale=0.06, size=count)))[::-1]
    candidates = []
    for at, value in enumerate(values.tolist()):
        gap = value - float(values[0])
        fusion = fusions[at % len(fusions)]
        name = names[at % len(names)] if names else fusion + ("" if at < len(fusions) else f" of {at} inputs")
        candidates.append({
            "name": name, "kind": ("fusion", "input", "subset", "head", "ensemble")[at // len(fusions) % 5],
            "inputs": [["image", "text"], ["image"], ["text"]][at % 3], "fusion": fusion, "value": value, "low": value - 0.03,
            "high": value + 0.03, "gap": {"value": gap, "low": gap - 0.02, "high": min(gap + 0.02, 1.0)} if at else None,
            "p_best": 0.4 / (1 + at), "loss": 0.3 + 0.01 * at, "parameters": 12_345 * (1 + at % 5),
            "train_seconds": 1.2 + at, "predict_ms_per_row": 0.02 + 0.001 * at, "chosen": at == min(2, count - 1)})
    return {"metric": "accuracy", "greater_is_better": True, "rows": 553, "folds": 5, "how": "out of fold, 5 folds",
            "without_inputs": 0.71, "candidates": candidates,
            "skipped": [{"name": "mult", "why": "it needs tokens, and these features are pooled"}],
            "ensemble": {"members": {candidates[0]["name"]: 0.6, candidates[-1]["name"]: 0.4}, "value": 0.91, "low": 0.88,
                         "high": 0.94}, **changes}


def compared(found: dict[str, Any], column: str = "kind") -> TargetPart:
    """A target of which there is a comparison and nothing else."""
    return TargetPart(column, "classify", [], found["metric"], found["greater_is_better"], {}, [], [], [], comparison=found)


def page(*targets: TargetPart, cells: Any = None, title: str = "A made model") -> Page:
    """A page of these targets, with a text as the only cell of a row."""
    show = cells or (lambda row_id: [Shown("text", "text", "caption", text=f"The words of {row_id}.")])
    return Page(title, [("model", "made.safetensors"), ("rows", "made up")], ["3 rows have a label that training never saw"],
                list(targets), show)
