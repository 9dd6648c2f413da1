"""What the checks of every kind look at: a plugin by name or class, its options, and how its checks ended."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from mmtool import plugins, specs

if TYPE_CHECKING:
    from mmtool.testing.checks import Outcome


class Subject:
    """One plugin under test, given as `NAME:VARIANT,key=value` or as a class. Each kind adds what it tries it on."""

    kind: ClassVar[str]
    base: ClassVar[type[nn.Module]]
    first: ClassVar[str] = ""
    """The one argument of `__init__` that is no option."""
    instead: ClassVar[str]
    """What an `__init__` that opens files should do."""

    def __init__(self, given: str | type[Any]) -> None:
        self._given = given
        self.printed: list[str] = []
        self.outcomes: dict[str, Outcome] = {}

    @property
    def name(self) -> str:
        """What it is called in messages: the specification as given, or the class's name."""
        return self._given if isinstance(self._given, str) else self._given.__name__

    @cached_property
    def plugin(self) -> plugins.Found:
        """Its name and distribution; a class that is no plugin yet is named after itself."""
        if isinstance(self._given, str):
            return plugins.find(specs.parse(self._given).name, self.kind)
        cls = self._given
        return plugins.Found(self.kind, cls.__name__, cls.__module__, "(no distribution)",
                             f"{cls.__module__}:{cls.__qualname__}")

    @cached_property
    def cls(self) -> type[Any]:
        """The class, imported now. Raises PluginError."""
        return plugins.load(self.plugin) if isinstance(self._given, str) else self._given

    @cached_property
    def options(self) -> dict[str, Any]:
        """Its options: the given ones, else those of `example`. Raises UsageError."""
        spec = specs.parse(self._given) if isinstance(self._given, str) else specs.Spec(self.plugin.name)
        if self.cls.example and spec.variant is None and not spec.options:
            spec = specs.parse(f"{spec.name}:{self.cls.example}")
        return specs.bind(self.cls, spec)

    def new(self, *, seed: int = 0) -> nn.Module:
        """A fresh one in eval mode, its random weights drawn from a seed."""
        raise NotImplementedError

    @property
    def module(self) -> nn.Module:
        """The one that most checks share."""
        raise NotImplementedError

    def use(self) -> None:
        """Call all that the host calls, if no check did before."""
        raise NotImplementedError
