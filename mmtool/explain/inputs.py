"""What each input contributes to a row's prediction: exact Shapley values over the inputs that the row has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmtool.api import Tokens
from mmtool.errors import UsageError
from mmtool.explain.value import Explained, coalition_rows, values
from mmtool.model import Model
from mmtool.shapley import MOST_PLAYERS, coalitions, shapley

DIGITS = 9


def check(model: Model) -> None:
    """Raises UsageError for a model with more inputs than can be gone through."""
    if len(model.inputs) > MOST_PLAYERS:
        raise UsageError(f"--explain goes through every subset of the inputs: {len(model.inputs)} are too many",
                         f"it works for up to {MOST_PLAYERS}; leave --explain out")


def explain(model: Model, tokens: Mapping[str, Tokens], line: dict[str, Any]) -> dict[str, Explained]:
    """Add `contributions` and `explanation` to one row's prediction, below each target where there are several.

    `tokens` holds the row's inputs, `[1, T, D]` each. They add up to the value of the prediction less the baseline's.
    Returns what is explained of each target; nothing of a row without an input.
    """
    below = line.get("targets", {model.columns[0]: line})
    chosen = {column: Explained.choose(model.tasks[column], found) for column, found in below.items()}
    explained = {column: e for column, e in chosen.items() if e is not None and line["inputs"]}
    if not explained:
        return {}
    subsets = coalitions(line["inputs"])
    found = values(model, coalition_rows(tokens, subsets), explained).numpy()  # [2^M, C]
    shares = shapley(line["inputs"], dict(zip(subsets, found, strict=True)))
    for at, (column, e) in enumerate(explained.items()):
        below[column]["contributions"] = {name: round(float(share[at]), DIGITS) for name, share in shares.items()}
        probable = e.of is not None
        told = {"of": e.of, "unit": "probability" if probable else "number", **({} if e.which is None else {"which": e.which})}
        below[column]["explanation"] = {**told, "baseline": round(float(found[0, at]), DIGITS),
                                        "value": round(float(found[-1, at]), DIGITS), "within": {}}
    return explained
