"""JSON from strangers: what the standard leaves to chance is refused, and nothing that it holds can cost much memory."""

from __future__ import annotations

import json
import math
import re
from typing import Any

MOST_PARTS = 5_000_000
"""Brackets and commas: what Python makes of them stays below some 400 MB."""
HALF = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
"""What may be half a character: no file can be written with one."""


class Unsound(ValueError):
    """What is wrong with a file, in words that follow its name and a colon."""


def strict_json(data: bytes | str) -> Any:
    """JSON as the standard has it: no name twice, no NaN or Infinity, no number that overflows. Raises Unsound."""
    try:
        text = data.decode() if isinstance(data, bytes) else data
        if sum(map(text.count, "[{,")) > MOST_PARTS:
            raise Unsound(f"it has more than {MOST_PARTS:,} parts")
        found = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
        if ("\\u" in text or isinstance(data, str)) and HALF.search(text):
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except UnicodeEncodeError:
        raise Unsound("it has half a character (a lone surrogate)") from None
    except UnicodeDecodeError:
        raise Unsound("it is no UTF-8") from None
    except RecursionError:
        raise Unsound("it is nested too deeply") from None
    except Unsound:
        raise
    except ValueError as error:
        raise Unsound(f"it is no JSON ({error})") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen = set[str]()
        for name, _ in pairs:
            if name in seen:
                raise Unsound(f"it has {name[:80]!r} twice")
            seen.add(name)
    return found


def _refuse(constant: str) -> Any:
    raise Unsound(f"it has {constant}, which is no number")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise Unsound(f"it has {text[:20]}, which no float can hold")
    return value
