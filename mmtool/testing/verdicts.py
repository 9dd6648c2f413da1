"""How a check says that something is wrong, or that it does not apply; unlike `assert`, also under `python -O`."""

from __future__ import annotations

import unittest
from typing import NoReturn


class Failure(AssertionError):
    """A check's own verdict, as opposed to an error that the plugin raised."""


def fail(message: str) -> NoReturn:
    """End the check as failed; `message` names the fact, then what the plugin's author should do."""
    raise Failure(message)


def skip(reason: str) -> NoReturn:
    """End the check as skipped, for a reason."""
    raise unittest.SkipTest(reason)
