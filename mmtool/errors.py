"""The errors that a user can cause, each with a stable code. Anything else that escapes is a bug of ours.

Scripts tell failures apart by the exit code, people and searches by the code in `error[E_...]`; docs/reliability.md lists both.
"""

from __future__ import annotations

import errno
import os
import re

TOO_MANY_BAD = 3
"""Exit code of what was done, but with more bad samples than allowed."""


class MMToolError(Exception):
    """A failure that the user can mend: what is wrong and where, then what to do.

    `message` names the thing and the fact, `hint` the remedy (may be empty), `code` the kind of failure.
    """

    exit_code = 1
    code = "E_FAILED"

    def __init__(self, message: str, hint: str = "", *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(MMToolError):
    """The command line itself asks for something that cannot be."""

    exit_code = 2
    code = "E_USAGE"


class DataError(MMToolError):
    """The table can be read, but what was asked for cannot be done with it."""

    code = "E_DATA"


class ArtefactError(MMToolError):
    """Features, a model, predictions or weights that are damaged, of another kind or version, or do not fit."""

    exit_code = 4
    code = "E_ARTEFACT"


class StorageError(MMToolError):
    """A file or folder that is not there, is in the way, or cannot be read or written."""

    exit_code = 5
    code = "E_IO"


_OF_ERRNO = {
    errno.ENOENT: ("E_NOT_FOUND", "check the path"), errno.EACCES: ("E_PERMISSION", "check its rights, or choose another path"),
    errno.EPERM: ("E_PERMISSION", "check its rights, or choose another path"),
    errno.EROFS: ("E_READ_ONLY", "choose another path"), errno.ENOSPC: ("E_NO_SPACE", "free some space and run it again"),
    errno.EDQUOT: ("E_NO_SPACE", "free some space and run it again"), errno.EFBIG: ("E_NO_SPACE", "choose another file system"),
    errno.EMFILE: ("E_OPEN_FILES", "raise the limit of open files: ulimit -n 4096"),
    errno.ENOTDIR: ("E_NOT_FOUND", "check the path"), errno.ENAMETOOLONG: ("E_NOT_FOUND", "use a shorter name")}


def storage_error(error: OSError, doing: str = "") -> StorageError:
    """An error of the system as one of ours, with its code; `doing` says what for, where that helps."""
    code, hint = _OF_ERRNO.get(error.errno or 0, ("E_IO", "check the path and the device, and run it again"))
    said = error.strerror or str(error)
    fact = f"{os.fsdecode(error.filename)}: {said}" if isinstance(error.filename, str | bytes) else said
    return StorageError(f"{doing}: {fact}" if doing else fact, hint, code=code)


class LockedError(MMToolError):
    """Another run writes the same output."""

    exit_code = 6
    code = "E_LOCKED"


class PluginError(MMToolError):
    """A plugin or package that is missing, ambiguous, broken, or made for another version of the contract."""

    exit_code = 7
    code = "E_PLUGIN"


class DeviceError(MMToolError):
    """A device that is not there, or whose memory does not suffice."""

    exit_code = 8
    code = "E_DEVICE"


class Interrupted(MMToolError):
    """Ctrl-C or SIGTERM, where there is more to say than that."""

    exit_code = 130
    code = "E_INTERRUPTED"


class OutputClosed(MMToolError):
    """Whoever read our stdout went away, as `head` does."""

    code = "E_OUTPUT_CLOSED"


class CellError(Exception):
    """One cell that cannot be used. The row goes on without it; code and reason go to `errors.jsonl`."""

    def __init__(self, reason: str, code: str = "E_CELL") -> None:
        super().__init__(reason)
        self.code = code

    @property
    def status(self) -> str:
        """Code and reason as rows.parquet keeps them: `E_IMG_TRUNCATED: truncated JPEG`."""
        return f"{self.code}: {self}"

    def __reduce__(self) -> tuple[type[CellError], tuple[str, str]]:
        return type(self), (str(self), self.code)


def split_status(status: str) -> tuple[str, str]:
    """The code and the reason of a bad cell's status."""
    found = re.match(r"(E_[A-Z0-9_]+): ", status)
    return (found[1], status[found.end():]) if found else ("E_CELL", status)
