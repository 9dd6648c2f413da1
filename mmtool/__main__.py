"""The console script, and `python -m mmtool`, which is the same command."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it without a traceback from its first instant on."""
    _open_streams()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # until the command has a better one
        signal.signal(signal.SIGINT, _end)
    from mmtool.cli.main import main as run

    run()


def _open_streams() -> None:
    """Where stdin, stdout or stderr is closed (`2>&-`), the next file would get its number, and what libraries print."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            f = open(os.devnull, "w" if number else "r", encoding="utf-8")  # noqa: SIM115, PTH123  until the process ends
            if f.fileno() != number:
                os.dup2(f.fileno(), number)
            setattr(sys, name, f)


def _end(number: int, frame: object) -> None:
    os.write(2, b"warning: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    main()
