"""Is what a disturbed run left, and what the next one makes of it, as promised? Each broken promise is a line of text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from faults.runs import Ran
from faults.scenarios import Scenario

Tree = Mapping[str, str]
FOREIGN = re.compile(r"^tmp/torchinductor_")
"""Torch makes it when it is imported."""
LITTER = re.compile(r"(\.partial|\.tmp|\.old|\.new|\.lock)(/|$)|^tmp/.|(^|/)\.")
EXPECTED = {"ENOSPC": "E_NO_SPACE", "EIO": "E_IO"}


def tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder; empty folders too."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if FOREIGN.match(name):
            continue
        if path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif not any(path.iterdir()) and path.parent != folder:
            found[name + "/"] = "folder"
    return found


def below(found: Tree, name: str) -> dict[str, str]:
    """A file, or what is in a folder of that name."""
    return {k: v for k, v in found.items() if k == name or k.startswith(name + "/")}


def torn(scenario: Scenario, now: Tree, before: Tree, straight: Tree) -> list[str]:
    """What is visible under its final name must be whole: as it was before, or as an undisturbed run leaves it."""
    found = []
    name = f"out/{scenario.result}"
    seen, old, new = below(now, name), below(before, name), below(straight, name)
    seen = {k: v for k, v in seen.items() if "/." not in k}  # what a reader does not look at; the next run removes it
    if scenario.timed:
        new = {k: seen.get(k, v) for k, v in new.items()}
    if not seen and old:
        found.append(f"the old {scenario.result} is gone")
    elif seen and scenario.whole and seen not in (old, new):
        found.append(f"{scenario.result} is neither the old one nor the new one: {_difference(seen, new)}")
    elif seen and not scenario.whole:
        for file, digest in seen.items():
            if digest not in (old.get(file), new.get(file)):
                found.append(f"{file} is neither the old one nor the new one")
    for file, digest in below(now, "cache").items():
        if not LITTER.search(file) and not file.endswith("/") and digest not in (straight.get(file), before.get(file)):
            found.append(f"{file} is torn")
    return found


def told(ran: Ran, error: str, *, complete: bool, cache: bool, cached: bool) -> list[str]:
    """What the user sees of an error of the system, and the exit code.

    `complete`: is the result there? `cache`: did a call on the cache fail? `cached`: is all in the cache nevertheless?
    """
    found = []
    if "Traceback" in ran.err:
        found.append("a traceback: " + ran.err.strip().splitlines()[-1])
    if ran.hung:
        found.append("it hangs")
    if ran.code == 0 and not complete:
        found.append("exit 0 with an incomplete result")
    if cache and ran.code != 0:
        found.append(f"the cache fails, which should be a warning and no more, but exit {ran.code}: {ran.err.strip()[-200:]}")
    if cache and "warning: " not in ran.err and not cached:
        found.append("the cache fails, and nobody says so")
    if ran.code != 0 and not cache:
        lines = [line for line in ran.err.splitlines() if line.startswith("error[")]
        if ran.code != 5:
            found.append(f"exit {ran.code}, not 5: {ran.err.strip()[-200:]}")
        if len(lines) != 1 or not lines[0].startswith(f"error[{EXPECTED[error]}]: "):
            found.append(f"not one line error[{EXPECTED[error]}]: {ran.err.strip()[-200:]}")
    return found


def ended_well(scenario: Scenario, ran: Ran, now: Tree, straight: Tree, *, half_cached: bool = False) -> list[str]:
    """After the same command was run again: all is as an undisturbed run leaves it.

    `half_cached`: the run before was complete, but could keep only some of its rows in the cache. Then features.json says which
    rows came from other blocks, as it does of any rows from the cache of another run.
    """
    if ran.code != 0:
        return [f"run again: exit {ran.code}{' (hung)' if ran.hung else ''}: {ran.err.strip()[-300:]}"]
    found = ["run again: a traceback"] if "Traceback" in ran.err else []
    ignore = f"out/{scenario.result}" if scenario.timed or half_cached else "\0"
    mine, theirs = ({k: v if not k.startswith(ignore) else "" for k, v in t.items()
                     if not (half_cached and k.startswith("cache/"))} for t in (now, straight))
    if mine != theirs:
        found.append(f"run again, it ends otherwise: {_difference(mine, theirs)}")
    return found


def litter(now: Tree) -> list[str]:
    """What an undisturbed run should not leave."""
    return [f"litter: {name}" for name in now if LITTER.search(name)]


def _difference(mine: Tree, theirs: Tree) -> str:
    parts = [(" too many", sorted(set(mine) - set(theirs))), (" absent", sorted(set(theirs) - set(mine))),
             (" other bytes", sorted(k for k in set(mine) & set(theirs) if mine[k] != theirs[k]))]
    return ";".join(f"{what}: {', '.join(names[:6])}" for what, names in parts if names)
