"""Checks of what an encoder states, and of building, loading and fitting it."""

from __future__ import annotations

import inspect
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mmtool import specs
from mmtool.api import Encoder, MMToolError
from mmtool.plugins import ACCEPTED_API
from mmtool.testing.compare import same_bits
from mmtool.testing.subject import Subject
from mmtool.testing.verdicts import fail, skip
from mmtool.testing.watching import opened

OPTION_TYPES = (int, float, str, bool, Path)


def states_what_it_is(subject: Subject) -> None:
    """A class that can be imported and states api, modality, revision and padding."""
    cls: Any = subject.cls
    if not (isinstance(cls, type) and issubclass(cls, Encoder)):
        fail(f"the entry point must name a subclass of mmtool.api.Encoder, it names {cls!r}")
    if cls.api not in ACCEPTED_API:
        fail(f"state the contract it was written for, `api = {max(ACCEPTED_API)}`; it is {cls.api!r}")
    if not isinstance(cls.modality, str) or not cls.modality:
        fail('state what `prepare` reads, such as `modality = "image"` (or audio, text, table, any other word)')
    if not isinstance(cls.revision, int) or cls.revision < 1:
        fail(f"revision counts from 1, it is {cls.revision!r}")
    if cls.padding not in ("masked", "none"):
        fail(f'padding is "masked" or "none", it is {cls.padding!r}')


def options_are_explicit(subject: Subject) -> None:
    """Every option is keyword-only and annotated with a type that the command line can write."""
    if subject.cls.__init__ is not Encoder.__init__:
        hints = get_type_hints(subject.cls.__init__)
        for name, parameter in list(inspect.signature(subject.cls.__init__).parameters.items())[1:]:
            if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                fail(f"option {name!r} must be keyword-only: write `def __init__(self, *, {name}: ...)`, "
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
        fail(f"__init__ opened {', '.join(dict.fromkeys(seen))}; move that to `load`, which is skipped when a file of "
             "mmtool brings the weights")


def loads(subject: Subject) -> None:
    """`load` fills the pretrained weights, where they are at hand."""
    encoder = subject.encoder
    if not isinstance(encoder.pretrained, bool):
        fail(f"pretrained is True or False, it is {encoder.pretrained!r}")
    if not subject.asks_for_weights:
        skip("loading was not asked for")
    error = subject.load_error
    if isinstance(error, (MMToolError, ImportError)):
        skip(f"no weights are at hand ({error}); the other checks ran on random ones")
    if error is not None:
        fail(f"load raised {type(error).__name__}: {error}; raise MMToolError where the user can mend it")


def fits_the_same_twice(subject: Subject) -> None:
    """`fit` takes any iterable of cells, once; the same cells give the same assets."""
    if not subject.cls.needs_fit():
        skip("it needs no fit")
    first, second = subject.encoder.assets(), subject.new()
    second.fit(iter(subject.cells))
    assets = second.assets()
    if sorted(first) != sorted(assets):
        fail(f"fitted twice on the same cells, assets gave {sorted(first)}, then {sorted(assets)}")
    for name, tensor in assets.items():
        if not same_bits(first[name], tensor):
            fail(f"fitted twice on the same cells, asset {name!r} differs; sort what comes out of a set, and seed "
                 "what is random")
