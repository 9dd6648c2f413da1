"""An explanation on the terminal: bars of the inputs, then what matters within each."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmtool import console

BAR = 24
"""Characters of the longest bar."""
MOST_SHOWN = 5
LEAST_SHARE = 0.1
"""Of the strongest part's score; what is weaker is not shown."""
MARKED_SHARE = 0.5
"""The same of words that are marked in their text, for speaking for the prediction."""
LONGEST_TEXT = 400
LONGEST_WORD = 40


def lines(prediction: Mapping[str, Any]) -> Iterator[str]:
    """The lines for one explained prediction."""
    explanation, contributions = prediction["explanation"], prediction["contributions"]
    probable = explanation["unit"] == "probability"
    if "baseline" in explanation:
        of = f" {console.literal(explanation['of'])}" if probable else ""
        yield (f"why{of}: {number(explanation['baseline'], probable, signed=False)} without inputs, "
               f"{number(explanation['value'], probable, signed=False)} with")
    else:
        yield f"why {console.literal(explanation['of'])}, in nats of evidence"
    most = max((abs(c) for c in contributions.values()), default=0.0) or 1.0
    width = max(len(console.literal(name)) for name in contributions)
    for name, c in sorted(contributions.items(), key=lambda item: -item[1]):
        bar = ("█" if c >= 0 else "░") * round(BAR * abs(c) / most)
        yield f"  {console.literal(name):<{width}}  {number(c, probable):>7}  {bar}".rstrip()
    for name, within in sorted(explanation["within"].items()):
        yield from (f"  {console.literal(name)}: {line}" for line in _within(within, probable))


def number(value: float, probable: bool, *, signed: bool = True) -> str:
    """A probability, or a change of one, to three digits; another number as far as it matters."""
    text = f"{abs(value):.3f}" if probable else f"{abs(value):.3g}"
    return ("−" if value < 0 else "+" if signed else "") + text


def _within(found: Mapping[str, Any], probable: bool) -> Iterator[str]:
    if "overlay" in found:
        yield f"where, in {console.literal(found['overlay'])}"
    if words := found.get("words"):
        strong = set(strongest([max(score, 0.0) for *_, score in words], MARKED_SHARE))
        if words[-1][1] <= LONGEST_TEXT:
            yield " ".join(_marked(word) if i in strong else console.literal(word) for i, (_, _, word, _) in enumerate(words))
        yield _listed([(word, score) for _, _, word, score in words], probable)
    if seconds := found.get("seconds"):
        yield _listed([(f"{start:.2f}–{end:.2f} s", score) for start, end, score in seconds], probable)
    if columns := found.get("columns"):
        yield _listed(list(columns.items()), probable)


def strongest(scores: Sequence[float], least: float = LEAST_SHARE) -> list[int]:
    """Numbers of the few strongest, the strongest first; none where nothing matters."""
    order = sorted(range(len(scores)), key=lambda i: -abs(scores[i]))[:MOST_SHOWN]
    return [i for i in order if abs(scores[i]) >= least * abs(scores[order[0]]) and scores[i]]


def _listed(scored: Sequence[tuple[str, float]], probable: bool) -> str:
    shown = [scored[i] for i in strongest([score for _, score in scored])]
    return ", ".join(f"{_short(name)} {number(score, probable)}" for name, score in shown) or "nothing in it matters"


def _short(text: str) -> str:
    return console.literal(text if len(text) <= LONGEST_WORD else text[: LONGEST_WORD - 1] + "…")


def _marked(word: str) -> str:
    return f"\x1b[1m{console.literal(word)}\x1b[0m" if sys.stdout.isatty() else f"*{console.literal(word)}*"
