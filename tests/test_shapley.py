"""Exact Shapley values of games whose answers are known."""

from __future__ import annotations

import numpy as np

from mmtool.shapley import coalitions, shapley


def test_a_glove_game_has_its_known_values() -> None:
    """Two own a left glove, one the right: 1/6, 1/6, 2/3."""
    values = {s: np.array([float("right" in s and len(s) > 1)]) for s in coalitions(["left", "other", "right"])}
    found = shapley(["left", "other", "right"], values)
    assert np.allclose([found[n][0] for n in ("left", "other", "right")], [1 / 6, 1 / 6, 2 / 3])


def test_values_add_up_whatever_the_game() -> None:
    rng = np.random.default_rng(0)
    names = ["a", "b", "c", "d"]
    values = {s: rng.normal(size=7) for s in coalitions(names)}
    total = sum(shapley(names, values).values())
    assert np.allclose(total, values[("a", "b", "c", "d")] - values[()], atol=1e-12)


def test_coalitions_are_all_subsets_with_sorted_names() -> None:
    assert coalitions(["b", "a"]) == [(), ("a",), ("b",), ("a", "b")]


def test_one_player_gets_everything() -> None:
    assert shapley(["x"], {(): np.array([0.25]), ("x",): np.array([1.0])})["x"][0] == 0.75
