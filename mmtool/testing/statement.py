"""Checks that encoders, fusions and tasks share: their options, and what building and running them must not do."""

from __future__ import annotations

import inspect
import types
from pathlib import Path
from pickle import Pickler
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mmtool import specs
from mmtool.errors import MMToolError
from mmtool.plugins import ACCEPTED_API
from mmtool.testing.subject import Subject
from mmtool.testing.verdicts import fail
from mmtool.testing.watching import opened

OPTION_TYPES = (int, float, str, bool, Path)


def is_a_class_of_its_kind(subject: Subject) -> None:
    """The beginning of each kind's `states_what_it_is`: the base class, and the version of the contract."""
    cls, base = subject.cls, subject.base
    if not (isinstance(cls, type) and issubclass(cls, base)):
        fail(f"the entry point must name a subclass of mmtool.api.{base.__name__}, it names {cls!r}")
    if (stated := getattr(cls, "api", None)) not in ACCEPTED_API:
        fail(f"state the contract it was written for, `api = {max(ACCEPTED_API)}`; it is {stated!r}")


def options_are_explicit(subject: Subject) -> None:
    """Every option is keyword-only and annotated with a type that the command line can write."""
    if subject.cls.__init__ is not subject.base.__init__:
        hints = get_type_hints(subject.cls.__init__)
        parameters = list(inspect.signature(subject.cls.__init__).parameters.items())[1:]
        written = f"self, {subject.first}, *" if subject.first else "self, *"
        if subject.first and [name for name, _ in parameters[:1]] != [subject.first]:
            fail(f"__init__ must take {subject.first} first: write `def __init__({written}, ...)`")
        for name, parameter in parameters[1:] if subject.first else parameters:
            if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                fail(f"option {name!r} must be keyword-only: write `def __init__({written}, {name}: ...)`, "
                     "without *args or **kwargs")
            if name not in hints:
                fail(f"option {name!r} has no annotation; write `{name}: int`, say")
            if not _writable(hints[name]):
                fail(f"option {name!r} is {specs.describe(hints[name])}, which cannot be written on the command line; "
                     "use int, float, str, bool, Path, Literal[...] or one of them | None")
    try:
        subject.options  # noqa: B018  binds them
    except MMToolError as error:
        fail(f"{error}; give the options in the specification, or state `example` in the class")


def _writable(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return all(a is type(None) or _writable(a) for a in get_args(annotation))
    return origin is Literal or annotation in OPTION_TYPES


def builds_without_files(subject: Subject) -> None:
    """`__init__` builds, and opens no file, connection or program."""
    with opened() as seen:
        subject.new()
    if seen:
        fail(f"__init__ opened {', '.join(dict.fromkeys(seen))}; {subject.instead}")


def can_be_pickled(subject: Subject) -> None:
    """It can be sent to a process that is not forked, as on macOS and Windows."""
    module = subject.module
    try:
        Pickler(_Nowhere()).dump(module)
    except Exception as error:  # noqa: BLE001  whatever a member's own pickling raises
        fail(f"it cannot be pickled ({error}), which other processes on macOS and Windows need; keep no lambda, open file "
             "or session on self, or drop it in __getstate__")


class _Nowhere:
    def write(self, data: bytes) -> int:
        return len(data)


def prints_nothing(subject: Subject) -> None:
    """Nothing goes to stdout, where the user's results go."""
    subject.use()
    if printed := "".join(subject.printed):
        fail(f"it printed {printed[:80]!r} on stdout, which is for results; use logging, or stderr")
