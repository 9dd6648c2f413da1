"""Every point of a run where it can be killed or a call can fail, and the case of one point."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field

from faults import judging
from faults.judging import Tree
from faults.runs import CALLS, Call, Ran, calls, normal
from faults.scenarios import Place, Scenario

TRACED = ("-e", "trace=" + ",".join(CALLS))
_AT = r'(?:AT_FDCWD(?:<[^>]*>)?, )?"([^"]+)"'
RENAME = re.compile(rf"rename(?:at2?)?\({_AT}, {_AT}")
FULL = ("write", "pwrite64", "writev", "fsync", "fdatasync", "mkdir", "mkdirat", "openat", "ftruncate", "rename", "renameat",
        "renameat2", "copy_file_range", "sendfile", "link", "linkat")
"""Where a full disk shows; the others can be killed at, or get EIO."""


@dataclass(frozen=True)
class Point:
    """A fault at the N-th call of a name: KILL (before the call), ENOSPC or EIO (instead of it)."""

    scenario: str
    fault: str
    call: str
    number: int
    what: str

    @property
    def options(self) -> tuple[str, ...]:
        """What strace is told."""
        return self._options(self.number)

    def _options(self, number: int) -> tuple[str, ...]:
        how = "signal=KILL" if self.fault == "KILL" else f"error={self.fault}"
        return (*TRACED, "-e", f"inject={self.call}:{how}:when={number}")

    @property
    def tries(self) -> list[tuple[str, ...]]:
        """Files that are only read are opened a few times more or less: then the call has another number."""
        near = (0, 0, -1, 1, -2, 2, -3, 3, 0) if self.call == "openat" and self.fault != "KILL" else (0,)
        return [self._options(self.number + step) for step in near if self.number + step > 0]


@dataclass
class Verdict:
    """What came of a point: `wrong` is empty where every promise was kept; `hit`: did the fault come?"""

    point: Point
    hit: bool
    code: int
    wrong: list[str] = field(default_factory=list)
    told: str = ""

    def as_json(self) -> dict:
        """For the report."""
        return {**asdict(self.point), "hit": self.hit, "code": self.code, "wrong": self.wrong, "told": self.told}


@dataclass(frozen=True)
class Course:
    """An undisturbed run: what was there before and after, and the calls that touched the case's folder."""

    scenario: Scenario
    before: Tree
    after: Tree
    ran: Ran
    calls: list[Call]

    def points(self) -> list[Point]:
        """All of them, in order."""
        found = []
        for call in self.calls:
            for fault in ("KILL", *(("ENOSPC",) if call.name in FULL else ()), *(("EIO",) if call.name != "flock" else ())):
                found.append(Point(self.scenario.name, fault, call.name, call.number, call.what))
        return found


def course(place: Place, scenario: Scenario) -> Course:
    """Run it undisturbed, under the tracer; what it leaves is what every disturbed run must come to."""
    place.begin(scenario)
    before = judging.tree(place.case)
    ran = place.run(scenario.argv, trace=TRACED)
    assert ran.code == 0, ran.err
    return Course(scenario, before, judging.tree(place.case), ran, calls(ran.trace, [place.case]))


def judge(place: Place, straight: Course, point: Point) -> Verdict:
    """Begin anew, put the fault in, look; run the command again, look again."""
    scenario = straight.scenario
    for options in point.tries:
        place.begin(scenario)
        ran = place.run(scenario.argv, trace=options)
        injected = [normal(line, [place.case]) for line in ran.trace.splitlines() if "(INJECTED)" in line]
        hit = ran.code == -9 if point.fault == "KILL" else any(point.what in line for line in injected)
        if hit:
            break
    now = judging.tree(place.case)
    verdict = Verdict(point, hit, ran.code, told=_told(ran))
    name = f"out/{scenario.result}"
    complete = (judging.below(straight.after, name).items() <= judging.below(now, name).items()
                or (scenario.timed and ran.code == 0))
    verdict.wrong += judging.torn(scenario, now, straight.before, straight.after)
    if point.fault == "KILL":
        if ran.code == 0 and not complete:
            verdict.wrong.append("exit 0 with an incomplete result")
    elif hit:
        verdict.wrong += judging.told(ran, point.fault, complete=complete, cache="case/cache" in point.what,
                                      cached=judging.below(now, "cache") == judging.below(straight.after, "cache"))
    again = place.run(scenario.argv)
    half = point.fault != "KILL" and ran.code == 0 and complete and "case/cache" in point.what
    verdict.wrong += judging.ended_well(scenario, again, judging.tree(place.case), straight.after, half_cached=half)
    return verdict


def _told(ran: Ran) -> str:
    return " | ".join(line for line in ran.err.splitlines() if re.match(r"error\[|warning: ", line))[:300]


def unsynced(straight: Course, trace: str) -> list[str]:
    """Renames of files whose content was not made durable first, and folders of renames that were not made so after."""
    dirty, renamed, found = set[str](), dict[str, str](), list[str]()
    for line in trace.splitlines():
        if match := re.match(r"(?:write|pwrite64|writev)\(\d+<([^>]+)>", line):
            dirty.add(match[1])
        elif match := re.match(r"(?:fsync|fdatasync)\(\d+<([^>]+)>", line):
            dirty.discard(match[1])
            renamed.pop(match[1], None)
        elif (match := RENAME.match(line)) and not match[2].endswith(".gone"):  # those are on their way out
            found += [f"{path} was not synced before {match[1]} was renamed" for path in dirty
                      if path == match[1] or path.startswith(match[1] + "/")]
            renamed[match[2].rpartition("/")[0]] = match[2]
    inside = f"/case/out/{straight.scenario.result}"
    return found + [f"the folder was not synced after the rename to {new}" for new in renamed.values() if inside in new]
