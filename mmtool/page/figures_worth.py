"""What each input is worth, as bars."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from mmtool.page import words
from mmtool.page.contents import TargetPart
from mmtool.page.figures import BLACK, BLUE, GREY, ORANGE, Plot, draw, few_ticks, label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEIGHT_IN = 0.55


def bars(part: TargetPart) -> Plot | None:
    """Each input's Shapley value with its interval, beside its gain alone and what is lost without it."""
    worth = part.worth
    if not worth:
        return None
    entries = sorted(worth["inputs"].items(), key=lambda item: (-item[1]["shapley"]["value"], item[0]))

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for at, (_, entry) in enumerate(entries):
            first, m = at == 0, entry["shapley"]
            axes.barh(at, m["value"], 0.42, color=BLUE, alpha=0.75, label="worth (Shapley value)" if first else None)
            axes.plot([m["low"], m["high"]], [at, at], color=BLACK, linewidth=1.6, solid_capstyle="butt")
            for key, place, marker, colour, text in (("alone", at - 0.32, "o", ORANGE, "gain alone"),
                                                     ("left_out", at + 0.32, "D", GREY, "lost without it")):
                other = entry[key]
                axes.plot([other["low"], other["high"]], [place, place], color=colour, linewidth=1.4, alpha=0.6)
                axes.plot([other["value"]], [place], marker, color=colour, markersize=5, linestyle="none",
                          label=text if first else None)
        axes.axvline(0, color="#444444", linewidth=1)
        axes.set_yticks(range(len(entries)), ["\n".join(textwrap.wrap(label(name, 36), 18)) for name, _ in entries])
        axes.set_ylim(len(entries) - 0.4, -0.6)
        axes.grid(False, axis="y")
        few_ticks(axes, "x")
        axes.set_xlabel(f"{'gain' if worth['greater_is_better'] else 'fall'} in {label(words.title_of(worth['metric']), 40)}")
        handles, names = axes.get_legend_handles_labels()
        figure.legend(handles[-1:] + handles[:-1], names[-1:] + names[:-1], loc="outside lower center", ncols=2)

    caption = ("Bars are the worths, which add up to the gain over no input; lines are 95 % intervals. An input that gains "
               "much alone and is not missed is one that others can stand in for; one that gains nothing alone and is "
               "missed works only together with others.")
    return Plot("worth", "Worth of each input", caption, draw(paint, 1.3 + HEIGHT_IN * len(entries)))
