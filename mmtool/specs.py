"""Plugin specifications on the command line: `NAME:VARIANT,key=value,...`, checked against the signature."""

from __future__ import annotations

import inspect
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mmtool.errors import ArtefactError, UsageError


@dataclass(frozen=True)
class Spec:
    """A plugin's name and its options as text; the variant is the value of the first option."""

    name: str
    variant: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)


def parse(text: str) -> Spec:
    """`timm:resnet18,img_size=160` -> Spec. A part without `=` belongs to the value before it."""
    name, colon, rest = text.partition(":")
    if not name or (colon and not rest):
        raise UsageError(f"{text!r} is not NAME:VARIANT,key=value,...")
    if not colon:
        name, _, rest = text.partition(",")
    if not name.strip():
        raise UsageError(f"{text!r} names no plugin")
    variant: str | None = None
    options: dict[str, str] = {}
    last: str | None = None
    for part in rest.split(",") if rest else []:
        key, equals, value = part.partition("=")
        if equals:
            last = key.strip()
            options[last] = value
        elif last is not None:
            options[last] += "," + part
        elif colon:
            variant = part if variant is None else f"{variant},{part}"
        else:
            raise UsageError(f"{part!r} in {text!r} is no key=value", f"write {name}:{part} for a variant")
    return Spec(name.strip(), variant, options)


def signature(cls: type[Any]) -> dict[str, inspect.Parameter]:
    """The options of a plugin class: its keyword-only arguments, in order."""
    return {n: p for n, p in inspect.signature(cls.__init__).parameters.items()
            if p.kind is inspect.Parameter.KEYWORD_ONLY}


def describe(annotation: Any) -> str:
    """An annotation as a user would read it: `int`, `path`, `a|b`."""
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(describe(a) for a in get_args(annotation) if a is not type(None))
    words = {Path: "path", str: "text", bool: "true|false"}
    return words.get(annotation) or str(getattr(annotation, "__name__", annotation))


def _convert(text: str, annotation: Any) -> Any:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        kinds = get_args(annotation)
        if type(None) in kinds and text.lower() in ("", "none"):
            return None
        for kind in (k for k in kinds if k is not type(None)):
            try:
                return _convert(text, kind)
            except ValueError:
                continue
        raise ValueError(text)
    if origin is Literal:
        for value in get_args(annotation):
            if str(value) == text:
                return value
        raise ValueError(text)
    if annotation is bool:
        if text.lower() in ("true", "yes", "1", "on"):
            return True
        if text.lower() in ("false", "no", "0", "off"):
            return False
        raise ValueError(text)
    if annotation in (int, float, str):
        return annotation(text)
    if annotation is Path:
        return Path(text).expanduser()
    raise ValueError(text)


def bind(cls: type[Any], spec: Spec) -> dict[str, Any]:
    """Every option of `cls` with its value: the given ones converted, the others at their defaults.

    Raises UsageError for an unknown option (listing the known), a bad value, or one that is required.
    """
    known = signature(cls)
    hints = get_type_hints(cls.__init__)
    given = dict(spec.options)
    usage = ", ".join(f"{n}={describe(hints.get(n, str))}" for n in known) or "none"
    if spec.variant is not None:
        first = next(iter(known), None)
        if first is None or first in given:
            raise UsageError(f"{spec.name}: the variant {spec.variant!r} has no option to go to", f"options: {usage}")
        given = {first: spec.variant, **given}
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise UsageError(f"{spec.name} has no option {unknown[0]!r}", f"options: {usage}")
    bound: dict[str, Any] = {}
    for name, parameter in known.items():
        if name in given:
            try:
                bound[name] = _convert(given[name], hints.get(name, str))
            except ValueError:
                wanted = describe(hints.get(name, str))
                raise UsageError(f"{spec.name}: {name}={given[name]!r} is not {wanted}") from None
        elif parameter.default is inspect.Parameter.empty:
            raise UsageError(f"{spec.name} needs {name}={describe(hints.get(name, str))}")
        else:
            bound[name] = parameter.default
    return bound


def refuse_paths(cls: type[Any], name: str, options: Mapping[str, Any]) -> None:
    """Options of a file's header must not name files to open: there a path is a SHA-256 and a base name.

    Raises ArtefactError for a text where the signature takes a path.
    """
    hints = get_type_hints(cls.__init__)
    for option, value in options.items():
        kinds = get_args(hints.get(option)) or (hints.get(option),)
        if isinstance(value, str) and Path in kinds:
            raise ArtefactError(f"the header gives {name} the path {value!r} as {option}, and no file may do that",
                                "do not use this file", code="E_ARTEFACT_PATH")
