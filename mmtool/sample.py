"""The data set that comes with mmtool: where it is, and a copy of it."""

from __future__ import annotations

import shutil
from pathlib import Path

from mmtool.errors import PluginError, StorageError

FOLDER = Path(__file__).parent / "samples/clipart"
MANIFEST = "data.csv"


def shipped() -> Path:
    """The manifest of the shipped sample; MMToolError where the installation lacks it."""
    path = FOLDER / MANIFEST
    if not path.is_file():
        raise PluginError(f"{path} does not exist: mmtool is not installed as a whole", "install mmtool again",
                          code="E_PACKAGE")
    return path.resolve()


def copy(folder: Path) -> Path:
    """Copy the sample into a new or empty folder, the manifest last; returns the copy's manifest.

    A copy that fails or is interrupted leaves the folder as empty as it was.
    Raises MMToolError where the folder holds anything, or is none.
    """
    source = shipped().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = sorted(path.name for path in folder.iterdir())
    except (FileExistsError, NotADirectoryError):
        raise StorageError(f"{folder} is a file", "name another folder", code="E_OUTPUT") from None
    except OSError as error:
        raise StorageError(f"{folder} cannot be used: {error.strerror}", "name another folder", code="E_OUTPUT") from error
    if held == sorted(path.name for path in source.iterdir()) and \
            (folder / MANIFEST).read_bytes() == (source / MANIFEST).read_bytes():
        return folder / MANIFEST  # it is there already
    if held:
        raise StorageError(f"{folder} is not empty (it holds {held[0]!r})", "name a new folder", code="E_OUTPUT")
    entries = sorted(source.iterdir(), key=lambda path: path.name == MANIFEST)  # whoever waits for it finds the rest
    try:
        for entry in entries:
            _copy(entry, folder / entry.name)
    except BaseException:
        for entry in entries:
            _remove(folder / entry.name)
        raise
    return folder / MANIFEST


def _copy(source: Path, target: Path) -> None:
    """Contents alone: an installation's files may be read-only, and a copy is there to be changed."""
    if source.is_dir():
        target.mkdir()
        for entry in source.iterdir():
            _copy(entry, target / entry.name)
    else:
        shutil.copyfile(source, target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
