"""Which rows train, which validate, which test, which calibrate: as a column says, or made, by groups, from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mmtool import console
from mmtool.errors import DataError
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
    calib: list[int] = field(default_factory=list)
    """Rows that nothing is fitted on or chosen by, whose scores `--coverage` needs."""


def apart(split: Split, groups: Sequence[str] | None, share: float, seed: int) -> Split:
    """The same with a share of the training and validation rows kept apart. `groups`: that of each of those, ascending.

    They are drawn by chance alone, not stratified, since the guarantee of a coverage asks for rows like any others. Of groups
    such a share is drawn whole. Raises MMToolError where too few rows are left to train on.
    """
    learning = sorted(split.train + split.val)
    names = [str(r) for r in learning] if groups is None else list(groups)
    members = list(dict.fromkeys(names))
    order = np.random.default_rng([seed, 1]).permutation(len(members)).tolist()  # not the order of the folds
    drawn = {members[i] for i in order[: round(share * len(members))]}
    calib = {row for row, name in zip(learning, names, strict=True) if name in drawn}
    train = [r for r in split.train if r not in calib]
    if not calib or not train:
        raise DataError(f"--conformal {share} of {len(members)} {'rows' if groups is None else 'groups'} leaves nothing to "
                        f"{'calibrate by' if not calib else 'train on'}", "add rows, or choose another share", code="E_SPLIT")
    return replace(split, train=train, val=[r for r in split.val if r not in calib], calib=sorted(calib))


def read(cells: Sequence[str | None], rows: Sequence[int], *, need_train: bool = True) -> Split:
    """The split that a column states, for the given rows. Raises MMToolError for another word, or no training row."""
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": [], "calib": []}
    nowhere = 0
    for row in rows:
        word = (cells[row] or "").strip().lower()
        if not word:
            nowhere += 1
        elif word in SPLITS:
            parts[SPLITS[word]].append(row)
        else:
            raise DataError(f"column 'split' holds {cells[row]!r} in row {row}", "it may hold train, val, test and calib",
                            code="E_SPLIT")
    if nowhere:
        console.say(f"{nowhere} rows have no split and are left out")
    if need_train and not parts["train"]:
        raise DataError("no row with a target has split train", "mark some as train, or leave the column out", code="E_SPLIT")
    return Split(parts["train"], parts["val"], parts["test"], made=False, calib=parts["calib"])


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
        raise DataError(f"{len(members)} {what} cannot be parted in {k}",
                        f"add {what}, mark their split in a column, or lower --folds", code="E_SPLIT")
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
