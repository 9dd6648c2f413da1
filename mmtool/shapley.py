"""Exact Shapley values: how much each player adds to a game's value, averaged over all orders in which they may join.

Shapley, 1953: φ_i = Σ_{S without i} |S|! (M - |S| - 1)! / M! (v(S + i) - v(S)). They add up to v(all) - v(none).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import factorial

from mmtool.metrics.grouping import Array

MOST_PLAYERS = 10
"""2 to this power is how many subsets are worth going through."""


def coalitions(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Every subset of the sorted names, none and all included, the small ones first."""
    ordered = sorted(names)
    return [subset for size in range(len(ordered) + 1) for subset in combinations(ordered, size)]


def shapley(names: Sequence[str], values: Mapping[tuple[str, ...], Array]) -> dict[str, Array]:
    """The value of each name, shaped as an entry of `values`, which has one for each of `coalitions(names)`."""
    count = len(names)
    out = {}
    for name in sorted(names):
        others = [n for n in names if n != name]
        parts = []
        for subset in coalitions(others):
            share = factorial(len(subset)) * factorial(count - len(subset) - 1) / factorial(count)
            parts.append(share * (values[tuple(sorted((*subset, name)))] - values[subset]))
        out[name] = sum(parts[1:], parts[0])
    return out
