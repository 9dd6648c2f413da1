"""Twenty of the points of `make faults`: killed, or out of space, or failing there, the same command then ends as ever."""

from __future__ import annotations

import pytest
from faults import judging, points, scenarios
from faults.points import Course
from faults.scenarios import Place

SAMPLE = {"extract": 6, "extract-replacing": 5, "train-descent": 5, "train-manifest": 4}
"""So many of each, evenly from the first to the last; kills, full disks and failing ones take turns."""


@pytest.fixture(scope="module")
def straight(place: Place, tracer: str) -> dict[str, Course]:
    """Each run undisturbed, when it is first asked for."""
    return {}


def course(place: Place, straight: dict[str, Course], name: str) -> Course:
    if name not in straight:
        straight[name] = points.course(place, scenarios.ALL[name])
    return straight[name]


@pytest.mark.parametrize(("name", "part"), [(name, part) for name, count in SAMPLE.items() for part in range(count)])
def test_a_fault_loses_nothing_and_the_same_command_then_ends_as_ever(place: Place, straight: dict[str, Course], name: str,
                                                                      part: int) -> None:
    found = course(place, straight, name)
    kind = ("KILL", "ENOSPC", "EIO")[part % 3]
    some = [p for p in found.points() if p.fault == kind]
    point = some[round(part * (len(some) - 1) / (SAMPLE[name] - 1))]
    verdict = points.judge(place, found, point)
    assert verdict.hit, point
    assert verdict.wrong == [], f"{point}: exit {verdict.code}, {verdict.told}"


@pytest.mark.parametrize("name", ["extract", "extract-replacing"])
def test_killed_before_each_step_of_putting_features_in_place(place: Place, straight: dict[str, Course], name: str) -> None:
    """The few calls in which a folder gets its name and what it replaces goes."""
    found = course(place, straight, name)
    last = max(i for i, call in enumerate(found.calls) if call.name.startswith("rename") and ".partial" in call.what)
    calls = {(call.name, call.number) for call in found.calls[last - 1:]}
    steps = [p for p in found.points() if p.fault == "KILL" and (p.call, p.number) in calls and p.call != "fsync"]
    wrong = {str(p): verdict.wrong for p in steps if (verdict := points.judge(place, found, p)).wrong}
    assert len(steps) > 1
    assert wrong == {}


@pytest.mark.parametrize("name", [*SAMPLE])
def test_what_is_renamed_was_synced_and_nothing_is_left_lying(place: Place, straight: dict[str, Course], name: str) -> None:
    found = course(place, straight, name)
    assert points.unsynced(found, found.ran.trace) == []
    assert judging.litter(found.after) == []
