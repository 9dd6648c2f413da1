"""The fork server and the folder that the tests of faults share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faults.runs import Server, strace
from faults.scenarios import Place


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A process that has imported everything, and forks one for each command."""
    with Server() as found:
        yield found


@pytest.fixture(scope="module")
def place(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A folder with a table, features and a model, and room for one case."""
    return Place(tmp_path_factory.mktemp("faults"), server)


@pytest.fixture(scope="session")
def tracer() -> str:
    """strace, which puts faults into calls of the system."""
    found = strace()
    if found is None:
        pytest.skip("strace is not installed (apt-get install strace): no fault can be put into a call of the system")
    return found
