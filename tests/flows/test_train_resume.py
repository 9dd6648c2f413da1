"""`mmtool train`, killed and run again, ends with the bytes of a run that nothing disturbed."""

from __future__ import annotations

import functools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flows.made import LETTERS, table, write

from mmtool import train
from mmtool.errors import Interrupted
from mmtool.settings import Settings
from mmtool.training.keeping import Keeper, Place

LEARNED = ("-e", "a=tiny-learned", "-e", "b=tiny-letters", "--epochs", "6", "--batch-rows", "16", "--dropout", "0.2")


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


@pytest.mark.parametrize("told", [LEARNED, (*LEARNED, "--folds", "2", "--accumulate", "2"),
                                  (*LETTERS, "-f", "gated", "--epochs", "5", "--optimizer", "sgd"),
                                  (*LEARNED, "-t", "sum", "--loss-weighting", "uncertainty", "--optimizer", "adam"),
                                  (*LETTERS, "--tokens", "-f", "transformer:8,layers=1,heads=2", "--batch-rows", "16",
                                   "--epochs", "4"),
                                  (*LEARNED, "--tokens", "-f", "mult:8,layers=1,heads=2,ff=8", "--epochs", "3")])
def test_a_run_ended_after_any_checkpoint_goes_on_to_the_same_bytes(mmtool: Callable, tmp_path: Path, told: tuple[str, ...],
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMTOOL_CHECKPOINT_SECONDS", "0")
    data, model = table(tmp_path, 100, missing=0.1, split="--folds" not in told), tmp_path / "m.safetensors"
    assert mmtool("train", data, "-t", "label", "-o", tmp_path / "straight.safetensors", *told).code == 0
    keep, kept = Keeper.keep, 0

    def keep_and_die(self: Keeper, *arguments: object) -> None:
        nonlocal kept
        keep(self, *arguments)  # type: ignore[arg-type]
        kept += 1
        if kept == 5:
            kept = 0
            raise Killed

    monkeypatch.setattr(Keeper, "keep", keep_and_die)
    deaths = 0
    while not model.exists():
        try:
            assert mmtool("train", data, "-t", "label", "-o", model, *told).code == 0
        except Killed:
            deaths += 1
            assert deaths < 60
    assert deaths > 1
    assert model.read_bytes() == (tmp_path / "straight.safetensors").read_bytes()
    assert not list(tmp_path.glob("*.partial"))


def run(data: Path, model: Path, cache: Path, *told: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "MMTOOL_CHECKPOINT_SECONDS": "0", "MMTOOL_CACHE": str(cache)}
    with model.with_suffix(".txt").open("wb") as log:
        return subprocess.Popen([sys.executable, "-m", "mmtool", "train", str(data), "-t", "label", "-o", str(model), *told],
                                env=environment, stdout=subprocess.DEVNULL, stderr=log)


def written(path: Path) -> int:
    """When a file was last written, in ns; 0 where it is not."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def test_killed_at_random_moments_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    data, cache = table(tmp_path, 400, missing=0.1), tmp_path / "cache"
    told = (*LEARNED, "--epochs", "30", "--patience", "30")
    assert run(data, tmp_path / "straight.safetensors", cache, *told).wait() == 0
    rng, model, kills = random.Random(0), tmp_path / "m.safetensors", 0
    state = tmp_path / "m.safetensors.partial" / "part-0.safetensors"
    while kills < 3:
        before, process = written(state), run(data, model, cache, *told)
        while written(state) == before:  # the process has gone on from its checkpoint, and keeps another after each step
            assert process.poll() is None, model.with_suffix(".txt").read_text()
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        assert not model.exists()
    assert run(data, model, cache, *told).wait() == 0
    assert "going on" in model.with_suffix(".txt").read_text()
    assert model.read_bytes() == (tmp_path / "straight.safetensors").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_after_the_step_and_says_how_to_go_on(tmp_path: Path, number: int) -> None:
    data, model, cache = table(tmp_path, 400), tmp_path / "m.safetensors", tmp_path / "cache"
    told = (*LEARNED, "--epochs", "2000", "--patience", "2000")
    process = run(data, model, cache, *told)
    state = tmp_path / "m.safetensors.partial" / "part-0.safetensors"
    while not state.exists():
        assert process.poll() is None, model.with_suffix(".txt").read_text()
        time.sleep(0.1)
    process.send_signal(number)
    asked = time.monotonic()
    assert process.wait(60) == 130
    err = model.with_suffix(".txt").read_bytes()
    assert time.monotonic() - asked < 5
    assert b"the same command goes on" in err
    assert b"Traceback" not in err
    assert state.exists()
    assert not model.exists()


def test_a_mask_of_minus_infinity_keeps_no_state_from_being_kept(mmtool: Callable, tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from mmtool_tiny import Learned

    def with_mask(encoder: Learned, *arguments: Any, **options: Any) -> None:
        begin(encoder, *arguments, **options)
        encoder.register_buffer("causal", torch.tensor([0.0, -torch.inf]))

    begin, keep, kept = Learned.__init__, Keeper.keep, 0

    def count(self: Keeper, *arguments: Any) -> None:
        nonlocal kept
        kept += 1
        keep(self, *arguments)

    monkeypatch.setenv("MMTOOL_CHECKPOINT_SECONDS", "0")
    monkeypatch.setattr(Learned, "__init__", functools.wraps(begin)(with_mask))
    monkeypatch.setattr(Keeper, "keep", count)
    ran = mmtool("train", table(tmp_path, 60), "-t", "label", "-o", tmp_path / "m.safetensors", *LEARNED)
    assert ran.code == 0, ran.err
    assert kept > 6


@pytest.mark.parametrize("damage", ["", "[1]", '{"plan": ', '{"facts": {}}', None])
def test_a_damaged_plan_makes_all_that_was_kept_worthless(mmtool: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                          damage: str | None) -> None:
    def die(self: Keeper, *arguments: Any) -> None:
        keep(self, *arguments)
        raise Killed

    keep = Keeper.keep
    monkeypatch.setenv("MMTOOL_CHECKPOINT_SECONDS", "0")
    data, model = table(tmp_path, 60), tmp_path / "m.safetensors"
    other = ("--epochs", "3", "-e", "b=tiny-letters", "--optimizer", "adamw")
    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "keep", die)
        with pytest.raises(Killed):
            mmtool("train", data, "-t", "label", "-o", model, *other, "--lr", "0.5")
    plan = tmp_path / "m.safetensors.partial/plan.json"
    plan.write_text(plan.read_text().replace('"threads": ', '"threads": 1') if damage is None else damage)
    last = "0.5" if damage is None else "0.01"
    ran = mmtool("train", data, "-t", "label", "-o", model, *other, "--lr", last)
    assert ran.code == 0
    assert "starting anew" in ran.err
    assert mmtool("train", data, "-t", "label", "-o", tmp_path / "s.safetensors", *other, "--lr", last).code == 0
    assert model.read_bytes() == (tmp_path / "s.safetensors").read_bytes()


def test_another_command_does_not_take_what_was_left(mmtool: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMTOOL_CHECKPOINT_SECONDS", "0")
    data, model = table(tmp_path, 100), tmp_path / "m.safetensors"

    def die(self: Keeper, *arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "keep", die)
        with pytest.raises(Killed):
            mmtool("train", data, "-t", "label", "-o", model, *LEARNED)
    ran = mmtool("train", data, "-t", "label", "-o", model, *LEARNED, "--seed", "1")
    assert ran.code == 0
    assert "left by another run; starting anew" in ran.err
    (tmp_path / "n.safetensors.partial").mkdir()
    (tmp_path / "n.safetensors.partial/mine.txt").write_text("precious")
    ran = mmtool("train", data, "-t", "label", "-o", tmp_path / "n.safetensors", *LETTERS)
    assert ran.code == 5
    assert "in the way" in ran.err
    assert (tmp_path / "n.safetensors.partial/mine.txt").exists()


@pytest.mark.parametrize(("told", "going_on"), [
    (("-t", "number=classify", "--device", "auto", "--workers", "0", "--no-cache", "--max-bad", "9"), True),
    (("-t", "number", "--task", "classify", "--device", "cpu"), True),
    (("-t", "number", "--task", "regress"), False),
    (("-t", "number=classify,label_smoothing=0.1"), False),
    (("-t", "number=classify"), None)])
def test_only_what_changes_the_model_makes_it_start_anew(mmtool: Callable, tmp_path: Path, told: tuple[str, ...],
                                                         going_on: bool | None,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    import mmtool_tiny

    monkeypatch.setenv("MMTOOL_CHECKPOINT_SECONDS", "0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    data, model, keep = table(tmp_path, 100), tmp_path / "m.safetensors", Keeper.keep

    def keep_and_die(self: Keeper, *arguments: object) -> None:
        keep(self, *arguments)  # type: ignore[arg-type]
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Keeper, "keep", keep_and_die)
        mmtool("train", data, "-o", model, *LEARNED, "-t", "number=classify", "--device", "cpu")
    if going_on is None:
        monkeypatch.setattr(mmtool_tiny.Letters, "revision", 2)  # another version of the encoder was installed in between
    ran = mmtool("train", data, "-o", model, *LEARNED, *told)
    assert ran.code == 0, ran.err
    assert ("going on" in ran.err) is bool(going_on)
    assert ("starting anew" in ran.err) is not bool(going_on)


def test_ctrl_c_reaches_loader_processes_too_and_is_told_once(tmp_path: Path) -> None:
    from PIL import Image

    rows = []
    for number in range(80):
        Image.new("RGB", (64, 64), (number, 255 * (number % 2), 0)).save(tmp_path / f"{number}.png")
        rows.append({"photo": f"{number}.png", "label": "ab"[number % 2]})
    data = write(tmp_path / "pictures.jsonl", rows)
    command = [sys.executable, "-m", "mmtool", "train", str(data), "-t", "label", "-o", str(tmp_path / "m.safetensors"),
               "-e", "photo=image-cnn:width=4", "--augment", "photo=flip", "--workers", "2", "--epochs", "500",
               "--patience", "500", "--batch-rows", "16"]
    environment = {**os.environ, "MMTOOL_CHECKPOINT_SECONDS": "0", "OMP_NUM_THREADS": "1"}
    state = tmp_path / "m.safetensors.partial" / "part-0.safetensors"
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          start_new_session=True) as process:
        while not state.exists():
            assert process.poll() is None
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        err = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert err.count(b"ending after this step") == 1
    assert b"Traceback" not in err


def test_it_is_said_to_go_on_only_where_something_was_kept(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "m.safetensors"

    def interrupted(name: str, output: Path, *_: object) -> None:
        Place(output).begin("plan", {})
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "_train", interrupted)
    going_on = "going on from what m.safetensors.partial holds\n"
    for words, said in (("begins anew", ""), ("begins anew", ""), ("goes on", going_on)):
        if said:
            (tmp_path / "m.safetensors.partial/part-0.safetensors").touch()
        with pytest.raises(Interrupted, match=words):
            train.train("data", model, Settings(targets=("a",)))
        assert capsys.readouterr().err == said
