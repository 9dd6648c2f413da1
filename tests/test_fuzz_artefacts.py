"""A sample of tests/benchmarks/fuzz_artefacts.py: damage of any kind ends in an error of ours, never in other content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from artefacts import Target, attempt, prepared
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmtool import console

CASES = 150


@pytest.fixture(scope="module", params=[1, 2])
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> \
        Iterator[tuple[list[Target], dict[Path, bytes], dict[int, Any]]]:
    yield prepared(tmp_path_factory.mktemp("golden"), request.param)
    console.set_quiet(False)


@given(st.integers(0, 10_000), st.integers(0, 1 << 64))
@settings(max_examples=CASES, deadline=None, derandomize=True, database=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_damaged_files_are_refused_or_hold_the_same(golden: tuple[list[Target], dict[Path, bytes], dict[int, Any]],
                                                    which: int, seed: int) -> None:
    targets, whole, expected = golden
    at = which % len(targets)
    assert attempt(targets[at], whole, expected[at], Random(seed)) != "other content, with a sum"
