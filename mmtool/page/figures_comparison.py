"""Candidates that were compared, as ranked dots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmtool.page import words
from mmtool.page.comparison import close
from mmtool.page.contents import TargetPart
from mmtool.page.figures import BLUE, GREY, ORANGE, RED, Plot, draw, few_ticks, label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME_CHARS, ROW_IN = 24, 0.22


def dots(part: TargetPart) -> Plot | None:
    """Every candidate's metric with its interval, the best on top, beside what one gets without inputs."""
    found = part.comparison
    if not found or not found["candidates"]:
        return None
    each, nothing = found["candidates"], found.get("without_inputs")
    low, high = _limits(each, nothing)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        told = set[str]()
        for at, candidate in enumerate(each):
            chosen, near = bool(candidate.get("chosen")), close(candidate)
            colour = ORANGE if chosen else BLUE if near else GREY
            text = "chosen" if chosen else "within the noise of the best" if near else "clearly worse than the best"
            shown = min(max(candidate["value"], low), high)
            if candidate["low"] <= high and candidate["high"] >= low:
                axes.plot([max(candidate["low"], low), min(candidate["high"], high)], [at, at], color=colour, linewidth=2.2,
                          alpha=0.5, solid_capstyle="butt")
            marker = "D" if chosen else "o" if shown == candidate["value"] else "<" if shown == low else ">"
            axes.plot([shown], [at], marker, color=colour, markersize=7 if chosen else 5, linestyle="none",
                      label=None if text in told else text)
            told.add(text)
        if nothing is not None:
            axes.axvline(nothing, color=RED, linestyle="--", linewidth=1.2, label="no input")
        axes.set_yticks(range(len(each)), [label(_short(str(c["name"])), NAME_CHARS) for c in each])
        for tick, candidate in zip(axes.get_yticklabels(), each, strict=True):
            tick.set_fontweight("bold" if candidate.get("chosen") else "normal")
        axes.set_ylim(len(each) - 0.4, -0.6)
        axes.grid(False, axis="y")
        few_ticks(axes, "x", 4)
        better = "more" if found["greater_is_better"] else "less"
        axes.set_xlabel(f"{label(words.title_of(found['metric']), 40)} ({better} is better)")
        figure.legend(loc="outside lower center", ncols=1 if len(told) > 2 else 2)

    cut = " An arrow at the edge stands for a value beyond it." if any(not low <= c["value"] <= high for c in each) else ""
    caption = ("The best on top; bars are 95 % intervals. Noise is judged by the paired difference from the best, so two bars "
               "may overlap and yet differ clearly." + cut)
    return Plot("comparison", "Candidates by their score", caption, draw(paint, 1.4 + ROW_IN * max(len(each), 3)))


def _limits(each: Sequence[Mapping[str, Any]], nothing: float | None) -> tuple[float, float]:
    """What the better half, and no input, need, and as much again: one that went astray must not squeeze the others."""
    better = each[:max(2, (len(each) + 1) // 2)]
    kept = [v for c in better for v in (c["low"], c["value"], c["high"])] + ([] if nothing is None else [nothing])
    room = max(kept) - min(kept)
    every = [v for c in each for v in (c["low"], c["value"], c["high"])] + kept
    return max(min(every), min(kept) - room), min(max(every), max(kept) + room)


def _short(name: str) -> str:
    """A long name without its middle: what tells candidates apart is often at the end."""
    return name if len(name) <= NAME_CHARS else f"{name[:NAME_CHARS // 2]}…{name[1 - NAME_CHARS // 2:]}"
