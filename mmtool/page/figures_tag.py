"""Plots of any number of labels a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmtool.page import scores as s
from mmtool.page.contents import TargetPart
from mmtool.page.figures import BLUE, GREEN, GREY, ORANGE, RED, Plot, draw, few_ticks, label, reliability
from mmtool.page.words import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_TAGS, GROUP = 20, 7


def tags_of(part: TargetPart) -> list[set[str]]:
    """The true tags of each row, those that training knows."""
    from mmtool.tasks.codec import split_cell

    known = set(part.labels)
    return [{str(tag) for tag in split_cell(cell)} & known for cell in part.truth]


def given_of(part: TargetPart) -> list[set[str]]:
    """The predicted tags of each row, those that training knows."""
    known = set(part.labels)
    return [{str(tag) for tag in p["prediction"]} & known for p in part.predictions]


def matrix(rows: Sequence[set[str]], labels: Sequence[str]) -> s.Array:
    """Which labels each row has, `[N, C]`, bool."""
    at = {name: i for i, name in enumerate(labels)}
    out = np.zeros((len(rows), len(labels)), dtype=bool)
    for row, tags in enumerate(rows):
        out[row, [at[tag] for tag in tags if tag in at]] = True
    return out


def plots(part: TargetPart) -> list[Plot]:
    """Counts of tags; and, where there are probabilities, precision-recall, each tag's AP, and reliability."""
    true, given = tags_of(part), given_of(part)
    occurrences = Counter(tag for tags in true for tag in tags)
    labels = s.by_frequency(part.labels, occurrences)
    out = [_counts(labels, occurrences, Counter(tag for tags in given for tag in tags))] if labels else []
    if not s.has_probabilities(part):
        return out
    labels = s.few_enough(labels, len(true))
    y, p = matrix(true, labels), np.clip(s.scores(part, labels), 0, 1)  # [N, C]
    both = [i for i in range(len(labels)) if 0 < y[:, i].sum() < len(y)]
    error = part.metrics["overall"].get("calibration_error")
    tail = [reliability("tag decisions", p.ravel(), y.ravel().astype(float), error and error["value"])]
    if not both:
        return out + tail
    found = [s.precision_recall(y[:, i], p[:, i]) for i in both]
    each = [(labels[i], area, float(y[:, i].mean())) for i, (_, _, area) in zip(both, found, strict=True)]
    cut = "" if len(labels) == len(part.labels) else f" Of the {len(labels)} most frequent tags."
    macro = (s.GRID, s.mean_precision([(r, pr) for r, pr, _ in found]), float(np.mean([a for *_, a in found])))
    return [_precision_recall(s.precision_recall(y.ravel(), p.ravel()), macro, cut), _each(each), *tail, *out]


def _counts(labels: Sequence[str], true: Counter[str], given: Counter[str]) -> Plot:
    shown = labels[:MOST_TAGS]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        y = np.arange(len(shown))
        axes.hlines(y, [min(true[n], given[n]) for n in shown], [max(true[n], given[n]) for n in shown], color="#bbbbbb")
        axes.plot([true[n] for n in shown], y, "o", color=BLUE, markersize=6, label="true")
        axes.plot([given[n] for n in shown], y, "D", color=ORANGE, markersize=5, label="predicted")
        axes.set_yticks(y, [label(n) for n in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(left=0)
        few_ticks(axes, "x", whole=True)
        axes.set_xlabel("rows")
        figure.legend(loc="outside lower center", ncols=2)

    cut = f" The {MOST_TAGS} most frequent of {len(labels)}." if len(labels) > MOST_TAGS else ""
    return Plot("counts", "How often each tag is there", "A tag left of its true count is given too rarely." + cut,
                draw(paint, 1.2 + 0.21 * len(shown)))


def _precision_recall(micro: tuple[s.Array, s.Array, float], macro: tuple[s.Array, s.Array, float], cut: str) -> Plot:
    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for (x, y, area), name, colour, dash in ((micro, "all decisions (micro)", BLUE, "-"),
                                                 (macro, "mean of tags (macro)", RED, "--")):
            axes.plot(*s.thin(x, y), color=colour, linestyle=dash, label=f"{name} {number(area)}", drawstyle="steps-pre")
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.04)
        axes.set_xlabel("recall")
        axes.set_ylabel("precision")
        figure.legend(loc="outside lower center", ncols=1)

    return Plot("pr", "Precision and recall", "With average precision (AP). The further into the upper right corner the "
                "better: a lower threshold moves to the right." + cut, draw(paint, 3.7))


def _each(each: Sequence[tuple[str, float, float]]) -> Plot:
    """Average precision of each tag, or of the most frequent, the best and the worst, beside what chance would get."""
    ranked = sorted(each, key=lambda e: (-e[1], e[0]))
    many = len(each) > MOST_TAGS
    frequent = {e[0] for e in each[:GROUP]} if many else set()  # they come sorted by frequency
    rest = [e for e in ranked if e[0] not in frequent]
    groups = [("most frequent", [e for e in ranked if e[0] in frequent], GREEN), ("best of the rest", rest[:GROUP - 1], BLUE),
              ("worst of the rest", rest[-(GROUP - 1):], RED)] if many else [("tags", ranked, BLUE)]
    rows = [(e, colour) for _, members, colour in groups for e in members]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        at = 0
        for name, members, colour in groups:
            y = np.arange(at, at + len(members))
            axes.plot([e[1] for e in members], y, "o", color=colour, label=name if many else "average precision")
            at += len(members)
        axes.plot([e[2] for e, _ in rows], range(len(rows)), "|", color=GREY, markersize=10, markeredgewidth=2, label="chance")
        axes.set_yticks(range(len(rows)), [label(e[0]) for e, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(-0.03, 1.03)
        axes.set_xlabel("average precision")
        figure.legend(loc="outside lower center", ncols=2)

    cut = f" {len(rows)} of {len(each)} tags are shown." if many else ""
    return Plot("tags", "How well each tag is found", "Chance is the share of rows that have the tag." + cut,
                draw(paint, 1.3 + 0.21 * len(rows)))
