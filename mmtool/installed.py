"""What is installed, told for people, and installing more: the library behind `mmtool plugins`."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, get_type_hints

from mmtool import console, plugins, specs
from mmtool.errors import PluginError, UsageError


def listing() -> list[dict[str, Any]]:
    """Every plugin, from metadata alone; `ambiguous` where two of a kind have one name."""
    return [_told(p) for p in plugins.found()]


def _told(plugin: plugins.Found) -> dict[str, Any]:
    same = sum((p.kind, p.name) == (plugin.kind, plugin.name) for p in plugins.found())
    return {"kind": plugin.kind, "name": plugin.name, "distribution": plugin.distribution, "version": plugin.version,
            "ambiguous": same > 1}


def info(name: str) -> dict[str, Any]:
    """What one plugin says of itself; imports that one. Raises PluginError where it is unknown, ambiguous or broken."""
    plugin = plugins.find_any(name)
    cls = plugins.load(plugin)
    facts = {key: getattr(cls, key, None) for key in ("modality", "space", "needs", "returns")}
    return {**_told(plugin), "about": (inspect.getdoc(cls) or "").partition("\n")[0], "api": cls.api,
            **{key: value for key, value in facts.items() if value is not None}, "options": _options(cls)}


def _options(cls: type[Any]) -> list[dict[str, Any]]:
    hints = get_type_hints(cls.__init__)
    required = inspect.Parameter.empty
    return [{"name": name, "type": specs.describe(hints.get(name, str)), "required": p.default is required,
             "default": None if p.default is required else _plain(p.default)}
            for name, p in specs.signature(cls).items()]


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def install(packages: Sequence[str]) -> list[dict[str, Any]]:
    """`pip install` into this Python; the plugins that are new or of another version after it.

    pip's own words go to stderr. Raises MMToolError where there is no pip, or where it fails.
    """
    if odd := [p for p in packages if p.startswith("-")]:
        raise UsageError(f"{odd[0]!r} is no package", "give names, folders or wheels; for pip's own options call pip")
    if PathFinder.find_spec("pip") is None:  # importlib.util asks setuptools, too, which warns where distutils is loaded
        raise PluginError(f"this Python ({sys.executable}) has no pip",
                          "add it with `python -m ensurepip`, or install with the tool that made this environment",
                          code="E_PACKAGE")
    before = set(plugins.found())
    if code := _pip(packages):
        raise PluginError(f"pip could not install {', '.join(packages)} (code {code}; its reasons stand above)",
                          "without a network, name a wheel, or a folder whose build tools are installed", code="E_PACKAGE")
    importlib.invalidate_caches()
    plugins.found.cache_clear()
    return [_told(p) for p in plugins.found() if p not in before]


def _pip(packages: Sequence[str]) -> int:
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    # With isolation pip would fetch the build tools anew, which needs a network.
    if all(_can_be_built_here(Path(p)) for p in packages):
        if subprocess.run([*command, "--no-build-isolation", "--", *packages], stdout=2, check=False).returncode == 0:
            return 0
        console.say("trying again with build tools of its own")
    return subprocess.run([*command, "--", *packages], stdout=2, check=False).returncode


def _can_be_built_here(folder: Path) -> bool:
    """Is it a folder whose build tools, by name, are installed?"""
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    tools = [re.split(r"[^\w.-]", tool)[0] for tool in project.get("build-system", {}).get("requires", ["setuptools"])]
    return bool(tools) and all(any(metadata.distributions(name=tool)) for tool in tools)
