"""What the JSON in our files must look like: small rules, put together, that name the place of what is wrong.

A rule takes a value and the place that it stands in, and raises Unsound where the value does not keep it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from mmtool.strictjson import Unsound

Rule = Callable[[Any, str], None]
DEEPEST = 40
WORDS = {str: "a text", int: "a whole number", bool: "true or false", list: "a list", dict: "an object", float: "a number",
         type(None): "null"}


def _refuse(value: Any, place: str, wanted: str) -> None:
    shown = f"{value!r:.60}" if isinstance(value, str | int | float) else WORDS[type(value)]
    raise Unsound(f"{place} is {shown}, not {wanted}")


def text(most: int = 100_000) -> Rule:
    """A text of so many characters at most."""
    def rule(value: Any, place: str) -> None:
        if not isinstance(value, str) or len(value) > most:
            _refuse(value, place, "a text" if not isinstance(value, str) else f"a text of at most {most} characters")
    return rule


def like(pattern: str, wanted: str) -> Rule:
    """A text that a regular expression matches whole."""
    compiled = re.compile(pattern)

    def rule(value: Any, place: str) -> None:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            _refuse(value, place, wanted)
    return rule


def one_of(*known: str) -> Rule:
    """One of these texts."""
    def rule(value: Any, place: str) -> None:
        if not isinstance(value, str) or value not in known:
            _refuse(value, place, "one of " + ", ".join(known))
    return rule


def whole(low: int = 0, high: int = 1 << 53) -> Rule:
    """A whole number in a range, both ends included."""
    def rule(value: Any, place: str) -> None:
        if type(value) is not int or not low <= value <= high:
            _refuse(value, place, f"a whole number from {low} to {high}")
    return rule


def number(low: float = -math.inf, high: float = math.inf) -> Rule:
    """A finite number in a range, both ends included."""
    def rule(value: Any, place: str) -> None:
        if type(value) not in (int, float) or not low <= value <= high or abs(value) > 1e308:
            _refuse(value, place, "a number" + ("" if math.isinf(low) else f" from {low} to {high}"))
    return rule


def flag(value: Any, place: str) -> None:
    """true or false."""
    if type(value) is not bool:
        _refuse(value, place, "true or false")


def null(value: Any, place: str) -> None:
    """null."""
    if value is not None:
        _refuse(value, place, "null")


def either(*rules: Rule) -> Rule:
    """What keeps any of the rules; the last one says what is wrong."""
    def rule(value: Any, place: str) -> None:
        for one in rules[:-1]:
            try:
                return one(value, place)
            except Unsound:
                continue
        return rules[-1](value, place)
    return rule


def listed(item: Rule, most: int = 10_000_000) -> Rule:
    """A list of such values."""
    def rule(value: Any, place: str) -> None:
        if not isinstance(value, list) or len(value) > most:
            _refuse(value, place, f"a list of at most {most}" if isinstance(value, list) else "a list")
        for at, one in enumerate(value):
            item(one, f"{place}[{at}]")
    return rule


def table(value_rule: Rule, key_rule: Rule | None = None, most: int = 1_000_000) -> Rule:
    """An object of any names with such values."""
    def rule(value: Any, place: str) -> None:
        if not isinstance(value, dict) or len(value) > most:
            _refuse(value, place, f"an object of at most {most} names" if isinstance(value, dict) else "an object")
        for name, one in value.items():
            if key_rule is not None:
                key_rule(name, f"a name in {place}")
            value_rule(one, f"{place}.{name[:80]}")
    return rule


def fields(needed: Mapping[str, Rule], optional: Mapping[str, Rule] | None = None, *, open_: bool = False) -> Rule:
    """An object of these names; of others, too, where it is `open_`."""
    known = {**needed, **(optional or {})}

    def rule(value: Any, place: str) -> None:
        if not isinstance(value, dict):
            _refuse(value, place, "an object")
        if lacking := [name for name in needed if name not in value]:
            raise Unsound(f"{place} lacks {lacking[0]!r}")
        if not open_ and (strange := sorted(set(value) - set(known))):
            raise Unsound(f"{place} has an unknown key {strange[0][:80]!r}")
        for name, one in value.items():
            known.get(name, anything)(one, f"{place}.{name[:80]}")
    return rule


def anything(value: Any, place: str) -> None:
    """Any JSON that is not nested too deeply."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise Unsound(f"{place} is nested too deeply")
        level = [inner for one in level for inner in
                 (one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())]
