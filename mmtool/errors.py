"""The errors that a user can cause. Anything else that escapes is a bug of ours and keeps its traceback."""


TOO_MANY_BAD = 3
"""Exit code of what was done, but with more bad samples than allowed."""


class MMToolError(Exception):
    """A failure that the user can mend: what is wrong and where, then what to do.

    `message` names the thing and the fact, `hint` the remedy (may be empty).
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(MMToolError):
    """The command line itself asks for something that cannot be."""

    exit_code = 2


class Interrupted(MMToolError):
    """Ctrl-C, where there is more to say than that."""

    exit_code = 130


class OutputClosed(MMToolError):
    """Whoever read our stdout went away, as `head` does."""


class PluginError(MMToolError):
    """A plugin that is missing, ambiguous, broken, or made for another version of the contract."""


class CellError(Exception):
    """One cell that cannot be used. The row goes on without it; the reason goes to `errors.jsonl`."""
