"""Batches are a function of the block; devices and memory are handled."""

from __future__ import annotations

import pytest
import torch
from mmtool_tiny import Greedy, Letters
from torch import Tensor

from mmtool.engine import Engine, choose_batch_size, choose_device, plan
from mmtool.errors import DeviceError, MMToolError, UsageError


def cells(*lengths: int | None) -> list[Tensor | None]:
    return [None if n is None else torch.ones(n, 2) for n in lengths]


@pytest.mark.parametrize(("lengths", "size", "padded", "batches"), [
    ((3, 3, 3, 3, 3), 2, True, [[0, 1], [2, 3], [4]]),
    ((3, None, 3, 3), 2, True, [[0, 1], [2, 3]]),           # an unusable cell keeps its place
    ((3, 3, None, None, 3), 2, True, [[0, 1], [4]]),        # a batch without a usable cell is not run
    ((5, 1, 4, 1, 9), 2, True, [[1, 3], [2, 0], [4]]),      # by length, then by position
    ((5, None, 4), 8, True, [[2, 0]]),
    ((2, 7, 2, 7, 2), 2, False, [[0, 2], [4], [1, 3]]),     # without padding only equal lengths meet
    ((None, None), 4, True, []), ((), 4, True, [])])
def test_what_is_batched_with_what(lengths: tuple[int | None, ...], size: int, padded: bool, batches: list[list[int]]) -> None:
    assert list(plan(cells(*lengths), size, padded=padded)) == batches


def engine(encoder: Letters, batch_size: int = 8) -> Engine:
    return Engine(encoder, torch.device("cpu"), "fp32", batch_size)


def test_rows_come_back_in_their_order() -> None:
    prepared = [Letters().prepare(text) for text in ("ccc", "a", "bb")]
    rows = engine(Letters()).encode([prepared[0], None, prepared[1], prepared[2]], keep="tokens")
    assert [None if r is None else r[:, 0].tolist() for r in rows] == [[99.0] * 3, None, [97.0], [98.0] * 2]


def test_progress_is_told_batch_by_batch() -> None:
    told: list[int] = []
    engine(Letters(), batch_size=2).encode(cells(1, 1, None, 1, 1), keep="pooled", done=told.append)
    assert told == [2, 2, 1]


def test_memory_that_runs_out_halves_until_it_fits() -> None:
    greedy = engine(Greedy(), batch_size=32)
    rows = greedy.encode(cells(*[2] * 40), keep="pooled")
    assert all(r is not None for r in rows)
    assert (greedy.batch_size, greedy.halved) == (4, True)


def test_one_cell_that_does_not_fit_is_an_error_with_a_remedy() -> None:
    class Hungry(Letters):
        def forward(self, x: Tensor, lengths: Tensor) -> None:  # type: ignore[override]
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes")

    with pytest.raises(MMToolError, match="does not fit into the memory"):
        engine(Hungry()).encode(cells(1), keep="pooled")


def test_other_errors_of_an_encoder_are_not_taken_for_memory() -> None:
    class Broken(Letters):
        def forward(self, x: Tensor, lengths: Tensor) -> None:  # type: ignore[override]
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        engine(Broken()).encode(cells(1, 1), keep="pooled")


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_precisions(precision: str, dtype: torch.dtype) -> None:
    (row,) = Engine(Letters(), torch.device("cpu"), precision, 4).encode(cells(3), keep="pooled")
    assert row is not None
    assert (row.dtype, row.tolist()) == (dtype, [[1.0, 1.0]])


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(DeviceError, match="there are 2 CUDA devices"):
        choose_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="no CUDA device"):
        choose_device("cuda")
    for name in ("xla", "nonsense", "meta"):
        with pytest.raises(DeviceError):
            choose_device(name)


def test_batch_sizes() -> None:
    assert choose_batch_size("auto", torch.device("cpu")) == 32
    assert choose_batch_size("7", torch.device("cpu")) == 7
    for text in ("0", "-1", "1.5", "many"):
        with pytest.raises(UsageError, match="--batch-size"):
            choose_batch_size(text, torch.device("cpu"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
def test_a_cuda_device_gives_what_the_cpu_gives() -> None:
    prepared = cells(3, 5, None, 5)
    on_cpu = engine(Letters()).encode(prepared, keep="tokens")
    on_cuda = Engine(Letters(), torch.device("cuda"), "fp32", 8).encode(prepared, keep="tokens")
    for a, b in zip(on_cpu, on_cuda, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            torch.testing.assert_close(a, b)
