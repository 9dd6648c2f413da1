"""The console script, and `python -m mmtool`, which is the same command."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it without a traceback from its first instant on."""
    _open_streams()
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # mimalloc claims 1 GiB at once, which `ulimit -d` counts
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # until the command has a better one
        signal.signal(signal.SIGINT, _end)
    from mmtool.cli.main import main as run

    run()


def _open_streams() -> None:
    """Where stdin, stdout or stderr was closed (`>&-`), Python has None, and the next file opened would get its number.

    What is written to a closed stdout is an error, as everywhere; messages to a closed stderr are nobody's.
    """
    for number, name, flags in ((0, "stdin", os.O_RDONLY), (1, "stdout", os.O_RDONLY), (2, "stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, flags)  # takes the lowest number that is free: this one
                setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))


def _end(number: int, frame: object) -> None:
    os.write(2, b"warning: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    main()
