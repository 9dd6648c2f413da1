"""The rows that a person should look at first: most confidently wrong, or with the largest errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmtool.page import scores as s
from mmtool.page.contents import TargetPart
from mmtool.page.words import number

MOST = 12


@dataclass(frozen=True)
class Worst:
    """One wrong row in words; `details` are pairs for small print."""

    id: str
    truth: str
    prediction: str
    details: list[tuple[str, str]]
    inputs: list[str]


def worst_rows(part: TargetPart, most: int = MOST) -> tuple[str, list[Worst]]:
    """What the rows are, for the heading, and the rows, the worst first; none for a third party's task."""
    found = {"classify": _classify, "tag": _tag, "regress": _regress}.get(part.task)
    return found(part, most) if found and part.predictions else ("", [])


def _row(part: TargetPart, at: int, truth: str, prediction: str, details: list[tuple[str, str]]) -> Worst:
    given = part.predictions[at]
    return Worst(str(given["id"]), truth, prediction, details, [str(n) for n in given.get("inputs") or []])


def _classify(part: TargetPart, most: int) -> tuple[str, list[Worst]]:
    answers, confidence = s.answers(part), s.confidences(part)
    wrong = [i for i, (a, t) in enumerate(zip(answers, part.truth, strict=True)) if a != t]
    if confidence is not None:
        wrong.sort(key=lambda i: -confidence[i])
    rows = []
    for i in wrong[:most]:
        details = [] if confidence is None else [("sure of it", _percent(float(confidence[i])))]
        if s.has_probabilities(part):
            details.append(("gave the truth", _percent(float(s.scores_of(part, i).get(part.truth[i], 0.0)))))
        rows.append(_row(part, i, part.truth[i], answers[i], details))
    how = "surest first" if confidence is not None else "in the order of the file, since no confidence is known"
    return f"{len(wrong):,} of {len(answers):,} rows are wrong; {how}", rows


def _tag(part: TargetPart, most: int) -> tuple[str, list[Worst]]:
    from mmtool.page.figures_tag import given_of, tags_of

    true, given = tags_of(part), given_of(part)
    wrong = [i for i in range(len(true)) if true[i] != given[i]]
    if s.has_probabilities(part):
        losses = {i: _tag_loss(s.scores_of(part, i), true[i], part.labels) for i in wrong}
        wrong.sort(key=lambda i: -losses[i])
    else:
        wrong.sort(key=lambda i: -len(true[i] ^ given[i]))
    rows = []
    for i in wrong[:most]:
        details = [(name, ", ".join(sorted(tags))) for name, tags in
                   (("left out", true[i] - given[i]), ("given wrongly", given[i] - true[i])) if tags]
        rows.append(_row(part, i, ", ".join(sorted(true[i])) or "(no tag)", ", ".join(sorted(given[i])) or "(no tag)", details))
    return f"{len(wrong):,} of {len(true):,} rows have a wrong or missing tag; worst first", rows


def _tag_loss(probabilities: dict[str, Any], true: set[str], labels: Sequence[str]) -> float:
    p = np.clip([probabilities.get(name, 0.0) for name in labels], 1e-6, 1 - 1e-6)
    there = np.array([name in true for name in labels])
    return float(-np.log(np.where(there, p, 1 - p)).mean())


def _regress(part: TargetPart, most: int) -> tuple[str, list[Worst]]:
    from mmtool.page.figures_regress import values

    y, predicted = values(part)
    scale = y.std(0)
    errors = predicted - y
    size = np.abs(errors / np.where(scale > 0, scale, 1.0)).max(1)
    order = [int(i) for i in np.argsort(-size, kind="stable") if size[i] > 0][:most]
    each = [(i, [" | ".join(map(number, r[i].tolist())) for r in (y, predicted, errors)]) for i in order]
    rows = [_row(part, i, true, given, [("error", error)]) for i, (true, given, error) in each]
    return f"of {len(y):,} rows, those with the largest errors", rows


def _percent(p: float) -> str:
    return f"{100 * p:.1f} %" if 0.001 <= p <= 0.999 or p in (0, 1) else "over 99.9 %" if p > 0.5 else "under 0.1 %"
