"""`make faults`: every point of every small run (of a report, every fifth), then random kills.

Prints a table and may write JSON; the exit code is 1 if a promise broke.

    python tests/faults/campaign.py [--only extract,train-descent] [--kills 500] [--seed 0] [--json faults.json] [--jobs 2]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from queue import Empty, SimpleQueue

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults import judging, points, scenarios
from faults.runs import Server, kill_session, strace
from faults.scenarios import Place

KILLED = ("extract", "extract-readers", "extract-shards", "train-solved", "train-descent", "train-folds", "train-manifest")
REPORTS_EVERY = 5
"""A report has two dozen files that are all written in one way: one point of so many stands for the others."""
SPARE_KILLS = 12
"""After so many kills one run may end."""


def main() -> int:
    """Parse, run, print; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="scenarios, by comma; all if none is named, - for none")
    parser.add_argument("--faults", default="KILL,ENOSPC,EIO")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th point")
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path, default=None)
    asked = parser.parse_args()
    if strace() is None:
        print("make faults needs strace: apt-get install strace", file=sys.stderr)
        return 1
    names = [] if asked.only == "-" else asked.only.split(",") if asked.only else list(scenarios.ALL)
    started = time.monotonic()
    work: SimpleQueue[tuple[str, str]] = SimpleQueue()
    for name in names:
        work.put(("points", name))
    share = [asked.kills // len(KILLED) + (i < asked.kills % len(KILLED)) for i in range(len(KILLED))]
    for name, kills in zip(KILLED, share, strict=True):
        if kills:
            work.put((f"kills {kills} {asked.seed}", name))
    rows: list[dict] = []
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        faults = set(asked.faults.split(","))
        threads = [threading.Thread(target=_worker, args=(Path(folder) / str(n), work, rows, faults, asked.every))
                   for n in range(asked.jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    seconds = time.monotonic() - started
    if asked.json is not None:
        asked.json.write_text(json.dumps({"seconds": round(seconds), "points": rows}, indent=1))
    return _report(rows, seconds)


def _worker(root: Path, work: SimpleQueue[tuple[str, str]], rows: list[dict], faults: set[str],
            every: int) -> None:
    with Server() as server:
        place = Place(root, server)
        while True:
            try:
                what, name = work.get_nowait()
            except Empty:
                return
            try:
                if what == "points":
                    every_point(place, name, rows, faults, every)
                else:
                    _, kills, seed = what.split()
                    random_kills(place, name, int(kills), int(seed), rows)
            except Exception as error:
                rows.append({"scenario": name, "fault": what, "call": "", "number": 0, "what": "", "hit": False, "code": 0,
                             "wrong": [f"the campaign itself failed: {type(error).__name__}: {error}"], "told": ""})


def _note(rows: list[dict], row: dict) -> None:
    rows.append(row)
    if row["wrong"]:
        at = f"{row['scenario']}, {row['fault']} at {row['call']} {row['number']} {row['what'][:150]}"
        print(f"BROKEN {at}\n" + "\n".join(f"    {w}" for w in row["wrong"]), flush=True)


def every_point(place: Place, name: str, rows: list[dict], faults: set[str], every: int = 1) -> None:
    """All faults of one run, or every N-th of them."""
    straight = points.course(place, scenarios.ALL[name])
    none = {"scenario": name, "fault": "none", "call": "", "number": 0, "what": "", "hit": True, "code": 0, "told": ""}
    _note(rows, {**none, "wrong": judging.litter(straight.after) + points.unsynced(straight, straight.ran.trace)})
    some = [p for p in straight.points() if p.fault in faults]
    some = some[::every if scenarios.ALL[name].whole else every * REPORTS_EVERY]
    print(f"{name}: {len(some)} points", flush=True)
    for point in some:
        _note(rows, points.judge(place, straight, point).as_json())


def random_kills(place: Place, name: str, kills: int, seed: int, rows: list[dict]) -> None:
    """Kill the whole session at random moments, go on and kill again, let it end now and then, and compare."""
    rng = random.Random(f"{name} {seed}")
    scenario = scenarios.ALL[name]
    straight = points.course(place, scenario)
    place.begin(scenario)
    whole = place.sure(scenario.argv).seconds
    place.begin(scenario)
    done = in_a_row = 0
    while done < kills or in_a_row:
        moment = rng.uniform(0.0, 1.1) * whole

        def kill(pid: int, moment: float = moment) -> None:
            time.sleep(moment)
            kill_session(pid)

        spared = in_a_row >= SPARE_KILLS or done >= kills
        ran = place.run(scenario.argv, act=None if spared else kill)
        now = judging.tree(place.case)
        wrong = judging.torn(scenario, now, straight.before, straight.after)
        if ran.code == -9:
            done, in_a_row = done + 1, in_a_row + 1
        else:
            wrong += judging.ended_well(scenario, ran, now, straight.after)
            place.begin(scenario)
            in_a_row = 0
        _note(rows, {"scenario": name, "fault": "random KILL" if ran.code == -9 else "end after random kills", "call": "",
                     "number": done, "what": f"after {moment:.3f} s of {whole:.3f}", "hit": True, "code": ran.code,
                     "wrong": wrong, "told": ""})


def _report(rows: list[dict], seconds: float) -> int:
    count, broken, missed = Counter(), Counter(), Counter()
    for row in rows:
        key = row["scenario"], row["fault"]
        count[key] += 1
        broken[key] += bool(row["wrong"])
        missed[key] += not row["hit"]
    print(f"\n{'run':<20}{'fault':<26}{'points':>7}{'broken':>8}{'not hit':>9}")
    for key in sorted(count):
        print(f"{key[0]:<20}{key[1]:<26}{count[key]:>7}{broken[key]:>8}{missed[key]:>9}")
    kills = sum(n for (_, fault), n in count.items() if fault == "random KILL")
    injected = sum(n for (_, fault), n in count.items() if fault in ("KILL", "ENOSPC", "EIO"))
    print(f"\n{injected} points and {kills} random kills in {seconds / 60:.1f} min; {sum(broken.values())} broken, "
          f"{sum(missed.values())} not hit")
    return 1 if sum(broken.values()) or sum(missed.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
