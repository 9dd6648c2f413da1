"""Finding the files that come with other packages, and checking them before anything reads them."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from mmtool.api import PluginError


def locate(package: str, path: str, install: str) -> Path:
    """The file `path` inside an installed package, which is not imported.

    Raises MMToolError, with the `pip install` line for `install`, where the package or the file is missing.
    """
    spec = find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        if (file := Path(folder, path)).is_file():
            return file
    fact = f"has no {path}" if folders else "is not installed"
    raise PluginError(f"the package {package} {fact}", f"run: pip install {install}", code="E_PACKAGE")


def check(file: Path, sha256: str, install: str) -> Path:
    """`file` itself, once its SHA-256 is the expected one. Raises MMToolError naming the file and both sums."""
    with file.open("rb") as f:
        found = hashlib.file_digest(f, "sha256").hexdigest()
    if found != sha256:
        raise PluginError(f"{file}: SHA-256 is {found}, not {sha256}",
                          f"run: pip install --force-reinstall {install}", code="E_PACKAGE")
    return file
