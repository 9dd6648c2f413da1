"""Ranks with paired intervals, and a greedy ensemble, on predictions whose order is known."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from mmtool import plugins
from mmtool.metrics import greedy
from mmtool.metrics.ranking import rank

TRUTH = ["a" if i % 2 else "b" for i in range(200)]


def task(name: str = "classify", targets: list[str] = TRUTH) -> Any:
    made = plugins.load(plugins.find(name, "task"))()
    made.fit(targets)
    return made


def right(share: float, seed: int) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    out = []
    for t in TRUTH:
        p = t if chance.random() < share else "ab".replace(t, "")
        out.append({"prediction": p, "probability": 0.8, "probabilities": {c: 0.8 if c == p else 0.2 for c in "ab"}})
    return out


def test_the_best_comes_first_and_gaps_are_paired() -> None:
    good, bad = right(0.95, 1), right(0.6, 2)
    found = rank(task(), {"bad": bad, "good": good, "copy": good}, TRUTH, 0)
    assert [line["name"] for line in found] == ["good", "copy", "bad"]
    assert found[0]["gap"] is None
    assert found[1]["gap"] == {"value": 0.0, "low": 0.0, "high": 0.0}  # the same predictions, whatever the rows
    assert found[2]["gap"]["high"] < 0
    assert found[0]["low"] <= found[0]["value"] <= found[0]["high"]
    assert abs(found[0]["p_best"] - 0.5) < 1e-9  # shared with the copy
    assert found[2]["p_best"] == 0


def test_paired_intervals_are_narrower_than_the_difference_of_two() -> None:
    good = right(0.8, 1)
    slightly = [dict(p) for p in good]
    for i in range(0, 40, 8):
        slightly[i] = {"prediction": "ab".replace(TRUTH[i], ""), "probability": 0.8, "probabilities": {}}
    found = rank(task(), {"good": good, "slightly": slightly}, TRUTH, 0)
    gap = found[1]["gap"]
    assert gap["high"] - gap["low"] < (found[0]["high"] - found[0]["low"]) / 1.5


def test_where_less_is_better_the_least_comes_first() -> None:
    numbers = [str(i % 7) for i in range(60)]
    regress = task("regress", numbers)
    near = [{"prediction": float(t) + 0.1} for t in numbers]
    far = [{"prediction": float(t) + (2.0 if i % 2 else -2.0)} for i, t in enumerate(numbers)]
    assert [line["name"] for line in rank(regress, {"far": far, "near": near}, numbers, 0)] == ["near", "far"]


def test_equal_calls_rank_alike() -> None:
    each = {"x": right(0.9, 1), "y": right(0.85, 2)}
    assert rank(task(), each, TRUTH, 3) == rank(task(), each, TRUTH, 3)


def outputs(wrong: list[int]) -> torch.Tensor:
    y = np.array([1 - (t == "a") for t in TRUTH])
    x = torch.zeros(len(TRUTH), 2, dtype=torch.float64)
    x[torch.arange(len(TRUTH)), torch.from_numpy(y)] = 2
    x[wrong] = x[wrong].flip(1)
    return x


def test_an_ensemble_of_members_that_err_apart_is_better_than_each() -> None:
    made = task()
    y = torch.stack([made.encode(t) for t in TRUTH])
    lengths = torch.ones(len(TRUTH), dtype=torch.int64)
    members = [outputs(list(range(0, 200, 3))), outputs(list(range(1, 200, 3))), outputs(list(range(2, 200, 3)))]
    scores = torch.stack([made.to_scores(m) for m in members])
    weights = greedy.select(made, scores, y, lengths)
    assert abs(float(weights.sum()) - 1) < 1e-9
    assert all(0.2 < float(w) < 0.5 for w in weights)
    mixed = made.from_scores(greedy.mean_scores(scores, weights))
    single = min(float(made.loss(m, y, lengths).mean()) for m in members)
    assert float(made.loss(mixed, y, lengths).mean()) < single - 0.1
    assert (mixed.argmax(1) == y[:, 0].long()).all()


def test_a_member_that_knows_nothing_is_left_out() -> None:
    made = task()
    y = torch.stack([made.encode(t) for t in TRUTH])
    lengths = torch.ones(len(TRUTH), dtype=torch.int64)
    noise = torch.randn(len(TRUTH), 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    scores = torch.stack([made.to_scores(outputs([])), made.to_scores(noise)])
    assert greedy.select(made, scores, y, lengths).tolist() == [1.0, 0.0]


def test_rows_are_scored_by_weights_chosen_without_them() -> None:
    """In the first half one member is right, in the second the other: chosen elsewhere, the weights are the wrong ones."""
    made = task()
    y = torch.stack([made.encode(t) for t in TRUTH])
    lengths = torch.ones(len(TRUTH), dtype=torch.int64)
    scores = torch.stack([made.to_scores(outputs(list(range(100)))), made.to_scores(outputs(list(range(100, 200))))])
    mixed = greedy.cross_fitted(made, scores, y, lengths, [range(100), range(100, 200)])
    assert (mixed.argmax(1) != y[:, 0].long()).all()
