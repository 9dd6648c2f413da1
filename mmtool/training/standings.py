"""How the candidates of a contest stand, target by target: ranks, gaps, an ensemble of them, the one that is chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mmtool.errors import DataError
from mmtool.metrics import greedy, ranking
from mmtool.training.contest import Contest, Entry

ENSEMBLE = "ensemble"
WHOLE = ("fusion", "head", "search")
"""Kinds of candidates that see every input, and can become the model."""


def compared(match: Contest, column: str, entries: Sequence[Entry], skipped: Sequence[Mapping[str, str]], *, how: str,
             ensemble: bool) -> dict[str, Any]:
    """The comparison for one target, as comparison.json has it."""
    held, task, seed = match.held[column], match.run.make_tasks()[column], match.run.settings.seed
    truth = [cell for row in held.rows if (cell := match.run.targets[column][row]) is not None]
    by_name = {e.candidate.name: e for e in entries}
    found: dict[str, list[dict[str, Any]]] = {name: e.answers[column].predictions for name, e in by_name.items()}
    whole = [e for e in entries if e.candidate.inputs == tuple(match.names)]
    mixed = _ensemble(match, column, whole) if ensemble and len(whole) > 1 else None
    if mixed is not None:
        found[ENSEMBLE] = mixed[0]
    lines, told = [], None
    for line in ranking.rank(task, found, truth, seed):
        name = line.pop("name")
        line.pop("metric")
        if name == ENSEMBLE:
            assert mixed is not None
            told = {"members": mixed[1], **{k: line[k] for k in ("value", "low", "high")}}
            facts: dict[str, Any] = {"kind": "ensemble", "inputs": list(match.names), "fusion": None, "loss": mixed[2]}
        else:
            entry = by_name[name]
            c, loss = entry.candidate, entry.answers[column].loss
            facts = {"kind": c.kind, "inputs": list(c.inputs), "fusion": c.fusion, "hidden": list(c.hidden),
                     **({"settings": dict(c.changes)} if c.changes else {}),
                     "loss": None if loss is None else round(loss, 6), "parameters": entry.parameters,
                     "train_seconds": entry.train_seconds, "predict_ms_per_row": entry.predict_ms_per_row}
        lines.append({"name": name, **facts, **line})
    return {"metric": task.main_metric, "greater_is_better": task.greater_is_better, "rows": len(truth),
            "folds": len(match.parts), "how": how, "without_inputs": ranking.value(task, [task.baseline()] * len(truth), truth),
            "candidates": lines, "skipped": [dict(s) for s in skipped], "ensemble": told}


def _ensemble(match: Contest, column: str, entries: Sequence[Entry]) -> tuple[list[dict[str, Any]], dict[str, float], float]:
    """Predictions by weights that were chosen on other folds, the weights by all rows, and the predictions' loss."""
    held, task = match.held[column], match.run.make_tasks()[column]
    y, lengths = torch.cat([d.y for d in held.parts]), torch.cat([d.lengths for d in held.parts])
    scores = torch.stack([task.to_scores(torch.from_numpy(e.answers[column].outputs)) for e in entries])  # [C, N, K]
    weights = greedy.select(task, scores, y, lengths).tolist()
    outputs = task.from_scores(greedy.cross_fitted(task, scores, y, lengths, held.folds))
    task.settle(outputs, y)
    members = {e.candidate.name: round(w, 6) for e, w in zip(entries, weights, strict=True) if w}
    return task.decode(outputs), members, round(float(task.loss(outputs, y, lengths).mean()), 6)


def order(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The names of the candidates that see every input, by their mean rank over the targets; less loss breaks ties.

    Raises MMToolError where there is none.
    """
    ranks: dict[str, list[tuple[float, float]]] = {}
    lines: dict[str, dict[str, Any]] = {}
    for comparison in found.values():
        sign = -1 if comparison["greater_is_better"] else 1
        able = [c for c in comparison["candidates"] if c["kind"] in WHOLE]
        for c in able:
            better = sum(sign * other["value"] < sign * c["value"] for other in able)
            ranks.setdefault(c["name"], []).append((better, c["loss"]))
            lines[c["name"]] = c
    whole = {name: r for name, r in ranks.items() if len(r) == len(found)}
    if not whole:
        raise DataError("no fusion could be tried", "see what was skipped, or name one with -f")
    return sorted(whole, key=lambda n: (sum(r for r, _ in whole[n]), sum(loss for _, loss in whole[n]),
                                        lines[n]["parameters"], n))


def mark(found: Mapping[str, Mapping[str, Any]], name: str) -> None:
    """Say which candidate was chosen."""
    for comparison in found.values():
        for c in comparison["candidates"]:
            c["chosen"] = c["name"] == name
