"""The console script, and `python -m mmtool`, which is the same command."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Run the command line; Ctrl-C ends it without a traceback from its first instant on."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # until the command has a better one
        signal.signal(signal.SIGINT, _end)
    from mmtool.cli.main import main as run

    run()


def _end(number: int, frame: object) -> None:
    os.write(2, b"warning: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    main()
