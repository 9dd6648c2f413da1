"""The data set that comes with mmtool: where it is, and a copy of it."""

from __future__ import annotations

from pathlib import Path

from mmtool import files, folders
from mmtool.errors import PluginError, StorageError, storage_error
from mmtool.locks import locked

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

    The folder appears whole or not at all.
    Raises MMToolError where the folder holds anything, or is none.
    """
    source = shipped().parent
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        held = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    except (FileExistsError, NotADirectoryError):
        raise StorageError(f"{folder} is a file", "name another folder", code="E_OUTPUT") from None
    except OSError as error:
        raise storage_error(error, f"{folder} cannot be used") from error
    if held == sorted(path.name for path in source.iterdir()) and \
            (folder / MANIFEST).read_bytes() == (source / MANIFEST).read_bytes():
        return folder / MANIFEST  # it is there already
    if held:
        raise StorageError(f"{folder} is not empty (it holds {held[0]!r})", "name a new folder", code="E_OUTPUT")
    if folder.exists() and (folder.resolve() == Path.cwd() or folder.is_mount()):
        raise StorageError(f"{folder} cannot be replaced as a whole", f"name a folder inside it: {folder / 'clipart'}",
                           code="E_OUTPUT")
    with locked(folder), folders.replacing(folder) as fresh:
        for entry in source.iterdir():
            _copy(entry, fresh / entry.name)
    return folder / MANIFEST


def _copy(source: Path, target: Path) -> None:
    """Contents alone: an installation's files may be read-only, and a copy is there to be changed."""
    if source.is_dir():
        target.mkdir()
        for entry in source.iterdir():
            _copy(entry, target / entry.name)
    else:
        files.copy(source, target)
