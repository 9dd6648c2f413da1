"""`mmtool plugins new`: a plugin package that installs, runs and keeps the contract as it is."""

from __future__ import annotations

import re
from pathlib import Path

from mmtool import plugins
from mmtool.errors import MMToolError, UsageError
from mmtool.scaffold_templates import MODULES, OTHER, PYPROJECT, README, TEST


def write(name: str, modality: str, folder: Path) -> Path:
    """Write `folder/mmtool-NAME` with an encoder for a modality; returns that folder.

    Raises UsageError for a name or a modality that cannot be, and MMToolError where the folder exists already.
    """
    name = name.removeprefix("mmtool-")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UsageError(f"{name!r} cannot name a plugin", "use lower-case words joined by hyphens: colour-histogram")
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", modality):
        raise UsageError(f"{modality!r} cannot name a modality", "use image, text, audio, table or another word")
    if same := [p for p in plugins.found() if p.kind == "encoder" and p.name == name]:
        raise UsageError(f"an encoder called {name!r} is installed already ({same[0].package})", "choose another name")
    package = folder / f"mmtool-{name}"
    try:
        package.mkdir(parents=True)
    except FileExistsError:
        raise MMToolError(f"{package} exists already", "choose another name or folder with -o, or remove it") from None
    except OSError as error:
        raise MMToolError(f"{package} cannot be made: {error.strerror}", "choose another folder with -o") from error
    module = "mmtool_" + name.replace("-", "_")
    words = {"@NAME@": name, "@MODULE@": module, "@MODALITY@": modality,
             "@CLASS@": "".join(map(str.capitalize, name.split("-"))) + "Encoder"}
    (package / "tests").mkdir()
    for path, template in (("pyproject.toml", PYPROJECT), (f"{module}.py", MODULES.get(modality, OTHER)),
                           ("README.md", README), ("tests/test_contract.py", TEST)):
        (package / path).write_text(_filled(template, words), encoding="utf-8")
    return package


def _filled(template: str, words: dict[str, str]) -> str:
    for mark, word in words.items():
        template = template.replace(mark, word)
    return template.lstrip("\n")
