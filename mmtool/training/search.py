"""Settings of the best candidates, searched by Optuna's tree-structured Parzen estimator on the folds of the comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mmtool import console
from mmtool.training.candidates import Candidate
from mmtool.training.contest import Contest, Entry
from mmtool.training.solve import one_thread

AMONG = 3
"""So many of the best candidates are searched."""
DENSE: dict[str, tuple[int, ...]] = {"none": (), "64": (64,), "256": (256,)}


def search(match: Contest, best: Sequence[Candidate], trials: int, seed: int) -> Entry | None:
    """The best of so many trials, by the sum of the targets' mean losses out of fold; None where every one failed."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    found: dict[int, Entry] = {}
    by_name = {c.name: c for c in best[:AMONG]}
    with console.progress("search", trials) as advance:
        for _ in range(trials):
            trial = study.ask()
            candidate = _suggested(trial, by_name)
            with one_thread():
                entry = match.attempt((trial.number, candidate))
            if isinstance(entry, str):
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, _loss(entry))
                found[trial.number] = entry
            advance(1)
    if not found:
        return None
    return found[min(found, key=lambda n: (_loss(found[n]), n))]


def _loss(entry: Entry) -> float:
    """Over all targets; it sees every input, so that it has one of each."""
    loss = sum(answer.loss for answer in entry.answers.values() if answer.loss is not None)
    return loss if math.isfinite(loss) else math.inf


def _suggested(trial: Any, by_name: dict[str, Candidate]) -> Candidate:
    """One of the candidates with settings of its own. A head that is solved for has but one that matters."""
    candidate = by_name[trial.suggest_categorical("candidate", list(by_name))]
    hidden, changes = candidate.hidden, dict[str, Any]()
    solve = trial.suggest_categorical("way", ["as it is", "descend"]) == "as it is"
    changes["modality_dropout"] = round(trial.suggest_float("modality_dropout", 0.0, 0.3), 4)
    if not solve:
        if not hidden:
            hidden = DENSE[trial.suggest_categorical("dense", list(DENSE))]
        changes["optimizer"] = "adamw"
        changes["dropout"] = round(trial.suggest_float("dropout", 0.0, 0.5), 4)
        changes["given"] = {"lr": _rounded(trial.suggest_float("lr", 1e-4, 1e-2, log=True)),
                            "weight_decay": _rounded(trial.suggest_float("weight_decay", 1e-3, 1.0, log=True))}
    return replace(candidate, name=f"{candidate.name}, searched", kind="search", hidden=hidden, changes=changes)


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
