"""A comparison of fusions, inputs and heads for one run: which take part, how they rank, which is chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmtool import console
from mmtool.training import candidates, search, splits, standings
from mmtool.training.candidates import Candidate
from mmtool.training.contest import Contest
from mmtool.training.fit import Run

if TYPE_CHECKING:
    from mmtool.training.trainer import Trainer

FOLDS = 5
KIND = "; these rows also chose L2 strengths, epochs, temperatures and searched settings, so the values are a little too good"


def folds(trainer: Trainer) -> tuple[list[tuple[list[int], list[int]]], str]:
    """Pairs of (fit, held-out) rows, the same for every candidate, and what the held-out rows are."""
    learning = trainer.learning
    groups = trainer.groups(learning)
    members = len(learning) if groups is None else len(set(groups))
    k = trainer.settings.folds or max(2, min(FOLDS, members))
    everyone = list(range(len(learning)))
    parts = splits.folds(everyone, trainer.strata(learning), groups, k, trainer.settings.seed)
    return [([i for i in everyone if i not in out], part) for part in parts for out in [set(part)]], f"out of fold, {k} folds"


Found = dict[str, dict[str, Any]]
"""The comparison for each target, as comparison.json has it."""


def compare(trainer: Trainer, run: Run, wanted: Sequence[str], *, only_fusions: bool, ensemble: bool,
            trials: int) -> tuple[Found, Candidate]:
    """The comparison, and the candidate that it chose. `wanted`: fusions; none: every one that is installed.

    `trials`: how many settings of the best candidates are tried besides.
    """
    pairs, how = folds(trainer)
    match = Contest(run, pairs)
    chosen, skipped = candidates.choose(match.names, wanted, {c: a.task for c, a in trainer.targets.items()},
                                        run.settings.hidden, only_fusions=only_fusions)
    console.say(f"comparing {len(chosen)} candidates on {len(pairs)} folds")
    entries, failed = match.go(chosen)
    for one in failed:
        console.warn(f"{one['name']} could not be tried: {one['why']}")

    def told() -> Found:
        return {column: standings.compared(match, column, entries, [*skipped, *failed], how=how + KIND, ensemble=ensemble)
                for column in match.held}

    found = told()
    by_name = {e.candidate.name: e.candidate for e in entries}
    if trials:
        searched = search.search(match, [by_name[name] for name in standings.order(found)], trials, trainer.settings.seed)
        if searched is not None:
            entries.append(searched)
            by_name[searched.candidate.name] = searched.candidate
            found = told()
    name = standings.order(found)[0]
    standings.mark(found, name)
    return found, by_name[name]


def timeless(found: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Any]:
    """Without times, which would make the bytes of equal runs differ."""
    times = ("train_seconds", "predict_ms_per_row")
    return {column: {**one, "candidates": [{k: v for k, v in c.items() if k not in times} for c in one["candidates"]]}
            for column, one in (found or {}).items()}
