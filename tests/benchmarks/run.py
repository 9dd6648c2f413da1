"""All benchmarks that the table is made of, in under 15 minutes on 2 idle cores: `make bench`.

    MMTOOL_DATA=... python tests/benchmarks/run.py [--quick] [--only NAME...] [--json FILE] [--baseline FILE]

Each subject is a process of its own. One that fails, or for which no time is left, is named at the end, and its rows that
were done by then stay. The sizes are such that all of it fits; what takes longer runs with --only alone: the promised sizes
(memory_full, scale_full, train_disk; --budget gives them more time), and the reports decoding, compare and explanations.
`--more` hands arguments on to the subject, as `--only images --more=--images=300`. `--write-baseline` stores the ratios of
this run. Nothing here fails because a figure is bad.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bench_table
import harness
from harness import Row

SUBJECTS: dict[str, tuple[tuple[str, ...], int]] = {
    "text": (("extract_text.py",), 40),
    "startup": (("others.py", "startup"), 60),
    "train_stamps": (("others.py", "train_stamps"), 45),
    "images": (("extract_images.py", "--networks", "effnet-lite0"), 100),
    "memory": (("extract_memory.py", "--rows", "10000"), 60),
    "scale": (("others.py", "scale"), 60),
    "train_scale": (("others.py", "train_scale", "--rows", "6000"), 60),
    "other_networks": (("extract_images.py", "--networks", "timm:resnet18", "timm:vit_small_patch16_224"), 300)}
"""The command, and the seconds after which it repeats nothing; the first are never without time."""
QUICK = ("text", "startup", "images", "scale")
ALONE = {"memory_full": (("extract_memory.py",), 300), "scale_full": (("others.py", "scale", "--rows", "1000000"), 600),
         "train_disk": (("others.py", "train_disk"), 600)}
"""With --only: what is promised for 100,000 and 1,000,000 rows, at that size."""
REPORTS = {"decoding": ("decoding.py",), "compare": ("compare.py",), "explanations": ("explanations.py", "10")}
"""With --only: they take minutes, and print figures that have no place in this table."""
BUDGET_S = {False: 885, True: 150}


def subject(name: str, quick: bool, left: float, folder: Path, given: list[str]) -> tuple[list[Row], str | None]:
    """Its rows, and why there are no more of them; None where all are there."""
    file = folder / f"{name}.json"
    (module, *more), share = {**SUBJECTS, **ALONE}[name]
    if not Path(__file__).with_name(module).exists():
        return [], f"{module} is not there"
    arguments = [sys.executable, str(Path(__file__).with_name(module)), *more, "--json", str(file),
                 "--seconds", str(min(share, left)), *(["--quick"] if quick else []), *given]
    process = subprocess.Popen(arguments, start_new_session=True, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
    wrong = None
    try:
        _, said = process.communicate(timeout=left)
        if process.returncode:
            wrong = f"ended with {process.returncode}: {' | '.join(said.strip().splitlines()[-2:])}"
    except subprocess.TimeoutExpired:
        wrong = f"stopped, as the time is over ({left:.0f} s were left)"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it started, too
        process.wait()
    rows = [Row.of(each) for each in json.loads(file.read_text())] if file.exists() else []
    return rows, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[*SUBJECTS, *ALONE, *REPORTS])
    parser.add_argument("--quick", action="store_true", help="about two minutes, for CI")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--baseline", type=Path)
    parser.add_argument("--write-baseline", type=Path)
    parser.add_argument("--more", action="append", default=[], help="an argument for the subject")
    parser.add_argument("--budget", type=float, help="seconds for everything")
    arguments = parser.parse_args()
    started, budget = time.monotonic(), arguments.budget or BUDGET_S[arguments.quick]
    about = harness.machine()
    print(json.dumps(about), flush=True)
    rows: list[Row] = []
    wrong: dict[str, str] = {}
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        for each in arguments.only or (QUICK if arguments.quick else SUBJECTS):
            left, begun = budget - (time.monotonic() - started), time.monotonic()
            if each in REPORTS:
                module, *more = REPORTS[each]
                if subprocess.run([sys.executable, str(Path(__file__).with_name(module)), *more], check=False).returncode:
                    wrong[each] = "failed"
                continue
            if left < 5:
                wrong[each] = "no time was left"
                continue
            print(f"-- {each}", file=sys.stderr, flush=True)
            found, why = subject(each, arguments.quick, left, Path(name), arguments.more)
            rows += found
            seconds[each] = round(time.monotonic() - begun, 1)
            if why:
                wrong[each] = why
    print(bench_table.table(rows))
    print("seconds: " + ", ".join(f"{n} {s:.0f}" for n, s in seconds.items()))
    for each, why in wrong.items():
        print(f"NOT ALL MEASURED: {each}: {why}")
    mode = "quick" if arguments.quick else "full"
    if arguments.baseline:
        stored = json.loads(arguments.baseline.read_text()) if arguments.baseline.exists() else {}
        lines = bench_table.changes(rows, stored.get(mode, {}))
        print(f"changes of more than {bench_table.CHANGE:.0%} since {arguments.baseline.name}: {len(lines)}")
        print("".join(f"  {line}\n" for line in lines), end="")
    if arguments.write_baseline:
        file = arguments.write_baseline
        stored = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps({**stored, mode: bench_table.ratios(rows)}, indent=1) + "\n")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": about, "seconds": seconds, "not_measured": wrong, "mode": mode,
                                              "rows": [row.as_json() for row in rows]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
