"""Which rows train, which validate, which test: as a column says, or made, stratified and by groups, from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmtool import console
from mmtool.errors import MMToolError
from mmtool.manifest.archives import SPLITS

TEST_SHARE, VAL_SHARE = 5, 7
"""One row in 5 is kept for the test where no column says which; one in 7 of the rest validates."""


@dataclass(frozen=True)
class Split:
    """Row numbers of each part; `made` where no column said so. Rows of no part are left out."""

    train: list[int]
    val: list[int]
    test: list[int]
    made: bool


def read(cells: Sequence[str | None], rows: Sequence[int], *, need_train: bool = True) -> Split:
    """The split that a column states, for the given rows. Raises MMToolError for another word, or no training row."""
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    nowhere = 0
    for row in rows:
        word = (cells[row] or "").strip().lower()
        if not word:
            nowhere += 1
        elif word in SPLITS:
            parts[SPLITS[word]].append(row)
        else:
            raise MMToolError(f"column 'split' holds {cells[row]!r} in row {row}", "it may hold train, val and test")
    if nowhere:
        console.say(f"{nowhere} rows have no split and are left out")
    if need_train and not parts["train"]:
        raise MMToolError("no row with a target has split train", "mark some as train, or leave the column out")
    return Split(parts["train"], parts["val"], parts["test"], made=False)


def folds(rows: Sequence[int], strata: Sequence[str], groups: Sequence[str] | None, k: int, seed: int) -> list[list[int]]:
    """`rows` in k parts: strata spread evenly, a group never torn. `strata` and `groups` hold an entry for each of `rows`.

    Raises MMToolError for fewer rows, or fewer groups, than parts.
    """
    names = [str(i) for i in range(len(rows))] if groups is None else list(groups)
    members: dict[str, list[int]] = {}
    for at, name in enumerate(names):
        members.setdefault(name, []).append(at)
    if len(members) < k:
        what = "rows" if groups is None else "groups"
        raise MMToolError(f"{len(members)} {what} cannot be parted in {k}",
                          f"add {what}, mark their split in a column, or lower --folds")
    classes = {s: i for i, s in enumerate(sorted(set(strata)))}
    shuffled: list[int] = np.random.default_rng(seed).permutation(len(members)).tolist()
    together = list(members.values())
    counts = [np.unique([classes[strata[i]] for i in at], return_counts=True) for at in together]  # of each group
    order = sorted(shuffled, key=lambda g: (-len(together[g]), int(counts[g][0][counts[g][1].argmax()])))  # large ones first
    share = np.bincount([classes[s] for s in strata]) / k  # [C]
    filled = np.zeros((k, len(classes)))
    sizes = np.zeros(k)
    parts: list[list[int]] = [[] for _ in range(k)]
    for g in order:
        own, found = counts[g]  # only these classes change
        before = filled[:, own] - share[own]
        over = ((before + found) ** 2 - before**2) / np.maximum(share[own], 1)  # [k, classes of the group]
        part = int(np.lexsort((sizes, over.sum(1).round(9)))[0])
        filled[part, own] += found
        sizes[part] += len(together[g])
        parts[part] += together[g]
    return [[rows[at] for at in sorted(part)] for part in parts]
