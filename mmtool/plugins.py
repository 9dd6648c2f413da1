"""Finding plugins without importing them, and importing just the one that was asked for."""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from mmtool.errors import PluginError

GROUPS = {"encoder": "mmtool.encoders", "fusion": "mmtool.fusions", "task": "mmtool.tasks"}
ACCEPTED_API = (1,)


@dataclass(frozen=True, order=True)
class Found:
    """A plugin as its package's metadata states it. Nothing of it has been imported."""

    kind: str
    name: str
    distribution: str
    version: str
    target: str

    @property
    def full_name(self) -> str:
        return f"{self.distribution}/{self.name}"

    @property
    def package(self) -> str:
        return f"{self.distribution} {self.version}"

    @property
    def names(self) -> tuple[str, ...]:
        """All that it may be called: NAME, DISTRIBUTION/NAME, and each after KIND/."""
        return self.name, self.full_name, f"{self.kind}/{self.name}", f"{self.kind}/{self.full_name}"


@cache
def found() -> tuple[Found, ...]:
    """Every installed plugin, sorted by kind, name and distribution."""
    plugins = set()
    packages: dict[int, tuple[str, str]] = {}  # asked for once each: a name or a version parses all of a package's metadata
    installed = entry_points()
    for kind, group in GROUPS.items():
        for ep in installed.select(group=group):
            if (dist := ep.dist) is not None:
                if id(dist) not in packages:
                    told = dist.metadata
                    packages[id(dist)] = told["Name"], told["Version"]
                plugins.add(Found(kind, ep.name, *packages[id(dist)], ep.value))
    return tuple(sorted(plugins))


def find(name: str, kind: str = "encoder") -> Found:
    """The one plugin of a kind that has the name (one of `Found.names`). Raises PluginError for none, or for two."""
    of_kind = [p for p in found() if p.kind == kind]
    matches = [p for p in of_kind if name in p.names]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise PluginError(f"two {kind} plugins are called {name!r}: " + ", ".join(p.package for p in matches),
                          "name one of them: " + " or ".join(p.full_name for p in matches), code="E_PLUGIN_AMBIGUOUS")
    close = difflib.get_close_matches(name, [p.name for p in of_kind], n=2)
    known = ", ".join(dict.fromkeys(p.name for p in of_kind)) or "none is installed"
    raise PluginError(f"no {kind} plugin is called {name!r}" + (f" (did you mean {' or '.join(close)}?)" if close else ""),
                      f"known: {known}; `mmtool plugins install PACKAGE` adds more", code="E_PLUGIN_UNKNOWN")


def find_any(name: str) -> Found:
    """The one plugin of any kind that has the name. Raises PluginError for none, for two, or for one of each of two kinds."""
    kinds = {p.kind: p for p in found() if name in p.names}
    if len(kinds) > 1:
        raise PluginError(f"{name!r} is the name of {' and of '.join(f'{_article(kind)} {kind}' for kind in kinds)}",
                          "name one of them: " + " or ".join(f"{kind}/{p.full_name if '/' in name else p.name}"
                                                            for kind, p in kinds.items()), code="E_PLUGIN_AMBIGUOUS")
    if kinds:
        return find(name, next(iter(kinds)))
    close = difflib.get_close_matches(name, [p.name for p in found()], n=2)
    raise PluginError(f"no plugin is called {name!r}" + (f" (did you mean {' or '.join(close)}?)" if close else ""),
                      "`mmtool plugins list` shows all; `mmtool plugins install PACKAGE` adds more", code="E_PLUGIN_UNKNOWN")


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def load(plugin: Found) -> type[Any]:
    """Import the plugin's class. Raises PluginError, which names the distribution and the cause."""
    module_name, _, attribute = plugin.target.partition(":")
    try:
        cls = importlib.import_module(module_name)
        for part in attribute.split("."):
            cls = getattr(cls, part)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        cause = f"it called sys.exit({error.code!r})" if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
        raise PluginError(f"{plugin.kind} {plugin.name!r} of {plugin.package} cannot be imported: {cause}",
                          f"mend or uninstall {plugin.distribution}", code="E_PLUGIN_IMPORT") from error
    stated = getattr(cls, "api", None)
    if not isinstance(cls, type):
        raise PluginError(f"{plugin.kind} {plugin.name!r} of {plugin.package} is no class but a {type(cls).__name__}",
                          f"upgrade {plugin.distribution}", code="E_PLUGIN_API")
    if stated not in ACCEPTED_API:
        fact = f"states api {stated}" if isinstance(stated, int) and stated else "states no api version"
        newer = isinstance(stated, int) and stated > max(ACCEPTED_API)
        remedy = "upgrade mmtool" if newer else f"upgrade {plugin.distribution}"
        raise PluginError(f"{plugin.kind} {plugin.name!r} of {plugin.package} {fact}, "
                          f"this mmtool takes {' and '.join(map(str, ACCEPTED_API))}", remedy, code="E_PLUGIN_API")
    return cls
