"""One column of a table: what is learned of it in one pass, and the numbers that a value becomes."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from mmtool.api import CellError

Value = float | int | bool | str | None

LARGEST = 1e100
"""Numbers beyond it are taken as it: their squares must stay finite."""
MOST_DEVIATIONS = 10.0
MOST_COUNTED = 10_000
"""Distinct values of a column that are counted at a time, at least."""
LONGEST_CATEGORY = 200
"""Characters; a longer text is no category but prose, and counts among the others."""


def is_missing(value: Value) -> bool:
    """None, NaN, and text without a character in it."""
    return value is None or (isinstance(value, float) and math.isnan(value)) or \
        (isinstance(value, str) and not value.strip())


def number(value: Value) -> float | None:
    """The finite number that a value is or spells; NaN for the text "nan"; None where it is no number.

    Truth values are none, nor is what only Python reads as a number (`1_000`).
    """
    if isinstance(value, bool) or value is None or (isinstance(value, str) and "_" in value):
        return None
    try:
        x = float(value)
    except OverflowError:  # an int of more than 308 digits
        return -LARGEST if isinstance(value, int) and value < 0 else LARGEST
    except ValueError:
        return None
    return None if math.isinf(x) else max(-LARGEST, min(LARGEST, x)) if x == x else x


def word(value: Value) -> str:
    """A value as a category: 3, 3.0 and "3" are one, as are True and "true"."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value).strip()
    return text.lower() if text.lower() in ("true", "false") else text


@dataclass
class Tally:
    """What was seen of a column so far. Its memory does not grow with the number of rows."""

    numbers: int = 0
    others: int = 0
    mean: float = 0.0
    squares: float = 0.0
    words: Counter[str] = field(default_factory=Counter)

    def add(self, value: Value) -> None:
        """One more value; mean and variance as in Welford, 1962."""
        if is_missing(value):
            return
        x = number(value)
        if x is None:
            self.others += 1
        elif x == x:
            self.numbers += 1
            delta = x - self.mean
            self.mean += delta / self.numbers
            self.squares += delta * (x - self.mean)
        if len(text := word(value)) <= LONGEST_CATEGORY:
            self.words[text] += 1
        if len(self.words) > 2 * MOST_COUNTED:  # an id or a free text; none of these can be frequent
            self.words = Counter(dict(self.frequent(MOST_COUNTED)))

    def frequent(self, most: int) -> list[tuple[str, int]]:
        """The most frequent values with their counts; among equals in the order of the alphabet."""
        return sorted(self.words.items(), key=lambda item: (-item[1], item[0]))[:most]

    def column(self, name: str, max_categories: int) -> Column:
        """Numeric where every value that was there is a number, else categorical."""
        if self.numbers and not self.others:
            return Column(name, True, self.mean, math.sqrt(max(0.0, self.squares) / self.numbers))
        return Column(name, False, categories=tuple(w for w, _ in self.frequent(max_categories)))


@dataclass(frozen=True)
class Column:
    """A column as it was learned: numeric with `mean` and `std`, or categorical with its `categories`."""

    name: str
    numeric: bool
    mean: float = 0.0
    std: float = 0.0
    categories: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Numbers that a value becomes."""
        return 2 if self.numeric else len(self.categories) + 2

    def numbers(self, value: Value) -> list[float]:
        """Numeric: deviations from the mean, in [-10, 10], and 1 if missing. Categorical: a 1 at its category,
        at "other" or at "missing", in this order.

        Raises CellError for a text in a numeric column.
        """
        if not self.numeric:
            slots = [0.0] * self.width
            known = -1 if is_missing(value) else _index(self.categories, word(value))
            slots[known] = 1.0
            return slots
        x = math.nan if is_missing(value) else number(value)
        if x is None:
            raise CellError(f"column {self.name!r} has {value!r} where training had numbers only", "E_TABLE_TEXT")
        if math.isnan(x):
            return [0.0, 1.0]
        deviations = (x - self.mean) / self.std if self.std > 0 else 0.0
        return [max(-MOST_DEVIATIONS, min(MOST_DEVIATIONS, deviations)), 0.0]


def _index(categories: tuple[str, ...], value: str) -> int:
    return categories.index(value) if value in categories else len(categories)
