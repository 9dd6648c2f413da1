"""What every test may use: the command line in this process, a small plugin, and the real data where it is."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parent / "plugin"
sys.path.insert(0, str(PLUGIN))
os.environ["PYTHONPATH"] = os.pathsep.join([str(PLUGIN), *filter(None, [os.environ.get("PYTHONPATH")])])
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun in the background; the commands of tests must get Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: threads of busy neighbours wait for each other


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The real data first: these files take longest, and with --no-loadscope-reorder the short ones fill the rest."""
    items.sort(key=lambda item: item.get_closest_marker("real") is None)


@dataclass(frozen=True)
class Ran:
    """What a command came to."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session", autouse=True)
def _no_cache_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What fixtures of a wider scope compute is kept for this process alone."""
    os.environ["MMTOOL_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMTOOL_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def mmtool(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Ran]]:
    """Runs `mmtool ARGUMENTS` in this process."""
    import torch

    from mmtool import console
    from mmtool.cli.main import run

    threads = torch.get_num_threads()

    def call(*arguments: object) -> Ran:
        capfd.readouterr()
        code = run([str(a) for a in arguments])
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    yield call
    console.set_quiet(False)
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with stamps.csv, prompts.csv and clipart.csv, named by MMTOOL_DATA."""
    folder = os.environ.get("MMTOOL_DATA")
    if not folder or not (Path(folder) / "stamps.csv").exists():
        pytest.skip("the real data sets are not here: MMTOOL_DATA names no folder with stamps.csv")
    return Path(folder)
