"""Augmentation of texts. A word is what stands between spaces; a script that writes none has nothing to change."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

DROPPED = 0.1
SWAPPED = 0.1
_WORD = re.compile(r"\S+\s*")


def augment(text: str, words: Sequence[str], seed: int) -> str:
    """The operations that `words` name, in that order. A text with a word in it keeps one."""
    chance = random.Random(seed)
    for word in words:
        text = OPERATIONS[word](text, chance)
    return text


def _drop(text: str, chance: random.Random) -> str:
    parts = _WORD.findall(text)
    kept = [part for part in parts if chance.random() >= DROPPED]
    return "".join(kept or [chance.choice(parts)]) if parts else text


def _swap(text: str, chance: random.Random) -> str:
    places = [match.span() for match in re.finditer(r"\S+", text)]
    words = [text[start:end] for start, end in places]
    if len(words) < 2:
        return text
    for _ in range(max(1, round(SWAPPED * len(words)))):
        a, b = chance.sample(range(len(words)), 2)
        words[a], words[b] = words[b], words[a]
    gaps = [text[end:start] for (_, end), (start, _) in zip([(0, 0), *places], [*places, (len(text), 0)], strict=True)]
    return gaps[0] + "".join(word + gap for word, gap in zip(words, gaps[1:], strict=True))


OPERATIONS: dict[str, Callable[[str, random.Random], str]] = {"drop": _drop, "swap": _swap}
