"""What each input of a model is worth on scored rows: exact Shapley values of a metric, with paired bootstrap intervals.

The value of a subset of inputs is the metric on the same rows with every other input missing; a row that is left with no
input gets the task's baseline. All is told as gain: of a metric of which less is better, the sign is turned. Every subset is
measured on the same resamples, so that intervals are those of differences on the same rows.

Shapes: N rows, R resamples of them; a game's values are `[1 + R]`, that of the rows themselves first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from mmtool import console
from mmtool.errors import DataError, UsageError
from mmtool.metrics.bootstrap import MOST, WORK, resamples
from mmtool.metrics.grouping import Array
from mmtool.network import only
from mmtool.page.words import LESS_IS_BETTER
from mmtool.shapley import MOST_PLAYERS, coalitions, shapley

if TYPE_CHECKING:
    from mmtool.api import Task, Tokens
    from mmtool.model import Model

FEWEST = 200
DIGITS = 9
"""Enough that what is written still adds up to a millionth."""
Values = dict[tuple[str, ...], Array]
Rows = tuple[Sequence[int], Sequence[str]]
"""Numbers of the rows that have a target, and the targets as written."""


def check(model: Model, metric: str | None, *, fused: bool) -> None:
    """Can the model be taken apart, and is the metric known? Raises UsageError, before any work is done."""
    if fused:
        raise UsageError("fused features cannot be taken apart", "give the manifest that they were made from, so that single "
                         "inputs can be hidden; or train a model on the inputs themselves")
    if len(model.inputs) > MOST_PLAYERS:
        raise UsageError(f"--by-input goes through every subset of at most {MOST_PLAYERS} inputs; the model has "
                         f"{len(model.inputs)}", "leave --by-input out (metrics.json has each input alone), or train on fewer")
    known = {column: {*model.metrics(column)["overall"], task.main_metric} - {""} for column, task in model.tasks.items()}
    if metric is not None and not any(metric in names for names in known.values()):
        raise UsageError(f"--metric {metric!r}: the model's task has no such metric",
                         f"known: {', '.join(sorted(set[str]().union(*known.values())))}")
    for column, task in model.tasks.items():
        if metric is not None and metric not in known[column] and task.main_metric:
            console.warn(f"{column} has no metric {metric!r}: its inputs are judged by {task.main_metric}")
        elif metric is None and not task.main_metric:
            raise UsageError(f"the task of {column!r} names no main metric",
                             f"choose one: --metric {'|'.join(sorted(known[column]))}")


def measure(model: Model, inputs: Mapping[str, Tokens], scored: Mapping[str, Rows], metric: str | None,
            seed: int) -> dict[str, dict[str, Any]]:
    """For each target column of `scored` the worth of the inputs, as metrics.json has it.

    Raises MMToolError where the metric means nothing for some subset of them.
    """
    names = sorted(inputs)
    players = coalitions(names)
    chosen = {c: metric if metric is not None and (metric == task.main_metric or metric in model.metrics(c)["overall"])
              else task.main_metric for c, task in model.tasks.items()}
    values: dict[str, Values] = {column: {} for column in scored}
    with console.progress("subsets of inputs", len(players)) as advance:
        for subset in players:
            predicted = _predicted(model, inputs, subset)
            for column, (at, targets) in scored.items():
                values[column][subset] = _values(model.tasks[column], [predicted[column][i] for i in at], targets,
                                                 chosen[column], len(players), seed)
            advance(1)
    never_hidden = not model.header["recipe"].get("modality_dropout") and not model.network.has_towers
    return {column: _worth(names, found, model.tasks[column], chosen[column])
            | {"rows": len(scored[column][1]), "inputs_never_hidden": never_hidden and len(names) > 1}
            for column, found in values.items()}


def _predicted(model: Model, inputs: Mapping[str, Tokens], subset: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """What is predicted of every row for each target, given only the subset."""
    rows = len(next(iter(inputs.values())).mask)
    nothing = {column: task.baseline() for column, task in model.tasks.items()}
    if not subset:
        return {column: [answer] * rows for column, answer in nothing.items()}
    return {column: [p if p["inputs"] else nothing[column] for p in found]
            for column, found in model.predictions(only(inputs, subset)).items()}


def _values(task: Task, predictions: Sequence[dict[str, Any]], targets: Sequence[str], metric: str, games: int,
            seed: int) -> Array:
    n = len(targets)
    wanted = int(np.clip(4 * WORK / (n * max(len(task.labels), 1) * games), FEWEST, MOST))
    parts = [task.metrics(predictions, targets, counts).get(metric)
             for counts in (np.ones((1, n)), *resamples(n, wanted, seed))]
    return np.concatenate([np.full(1, np.nan) if found is None else found for found in parts])


def _worth(names: Sequence[str], raw: Values, task: Task, metric: str) -> dict[str, Any]:
    for subset, found in raw.items():
        if not np.isfinite(found[0]):
            what = f"with {'+'.join(subset)} alone" if subset else "for an answer that sees no input"
            raise DataError(f"{metric} means nothing on these rows {what}", "choose another: --metric NAME")
    usable = np.isfinite(np.stack(list(raw.values()))).all(0)
    raw = {subset: found[usable] for subset, found in raw.items()}
    up = task.greater_is_better if metric == task.main_metric else metric not in LESS_IS_BETTER
    game = {subset: found if up else -found for subset, found in raw.items()}
    whole, none = tuple(names), tuple[str, ...]()
    shares = shapley(names, game)
    inputs = {}
    for name in names:
        others = tuple(n for n in names if n != name)
        worth, lost = interval(shares[name]), interval(game[whole] - game[others])
        inputs[name] = {"shapley": worth, "alone": interval(game[(name,)] - game[none]), "left_out": lost,
                        "verdict": verdict(len(names), worth, lost)}
    pairs = []
    for a, b in combinations(names, 2):
        more = interval(game[(a, b)] - game[(a,)] - game[(b,)] + game[none])
        together, apart = interval(game[(a, b)] - game[none]), interval(game[(a,)] + game[(b,)] - 2 * game[none])
        pairs.append({"inputs": [a, b], "interaction": more, "together": together, "apart": apart, "word": word(more)})
    return {"metric": metric, "greater_is_better": up, "resamples": int(usable.sum()) - 1,
            "all": interval(raw[whole]), "none": interval(raw[none]), "inputs": inputs, "pairs": pairs,
            "subsets": [{"inputs": list(subset), **interval(found)} for subset, found in raw.items()]}


def interval(values: Array) -> dict[str, float]:
    """A game's values `[1 + R]` -> value and 95 % interval, which is the value alone where no resample means anything."""
    low, high = np.percentile(values[1:] if len(values) > 1 else values, [2.5, 97.5])
    return {"value": _round(values[0]), "low": _round(low), "high": _round(high)}


def _round(value: float) -> float:
    return round(float(value), DIGITS) + 0.0  # no minus before nothing


def word(interaction: Mapping[str, float]) -> str:
    """What a pair's interaction, v(ab) - v(a) - v(b) + v(none), says of it."""
    if interaction["high"] < 0:
        return "redundant"
    return "synergistic" if interaction["low"] > 0 else "independent as far as these rows tell"


def verdict(count: int, worth: Mapping[str, float], left_out: Mapping[str, float]) -> str:
    """One of `count` inputs judged by the intervals of its Shapley value and of what is lost without it."""
    if worth["high"] < 0:
        return "does harm: its whole interval is below zero"
    if worth["low"] <= 0:
        return "no clear worth: its interval contains zero"
    if count == 1:
        return "clear worth: it is all that the model has"
    if left_out["low"] > 0:
        return "clear worth, and something is lost without it"
    return "clear worth, but nothing is clearly lost without it: the other inputs may make up for it"
