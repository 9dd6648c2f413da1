"""Which words: a text cut at its spaces, and where a script writes none, into characters."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from mmtool.explain.parts import Kept, Parts, rounded

MOST_PARTS = 64
"""A longer text is cut into runs of several words, as equal as can be."""
_SPACELESS = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
                        "\U00020000-\U0003ffff]")  # Thai, Lao, Burmese, Khmer, kana, Han


def parts(cell: str) -> Parts:
    """A text -> its words, each with the punctuation at it; `words` in the JSON is [[start, end, word, score], ...]."""
    spans = words(cell)
    per_part = math.ceil(len(spans) / MOST_PARTS) or 1
    runs = [(spans[i][0], spans[min(i + per_part, len(spans)) - 1][1]) for i in range(0, len(spans), per_part)]
    ends = [start for start, _ in runs[1:]] + [len(cell)]  # the space behind a word goes with it

    def keep(kept: Kept) -> str | None:
        left = "".join(cell[start:end] for (start, _), end, k in zip(runs, ends, kept, strict=True) if k)
        return left.strip() or None

    def describe(scores: Sequence[float]) -> dict[str, Any]:
        return {"words": [[start, end, cell[start:end], rounded(s)] for (start, end), s in zip(runs, scores, strict=True)]}

    return Parts(len(runs), keep, describe)


def words(text: str) -> list[tuple[int, int]]:
    """Start and end of each word, in characters; marks stay with the letter that they belong to."""
    spans: list[tuple[int, int]] = []
    for run in re.finditer(r"\S+", text):
        start = run.start()
        for at in range(run.start() + 1, run.end()):
            apart = _SPACELESS.match(text[at]) or _SPACELESS.match(text[at - 1])
            if apart and unicodedata.category(text[at])[0] not in "MP":
                spans.append((start, at))
                start = at
        spans.append((start, run.end()))
    return spans
