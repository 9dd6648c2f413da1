"""Plots of one label a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmtool.page import scores as s
from mmtool.page.contents import TargetPart
from mmtool.page.figures import BLACK, BLUE, DASHES, GREY, SERIES, SKY, Plot, draw, label, reliability, wilson
from mmtool.page.words import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN_CLASSES, ANNOTATED, CURVED = 20, 12, 8


def plots(part: TargetPart) -> list[Plot]:
    """Confusion matrix; and, where there are probabilities, reliability, ROC and precision-recall."""
    out = [confusion(part)]
    confidence = s.confidences(part)
    if confidence is not None:
        correct = np.array([a == t for a, t in zip(s.answers(part), part.truth, strict=True)], dtype=float)
        error = part.metrics["overall"].get("calibration_error")
        out.append(reliability("answers", confidence, correct, error and error["value"]))
        out.append(selective(confidence, correct))
    return out + (_curves(part) if s.has_probabilities(part) else [])


def seen_labels(part: TargetPart) -> list[str]:
    """Labels that occur in truth or answers, the most frequent first."""
    return s.by_frequency([*part.truth, *s.answers(part)], Counter(part.truth))


def confusion(part: TargetPart) -> Plot:
    """Truth by answer; each row of the matrix adds up to 1."""
    answers, labels = s.answers(part), seen_labels(part)
    wrong = Counter(name for a, t in zip(answers, part.truth, strict=True) if a != t for name in (a, t))
    many = len(labels) > SHOWN_CLASSES
    shown = s.by_frequency(labels, wrong)[:SHOWN_CLASSES] if many else labels
    shown = [name for name in labels if name in set(shown)]
    at = {name: i for i, name in enumerate(shown)}
    counts = np.zeros((len(shown), len(shown)))  # [truth, answer]
    for a, t in zip(answers, part.truth, strict=True):
        if a in at and t in at:
            counts[at[t], at[a]] += 1
    totals = Counter(part.truth)
    shares = counts / np.array([[max(totals[name], 1)] for name in shown])
    size = len(shown)
    annotated = size <= ANNOTATED

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        mesh = axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=0.8)
        axes.set_ylim(size, 0)
        axes.grid(False)
        axes.spines[:].set_visible(False)
        small = 9 if annotated else 8
        ticks, names = np.arange(size) + 0.5, [label(name, 14) for name in shown]
        axes.set_yticks(ticks, names, fontsize=small)
        axes.set_xticks(ticks, names, fontsize=small, rotation=0 if size <= 3 else 90)
        axes.tick_params(length=0)
        for i, j in np.ndindex(*counts.shape) if annotated else ():
            if counts[i, j]:
                axes.text(j + 0.5, i + 0.5, f"{counts[i, j]:.0f}", ha="center", va="center",
                          fontsize=9 if counts.max() < 1000 else 8, color="white" if shares[i, j] > 0.55 else "#222222")
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        if not annotated:
            figure.colorbar(mesh, ax=axes, location="top", shrink=0.6, aspect=30, label="share of the true class")

    caption = "Numbers are rows, colours shares of the true class" if annotated else "Colours are shares of the true class"
    caption += f". Of {len(labels)} classes, the {SHOWN_CLASSES} with the most errors." if many else "; the diagonal is right."
    height = min(5.0, 2.2 + 0.32 * size) if annotated else 5.2
    return Plot("confusion", "What is taken for what", caption, draw(paint, height))


def selective(confidence: s.Array, correct: s.Array) -> Plot:
    """Accuracy of the most confident rows against their share (El-Yaniv and Wiener, 2010); equals are kept or left together."""
    order = np.argsort(-confidence, kind="stable")
    kept = np.arange(1, len(order) + 1)
    accuracy = correct[order].cumsum() / kept
    last = np.append(np.diff(confidence[order]) != 0, True)  # no threshold parts equals
    x, y, n = kept[last] / len(order), accuracy[last], kept[last]
    low, high = wilson(y, n)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.fill_between(x, low, high, color=SKY, alpha=0.35, linewidth=0, step="pre")
        axes.step(x, y, where="pre", color=BLUE)
        axes.axhline(accuracy[-1], color=GREY, linestyle="--", linewidth=1)
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(min(0.98, float(low[n >= min(10, len(order))].min())) - 0.02, 1.02)
        axes.set_xlabel("share of rows kept, most confident first")
        axes.set_ylabel("accuracy of those")

    return Plot("selective", "What abstaining would gain", "Accuracy where the least confident rows are left to people "
                "(--abstain-below), with 95 % intervals; the dashed line is all rows.", draw(paint))


def _curves(part: TargetPart) -> list[Plot]:
    """ROC and precision-recall, one class against the rest."""
    truth = np.array(part.truth, dtype=object)
    known = set(part.labels) | {name for p in part.predictions for name in p["probabilities"]}
    usable = [n for n in seen_labels(part) if n in known and 0 < int((truth == n).sum()) < len(truth)]
    labels = s.few_enough(usable, len(truth))
    if not labels:
        return []
    values = s.scores(part, labels)  # [N, C]
    overall = part.metrics["overall"]
    mean = "mean of classes" if len(labels) == len(usable) else f"mean of the {len(labels)} most frequent"
    each = [name for name in labels if len(usable) <= CURVED]
    out = []
    for kind in ("roc", "pr"):
        found = [(s.roc if kind == "roc" else s.precision_recall)(truth == n, values[:, i]) for i, n in enumerate(labels)]
        pairs = [(x, y) for x, y, _ in found]
        areas = [area for *_, area in found]
        known_area = overall.get("roc_auc" if kind == "roc" else "average_precision", {}).get("value")
        area = known_area if known_area is not None and len(labels) == len(usable) else float(np.mean(areas))
        macro = (s.GRID, s.mean_roc(pairs) if kind == "roc" else s.mean_precision(pairs), f"{mean} {number(area)}")
        out.append(_curve_plot(kind, list(zip(each, pairs, areas, strict=False)), macro if len(usable) > 2 else None))
    return out


def _curve_plot(kind: str, each: Sequence[tuple[str, tuple[s.Array, s.Array], float]],
                macro: tuple[s.Array, s.Array, str] | None) -> Plot:
    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for i, (name, (x, y), area) in enumerate(each):
            _line(axes, kind, x, y, f"{label(name, 14)} {number(area)}", SERIES[i % len(SERIES)], DASHES[i % len(DASHES)])
        if macro is not None:
            _line(axes, kind, *macro, BLACK, "-", 2.4)
        if kind == "roc":
            axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.04)
        axes.set_xlabel("false positive rate" if kind == "roc" else "recall")
        axes.set_ylabel("true positive rate" if kind == "roc" else "precision")
        figure.legend(loc="outside lower center", ncols=2, handlelength=2.4)

    lines = len(each) + (macro is not None)
    svg = draw(paint, 3.2 + 0.19 * ((lines + 1) // 2))
    if kind == "roc":
        return Plot("roc", "ROC curves", "Each class against the rest, with the area under its curve (AUC). The further into "
                    "the upper left corner the better; the dashed line is chance.", svg)
    return Plot("pr", "Precision and recall", "Each class against the rest, with its average precision (AP). The further into "
                "the upper right corner the better.", svg)


def _line(axes: Axes, kind: str, x: s.Array, y: s.Array, name: str, colour: str, dash: str, width: float = 1.5) -> None:
    x, y = s.thin(x, y)
    style = "default" if kind == "roc" else "steps-pre"
    axes.plot(x, y, color=colour, linestyle=dash, linewidth=width, label=name, drawstyle=style)
