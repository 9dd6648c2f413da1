"""How plots look, and those that every task has. Equal work gives equal bytes of SVG."""

from __future__ import annotations

import io
import math
import re
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmtool.console import literal
from mmtool.page import words
from mmtool.page.contents import TargetPart

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Array = np.ndarray[Any, np.dtype[Any]]

BLUE, RED, GREEN, ORANGE, SKY, PURPLE, BLACK, YELLOW, GREY = (
    "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000", "#B8A600", "#777777")
SERIES = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW)
"""Told apart by most colour-blind people (after Okabe and Ito, 2008)."""
DASHES = ("-", "--", "-.", ":")
WIDTH_IN, HEIGHT_IN = 4.6, 3.5
STYLE: dict[str, Any] = {
    "svg.hashsalt": "mmtool", "svg.fonttype": "none", "text.parse_math": False, "font.size": 10, "axes.labelsize": 10,
    "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.fontsize": 9, "legend.frameon": False, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": "#e4e4e4", "grid.linewidth": 0.7, "axes.axisbelow": True,
    "lines.linewidth": 1.8, "axes.edgecolor": "#888888", "xtick.color": "#333333", "ytick.color": "#333333",
    "axes.labelcolor": "#222222", "axes.titlesize": 10}
LABEL_CHARS, GRID_POINTS = 20, 201
_NOT_IN_XML = re.compile("[\ufffe\uffff]")
_NOT_IN_NAME = re.compile("[^A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class Plot:
    """One plot: `kind` names its file, `caption` says how to read it."""

    kind: str
    title: str
    caption: str
    svg: bytes


def draw(paint: Callable[[Figure], None], height_in: float = HEIGHT_IN, width_in: float = WIDTH_IN) -> bytes:
    """A figure as SVG, in this module's style whatever the user's own is."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser's fonts draw the text
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        paint(figure)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def label(text: object, chars: int = LABEL_CHARS) -> str:
    """Foreign text as a short label that is safe in XML and says nothing to matplotlib (which hides a leading `_`)."""
    plain = _NOT_IN_XML.sub("?", literal(str(text)))
    short = plain if len(plain) <= chars else plain[:chars - 1] + "…"
    return "\u200b" + short if short.startswith("_") else short


def slug(text: str) -> str:
    """A column's name as a part of a file's name."""
    return _NOT_IN_NAME.sub("-", text).strip("-.")[:40] or "target"


def by_inputs(part: TargetPart) -> Plot | None:
    """The chosen metric for each subset of inputs and each baseline, with intervals: a dot plot."""
    metric = words.chosen(part)
    if metric is None:
        return None
    sign = 1 if words.greater(part, metric) else -1
    each = [(name, m[metric]) for name, _, m in words.lines(part) if metric in m]
    middle = [e for e in each[1:] if e[0] != "no input"]
    middle.sort(key=lambda e: (-e[0].count(" + "), -sign * e[1]["value"], e[0]))
    found = [(*each[0], BLACK), *((*e, BLUE) for e in middle), *((*e, RED) for e in each[1:] if e[0] == "no input")]
    if len(found) < 2:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for at, (_, m, colour) in enumerate(found):
            axes.plot([m["low"], m["high"]], [at, at], color=colour, linewidth=2.5, alpha=0.5, solid_capstyle="butt")
            axes.plot([m["value"]], [at], marker="o", markersize=7, color=colour)
            axes.annotate(words.number(m["value"]), (m["value"], at), (0, 6), textcoords="offset points", ha="center",
                          fontsize=9, color="#222222")
        axes.set_yticks(range(len(found)), ["\n".join(textwrap.wrap(label(name, 44), 22)) for name, _, _ in found])
        axes.set_ylim(len(found) - 0.4, -0.7)
        axes.grid(False, axis="y")
        few_ticks(axes, "x")
        axes.margins(x=0.08)
        axes.set_xlabel(f"{words.title_of(metric)} ({'more' if sign > 0 else 'less'} is better)")

    caption = ("Dots are the values, bars the 95 % intervals. Each subset is scored on the rows that have those inputs, "
               "with every other input hidden.")
    return Plot("inputs", "With some of the inputs", caption, draw(paint, 0.9 + 0.4 * len(found)))


def curves(part: TargetPart) -> Plot | None:
    """Loss on the rows that were fitted and on those held out, every fold."""
    drawn = [c for c in part.curves if c.x and c.held]
    if not drawn:
        return None
    logarithmic = "epoch" not in drawn[0].x_label and all(x > 0 for c in drawn for x in c.x)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for number, curve in enumerate(drawn):
            first = number == 0
            axes.plot(curve.x, _finite(curve.held), color=BLUE, linewidth=1.4, label="held out" if first else None)
            if curve.fit is not None:
                axes.plot(curve.x, _finite(curve.fit), color=ORANGE, linewidth=1.2, linestyle="--",
                          label="fitted" if first else None)
            if curve.best in curve.x:
                axes.plot([curve.best], [_finite(curve.held)[curve.x.index(curve.best)]], "o", color=RED, markersize=5,
                          linestyle="none", label="chosen" if first else None)
        if logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}".replace("e-0", "e-").replace("e+0", "e+"))
            axes.minorticks_off()
        else:
            few_ticks(axes, "x", 6, whole=True)
        axes.set_xlabel(label(drawn[0].x_label, 40))
        axes.set_ylabel("loss")
        figure.legend(loc="outside lower center", ncols=3)

    folds = f"One line for each of {len(drawn)} parts (folds). " if len(drawn) > 1 else ""
    return Plot("curves", "Training", folds + "Held-out rows did not take part in the fit; where their loss rises while the "
                "other falls, the model learns its rows by heart.", draw(paint))


def reliability(kind_of: str, confidence: Array, correct: Array, error: float | None, bins: int = 15) -> Plot:
    """Stated confidence `[n]` against how often it was right `[n]`, in equal bins, above a histogram of confidence."""
    import numpy as np

    group = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(group, minlength=bins)
    used = counts > 0
    mean = np.bincount(group, confidence, bins)[used] / counts[used]
    share = np.bincount(group, correct, bins)[used] / counts[used]
    low, high = wilson(share, counts[used])

    def paint(figure: Figure) -> None:
        upper, lower = figure.subplots(2, sharex=True, height_ratios=[3, 1])
        upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
        upper.vlines(mean, low, high, color=BLUE, alpha=0.5, linewidth=2.5)
        upper.plot(mean, share, "o", color=BLUE, markersize=5)
        upper.set_ylim(-0.04, 1.04)
        upper.set_ylabel("share that is right" if kind_of == "answers" else "share that is true")
        if error is not None:
            upper.set_title(f"calibration error {words.number(error)}", loc="right", fontsize=9)
        lower.bar((np.arange(bins) + 0.5) / bins, counts, 0.9 / bins, color=SKY)
        lower.set_xlim(-0.02, 1.02)
        few_ticks(lower, "y", 2)
        lower.set_ylabel("count")
        lower.set_xlabel("stated probability")

    caption = (f"On the dashed line a probability means what it says; below it, the model is too sure. All {len(confidence):,} "
               f"{kind_of} in {bins} bins, with 95 % intervals.")
    return Plot("reliability", "Can the probabilities be trusted?", caption, draw(paint, 4.2))


def few_ticks(axes: Axes, axis: str, most: int = 5, *, whole: bool = False) -> None:
    """At most so many ticks, so that a phone has room."""
    from matplotlib.ticker import MaxNLocator

    (axes.xaxis if axis == "x" else axes.yaxis).set_major_locator(MaxNLocator(most, integer=whole))


def _finite(values: Sequence[float]) -> list[float]:
    return [v if math.isfinite(v) else math.nan for v in values]


def wilson(share: Array, n: Array) -> tuple[Array, Array]:
    """95 % interval of a share (Wilson, 1927)."""
    z = 1.959964
    middle, half = (share + z * z / (2 * n)), z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
