"""`mmtool plugins new`: a plugin package that installs, runs and keeps the contract as it is."""

from __future__ import annotations

import re
from pathlib import Path

from mmtool import files, folders, plugins
from mmtool import scaffold_learning as learning
from mmtool import scaffold_templates as templates
from mmtool.errors import StorageError, UsageError, storage_error
from mmtool.locks import locked


def write(name: str, folder: Path, *, kind: str = "encoder", modality: str | None = None) -> Path:
    """Write `folder/mmtool-NAME` with an encoder for a modality (by default image), a fusion or a task; returns that folder.

    Raises UsageError for a name, kind or modality that cannot be, and MMToolError where the folder exists already.
    """
    name = name.removeprefix("mmtool-")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UsageError(f"{name!r} cannot name a plugin", "use lower-case words joined by hyphens: colour-histogram")
    if kind not in plugins.GROUPS:
        raise UsageError(f"--kind {kind!r} is not known", f"use {', '.join(plugins.GROUPS)}")
    if modality is not None and kind != "encoder":
        raise UsageError(f"--modality is for encoders, a {kind} has none", "leave it out")
    modality = modality or "image"
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", modality):
        raise UsageError(f"{modality!r} cannot name a modality", "use image, text, audio, table or another word")
    if same := [p for p in plugins.found() if p.name == name]:  # of any kind: else each needs KIND/NAME from then on
        raise UsageError(f"a plugin called {name!r} is installed already ({same[0].kind} of {same[0].package})",
                         "choose another name")
    package = folder / f"mmtool-{name}"
    if package.exists():
        raise StorageError(f"{package} exists already", "choose another name or folder with -o, or remove it", code="E_OUTPUT")
    try:
        package.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, f"{package} cannot be made") from error
    module, about, use, care = {
        "encoder": (templates.MODULES.get(modality, templates.OTHER), templates.ABOUT, templates.USE, templates.CARE),
        "fusion": (learning.FUSION, learning.FUSION_ABOUT, learning.FUSION_USE, learning.FUSION_CARE),
        "task": (learning.TASK, learning.TASK_ABOUT, learning.TASK_USE, learning.TASK_CARE)}[kind]
    module_name = "mmtool_" + name.replace("-", "_")
    words = {"@ABOUT@": about, "@USE@": use, "@CARE@": care, "@NAME@": name, "@MODULE@": module_name, "@KIND@": kind,
             "@MODALITY@": modality, "@CLASS@": "".join(map(str.capitalize, name.split("-"))) + kind.capitalize()}
    with locked(package), folders.replacing(package) as fresh:
        (fresh / "tests").mkdir()
        for path, template in (("pyproject.toml", templates.PYPROJECT), (f"{module_name}.py", module),
                               ("README.md", templates.README), ("tests/test_contract.py", templates.TEST)):
            files.write_bytes(fresh / path, _filled(template, words).encode())
    return package


def _filled(template: str, words: dict[str, str]) -> str:
    for mark, word in words.items():
        template = template.replace(mark, word)
    return template.lstrip("\n")
