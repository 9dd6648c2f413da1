"""Devices that are not there, memory that runs out, drivers that fail, and numbers that are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import mmtool_tiny
import pytest
import torch
from flows.made import LETTERS, metrics, table, write
from safetensors.torch import load_file
from support import folder_bytes
from torch import Tensor

from mmtool import devices
from mmtool.api import Tokens

A = ("-e", "a=tiny-letters")


MODEL = b""


@pytest.fixture(scope="module", autouse=True)
def _one_model(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The bytes of a model, which is trained once."""
    from mmtool.cli.main import run

    global MODEL
    folder = tmp_path_factory.mktemp("model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMTOOL_CACHE", str(folder / "cache"))
        assert run(["train", str(table(folder, 40)), "-t", "label", "-o", str(folder / "m.safetensors"), *A, "-q"]) == 0
    MODEL = (folder / "m.safetensors").read_bytes()


def fail(monkeypatch: pytest.MonkeyPatch, error: Exception, cls: type = mmtool_tiny.Letters, above: int = 0) -> None:
    """Let an encoder raise in batches of more than `above` cells."""
    forward = cls.forward

    def failing(self: object, x: Tensor, lengths: Tensor) -> Tokens:
        if len(x) > above:
            raise error
        return forward(self, x, lengths)

    monkeypatch.setattr(cls, "forward", failing)


def verbs(folder: Path) -> list[tuple[object, ...]]:
    data, model = folder / "data.jsonl", folder / "m.safetensors"
    return [("extract", data, "-o", folder / "f", *A), ("train", data, "-t", "label", "-o", folder / "n.safetensors", *A),
            ("eval", model, data, "-o", folder / "r"), ("predict", data, "-m", model, "-o", folder / "p.csv"),
            ("compare", data, "-t", "label", "-o", folder / "c", *A)]


@pytest.mark.parametrize(("device", "line"), [
    ("cuda", "--device cuda: this machine has no CUDA device that PyTorch can use"),
    ("cuda:7", "--device cuda:7: this machine has no CUDA device that PyTorch can use"),
    ("mps", "--device mps: this machine has no Apple GPU that PyTorch can use"), ("xyz", "--device 'xyz' is no device"),
    ("cuda:-1", "--device 'cuda:-1' is no device"), ("meta", "--device 'meta' is not supported")])
def test_a_device_that_is_not_there_is_refused_before_any_work(mmtool: Callable, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch, device: str, line: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    table(tmp_path, 4)
    (tmp_path / "m.safetensors").write_bytes(MODEL)
    before = sorted(tmp_path.iterdir())
    for number, command in enumerate(verbs(tmp_path)):
        if number % 2:
            with monkeypatch.context() as patch:
                patch.setenv("MMTOOL_DEVICE", device)
                ran = mmtool(*command)
        else:
            ran = mmtool(*command, "--device", device)
        assert (ran.code, ran.out, ran.err.splitlines()[0]) == (8, "", f"error[E_DEVICE]: {line}"), (command, ran.err)
    assert sorted(tmp_path.iterdir()) == before


MEMORY = "input 'a', encoder tiny-letters, row 'r0': one cell does not fit into the memory of cpu"
FAILED = "input 'a', encoder tiny-letters, rows from 'r0' on: the device failed "


@pytest.mark.parametrize(("error", "code", "line"), [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB"), "E_DEVICE_MEMORY", MEMORY),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "E_DEVICE_MEMORY", MEMORY),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"), "E_DEVICE_MEMORY", MEMORY),
    (MemoryError(), "E_DEVICE_MEMORY", MEMORY),
    (RuntimeError("CUDA error: device-side assert triggered\nMore words"), "E_DEVICE_FAILED",
     FAILED + "(CUDA error: device-side assert triggered)"),
    (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), "E_DEVICE_FAILED",
     FAILED + "(CUDA error: an illegal memory access was encountered)")])
def test_an_encoder_that_cannot_go_on_is_named_with_its_row_in_every_verb(
        mmtool: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str, line: str) -> None:
    table(tmp_path, 40)
    (tmp_path / "m.safetensors").write_bytes(MODEL)
    fail(monkeypatch, error)
    for command in verbs(tmp_path):
        ran = mmtool(*command, "--no-cache")
        assert (ran.code, f"error[{code}]: {line}\n" in ran.err) == (8, True), (command, ran.err)
    assert not {"f", "n.safetensors", "r", "p.csv", "c"} & {p.name for p in tmp_path.iterdir()}


def test_memory_that_runs_out_in_a_later_batch_halves_and_gives_what_small_batches_give(
        mmtool: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [{"id": f"r{i}", "a": "x" * (1 if i < 300 else 2 + i % 3)} for i in range(330)]  # the second block is ragged
    data = write(tmp_path / "d.jsonl", [{**t, "a": t["a"] + chr(97 + i % 26) + chr(97 + i // 26)} for i, t in enumerate(texts)])
    told = ("extract", data, *A, "--no-cache", "--tokens", "--workers", "0")
    assert mmtool(*told, "-o", tmp_path / "small", "--batch-size", "4").code == 0
    fail(monkeypatch, torch.OutOfMemoryError("CUDA out of memory"), above=4)
    ran = mmtool(*told, "-o", tmp_path / "halved", "--batch-size", "16")
    assert ran.code == 0, ran.err
    small, halved = folder_bytes(tmp_path / "small"), folder_bytes(tmp_path / "halved")
    headers = [json.loads(found.pop("features.json")) for found in (small, halved)]
    assert small == halved
    assert [h["numerics"]["batch_halved"] for h in headers] == [[], ["a"]]
    assert [h["numerics"]["batch_size"] for h in headers] == [{"a": 4}, {"a": 16}]


def test_memory_that_runs_out_in_training_says_which_number_to_lower(mmtool: Callable, tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    told = ("train", table(tmp_path, 40), "-t", "label", "-o", tmp_path / "m.safetensors", "-e", "a=tiny-learned",
            "--epochs", "2", "--batch-rows", "8")
    monkeypatch.setenv("MMTOOL_CHECKPOINT_SECONDS", "0")
    straight = mmtool(*told)
    assert straight.code == 0, straight.err
    whole = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "m.safetensors").unlink()
    step, taken = torch.optim.AdamW.step, 0

    def stepped(self: torch.optim.AdamW, closure: object = None) -> object:
        nonlocal taken
        taken += 1
        if taken == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", stepped)
        ran = mmtool(*told)
    assert ran.code == 8
    assert "error[E_DEVICE_MEMORY]: training: the memory does not suffice\n  lower --batch-rows, which is 8, or use a " \
        "smaller encoder; the same command goes on where it stopped\n" in ran.err
    assert (tmp_path / "m.safetensors.partial/part-0.safetensors").exists()
    ran = mmtool(*told)
    assert (ran.code, "going on from what m.safetensors.partial holds" in ran.err) == (0, True), ran.err
    assert (tmp_path / "m.safetensors").read_bytes() == whole


@pytest.mark.parametrize(("lr", "told", "line"), [
    ("1e30", ("-e", "a=tiny-learned"), "the held-out loss is nan after epoch 1"),
    ("1e38", ("-e", "a=tiny-learned"), "a step of --lr 1e+38 is no float32 number"),
    ("1e30", (*LETTERS, "-f", "gated"), "the held-out loss is nan after epoch ")])
def test_a_loss_that_is_no_number_keeps_the_last_good_state(mmtool: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                            lr: str, told: tuple[str, ...], line: str) -> None:
    monkeypatch.setenv("MMTOOL_CHECKPOINT_SECONDS", "0")
    data, model = table(tmp_path, 40), tmp_path / "m.safetensors"
    ran = mmtool("train", data, "-t", "label", "-o", model, *told, "--epochs", "5", "--lr", lr)
    kept = tmp_path / "m.safetensors.partial/part-0.safetensors"
    assert (ran.code, f"error[E_LOSS]: {line}" in ran.err) == (1, True), ran.err
    assert f"\n  lower --lr; the last good state is {kept} until the next run\n" in ran.err
    assert all(bool(v.isfinite().all()) for v in load_file(kept).values()) and not model.exists()
    assert mmtool("train", data, "-t", "label", "-o", model, *told, "--epochs", "1").code == 0
    assert not kept.parent.exists()


@pytest.mark.parametrize("accumulate", ["1", "3"])
def test_a_batch_whose_loss_is_no_number_names_its_rows(mmtool: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                        accumulate: str) -> None:
    rows = [json.loads(line) for line in table(tmp_path, 60).read_text().splitlines()]
    rows[2]["a"] = rows[2]["a"] + "!"
    forward = mmtool_tiny.Learned.forward

    def wild(self: mmtool_tiny.Learned, x: Tensor, lengths: Tensor) -> Tokens:
        tokens = forward(self, x, lengths)
        found = (x == ord("!")).unsqueeze(-1)
        return Tokens(torch.where(found & self.training, torch.nan, tokens.values), tokens.mask)

    monkeypatch.setattr(mmtool_tiny.Learned, "forward", wild)
    ran = mmtool("train", write(tmp_path / "wild.jsonl", rows), "-t", "label", "-o", tmp_path / "m.safetensors", "-e",
                 "a=tiny-learned", "--epochs", "3", "--batch-rows", "2", "--accumulate", accumulate)
    assert ran.code == 1 and "error[E_LOSS]: the loss is nan in epoch 1, in the batch of the rows " in ran.err, ran.err
    assert "'r2'" in ran.err.partition("error[E_LOSS]")[2].splitlines()[0]
    assert "lower --lr, or look at these rows; the last good state is " in ran.err
    state = load_file(tmp_path / "m.safetensors.partial/part-0.safetensors")
    assert all(bool(v.isfinite().all()) for v in state.values())


def test_stacked_trainings_name_the_rows_and_others_go_on(mmtool: Callable, tmp_path: Path) -> None:
    ran = mmtool("compare", table(tmp_path), "-t", "label", "-o", tmp_path / "c", *LETTERS, "-f", "gated", "--lr", "1e38",
                 "--epochs", "3")
    assert "warning: gated could not be tried: the loss is nan in epoch 1, in the batch of the rows 'r" in ran.err, ran.err


def test_values_of_an_encoder_that_are_not_finite_make_bad_cells(mmtool: Callable, tmp_path: Path) -> None:
    rows = [{"id": str(i), "a": text} for i, text in enumerate(["ab", "not a number", "猫"])]
    data = write(tmp_path / "d.jsonl", rows)
    told = ("extract", data, *A, "-o", tmp_path / "f", "--max-bad", "100%")
    ran = mmtool(*told)
    assert (ran.code, "a: 2 ok, 0 missing, 1 bad" in ran.err) == (0, True), ran.err
    write(data, [*rows, {"id": "3", "a": chr(0x1F600)}])  # 128512 is more than fp16 holds
    ran = mmtool(*told, "--precision", "fp16")
    assert (ran.code, "a: 2 ok, 0 missing, 2 bad" in ran.err) == (0, True), ran.err
    found = [json.loads(line) for line in (tmp_path / "f/errors.jsonl").read_text().splitlines()]
    assert [(e["id"], e["code"]) for e in found] == [("1", "E_CELL_NOT_FINITE"), ("3", "E_CELL_NOT_FINITE")]
    values = load_file(tmp_path / "f/a/00000.safetensors")["values"]
    assert bool(values.isfinite().all()) and len(values) == 2


def test_targets_and_columns_that_are_not_finite(mmtool: Callable, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in table(tmp_path, 60).read_text().splitlines()]
    for number, bad in ((2, "inf"), (3, "-inf"), (6, "1e400"), (7, "nan")):
        rows[number]["sum"] = bad
        rows[number]["number"] = bad
    data, model = write(tmp_path / "bad.jsonl", rows), tmp_path / "m.safetensors"
    ran = mmtool("train", data, "-t", "sum=regress", "-o", model, *LETTERS, "-e", "number=table")
    assert ran.code == 0, ran.err
    assert "3 rows have a sum that cannot be read and are left out; the first: row 2: E_TARGET: 'inf' is no finite" in ran.err
    assert mmtool("eval", model, data, "-o", tmp_path / "r").code == 0
    assert "nan" not in json.dumps(metrics(tmp_path / "r")["overall"]).lower()


def test_what_is_no_failure_of_a_device_goes_through() -> None:
    assert devices.device_error(RuntimeError("shapes do not match")) is None
    assert devices.device_error(ValueError("out of memory")) is None
    with pytest.raises(RuntimeError, match="shapes"), devices.watched("training", ""):
        raise RuntimeError("shapes do not match")
    told = devices.device_error(RuntimeError("CUDA error: out of memory"))
    assert told is not None and (told.code, told.exit_code) == ("E_DEVICE_MEMORY", 8)
