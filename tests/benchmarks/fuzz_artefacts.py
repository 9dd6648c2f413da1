"""Damages golden files in 100,000 ways and more, and opens each: `python tests/benchmarks/fuzz_artefacts.py [CASES] [SEED]`.

Every case must end in an error of ours or in equal content; where no sum covers the file, in other content. Anything else
that is raised, a case of more than five seconds, and content that differs under a sum are failures, and the exit code is 1.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "plugin")]

from artefacts import attempt, prepared  # noqa: E402

SECONDS = 5.0
SHOWN = 12
MEMORY = Path("/dev/shm")


class Hang(BaseException):
    """A case took too long."""


def main(cases: int, seed: int) -> int:
    """Run them; returns the exit code."""
    rng = Random(seed)
    counts: dict[str, Counter[str]] = {}
    failures: Counter[str] = Counter()
    started, slowest = time.monotonic(), 0.0

    def alarm(number: int, frame: object) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, alarm)
    place = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as name, Path(os.devnull).open("w") as nowhere, \
            contextlib.redirect_stderr(nowhere):
        rounds = []
        for version, share in ((2, 0.9), (1, 0.1)):
            folder = Path(name, f"v{version}")
            folder.mkdir()
            rounds += [(prepared(folder, version), version, round(share * cases))]
        for (targets, whole, expected), version, number in rounds:
            for case in range(number):
                at = case % len(targets)
                target = targets[at]
                begun = time.monotonic()
                signal.setitimer(signal.ITIMER_REAL, SECONDS)
                try:
                    came = attempt(target, whole, expected[at], rng)
                    failed = came if came == "other content, with a sum" else ""
                except Hang:
                    came, failed = "hung", "hung"
                except Exception as error:
                    came = "escaped"
                    where = traceback.extract_tb(error.__traceback__)[-1]
                    failed = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {str(error)[:100]}"
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                slowest = max(slowest, time.monotonic() - begun)
                if case % 5000 == 4999:
                    print(f"v{version}: {case + 1} of {number} in {time.monotonic() - started:.0f} s", flush=True)
                counts.setdefault(f"v{version} {target.kind}", Counter())[came] += 1
                if failed:
                    if failed not in failures and len(failures) < SHOWN:
                        print(f"FAILED v{version} {target.kind} ({target.path.name}), case {case}: {failed}")
                        if len(sys.argv) > 3:
                            traceback.print_exc(file=sys.stdout)
                    failures[failed] += 1
    total: Counter[str] = Counter()
    for kind, found in sorted(counts.items()):
        total.update(found)
        print(f"{kind:40} " + ", ".join(f"{n} {what}" for what, n in sorted(found.items())))
    print(f"{sum(total.values())} cases in {time.monotonic() - started:.0f} s, the slowest {slowest:.2f} s, at most "
          f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB: "
          + ", ".join(f"{n} {what}" for what, n in sorted(total.items())))
    print(f"{sum(failures.values())} failures")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, int(sys.argv[2]) if len(sys.argv) > 2 else 0))
