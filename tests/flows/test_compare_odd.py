"""`mmtool compare` and `train -f auto` where rows lack inputs, where settings are searched, and where a run is ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flows.made import LETTERS, table, write

from mmtool.training.search import search


def rows_of(data: Path) -> list[dict]:
    return [json.loads(line) for line in data.read_text().splitlines()]


def candidates(report: Path, column: str = "label") -> dict[str, dict]:
    text = (report / "comparison.json").read_text()
    assert "NaN" not in text
    return {c["name"]: c for c in json.loads(text)["targets"][column]["candidates"]}


def without_b(tmp_path: Path) -> Path:
    """A second target, `other`, which only rows without b have."""
    rows = rows_of(table(tmp_path, 40))
    return write(tmp_path / "data.jsonl", [{**r, "b": ""} if i % 2 else {**r, "other": ""} for i, r in enumerate(rows)])


def test_a_candidate_that_some_rows_have_no_input_for_tells_no_loss(mmtool: Callable, tmp_path: Path) -> None:
    data = without_b(tmp_path)
    ran = mmtool("compare", data, "-o", tmp_path / "r", "-t", "label", "-t", "other", *LETTERS, "-f", "concat", "-f", "sum")
    assert ran.code == 0, ran.err
    for column in ("label", "other"):
        found = candidates(tmp_path / "r", column)
        assert found["b alone"]["loss"] is None
        assert found["a alone"]["loss"] is not None and found["concat"]["loss"] is not None


def test_auto_writes_a_model_where_a_target_has_no_row_with_some_input(mmtool: Callable, tmp_path: Path,
                                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmtool.training.candidates.installed", lambda: ["concat", "sum"])
    ran = mmtool("train", without_b(tmp_path), "-o", tmp_path / "m.safetensors", "-t", "label", "-t", "other", *LETTERS,
                 "-f", "auto", "--epochs", "1")
    assert ran.code == 0, ran.err


def test_a_target_without_a_row_that_has_an_input_is_refused(mmtool: Callable, tmp_path: Path) -> None:
    rows = [{**r, "a": "", "b": ""} if i % 2 else {**r, "other": ""} for i, r in enumerate(rows_of(table(tmp_path, 40)))]
    ran = mmtool("compare", write(tmp_path / "data.jsonl", rows), "-o", tmp_path / "r", "-t", "label", "-t", "other", *LETTERS,
                 "-f", "concat")
    assert ran.code == 1 and "no row with a other has any input" in ran.err


@pytest.mark.parametrize("wrong", [("-f", "nowhere"), ("-f", "concat", "-f", "concat"), ("-f", "gated:nothing=1")])
def test_a_fusion_that_cannot_take_part_is_refused_before_anything_is_extracted(mmtool: Callable, tmp_path: Path,
                                                                                wrong: tuple[str, ...]) -> None:
    ran = mmtool("compare", table(tmp_path, 40), "-o", tmp_path / "r", "-t", "label", *LETTERS, *wrong)
    assert ran.code != 0 and "ok," not in ran.err, ran.err


def test_a_searched_candidate_does_not_go_on_from_the_checkpoint_of_another(mmtool: Callable, tmp_path: Path,
                                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMTOOL_CHECKPOINT_SECONDS", "0")
    losses = []

    def watched(match: object, *arguments: object) -> object:
        attempt = match.attempt  # type: ignore[attr-defined]

        def told(job: object) -> object:
            entry = attempt(job)
            losses.append(entry.answers["label"].loss)
            return entry

        match.attempt = told  # type: ignore[attr-defined]
        return search(match, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("mmtool.training.search.search", watched)
    rows = [{**r, "a": str(r["a"]) * (i % 3 + 1)} for i, r in enumerate(rows_of(table(tmp_path, 40)))]
    ran = mmtool("compare", write(tmp_path / "data.jsonl", rows), "-o", tmp_path / "r", "-t", "label", *LETTERS, "--tokens",
                 "-f", "transformer:8,layers=1,heads=1,ff=8", "--only-fusions", "--search", "4", "--folds", "2",
                 "--epochs", "2")
    assert ran.code == 0, ran.err
    assert len(set(losses)) > 1


def processes() -> set[int]:
    return {int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()}


def children(parent: int) -> set[int]:
    found = set()
    for number in processes():
        try:
            stat = Path(f"/proc/{number}/stat").read_text()
        except OSError:
            continue
        if int(stat.rpartition(")")[2].split()[1]) == parent:
            found.add(number)
    return found


@pytest.mark.skipif(sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="one process does it all here")
@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_a_run_that_is_ended(tmp_path: Path, way: signal.Signals) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    run = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); " \
          "from mmtool.cli.main import run; sys.exit(run(sys.argv[1:]))"
    command = ["compare", table(tmp_path), "-o", tmp_path / "r", "-t", "label", *LETTERS, "--lr", "1e-9", "--epochs", "100000"]
    begun = subprocess.Popen([sys.executable, "-c", run, *map(str, command)], stderr=subprocess.PIPE,
                             env={**os.environ, "TMPDIR": str(temporary)})
    try:
        started = time.monotonic()
        while len(workers := children(begun.pid)) < 2 and time.monotonic() - started < 60:
            time.sleep(0.1)
        assert len(workers) > 1
        time.sleep(1)
        begun.send_signal(way)
        begun.communicate(timeout=30)
        started = time.monotonic()
        while workers & processes() and time.monotonic() - started < 10:
            time.sleep(0.1)
        assert not workers & processes()
        if way != signal.SIGKILL:
            assert not list(temporary.glob("mmtool-*")) and not (tmp_path / "r").exists()
            assert begun.returncode in (130, -way)
    finally:
        begun.kill()
        for number in workers & processes():
            os.kill(number, signal.SIGKILL)
