"""Rows of many lengths behave as padded tokens do, and are padded only in parts."""

from __future__ import annotations

import pytest
import torch

from mmtool import plugins, ragged
from mmtool.api import Tokens
from mmtool.network import Front, Standardise, having, only, take
from mmtool.ragged import Ragged, chunks, is_ragged, padded


def rows(lengths: list[int], width: int = 3, seed: int = 0) -> Ragged:
    g = torch.Generator().manual_seed(seed)
    return Ragged.of([torch.randn(n, width, generator=g) if n else None for n in lengths], width)


def test_it_is_what_it_looks_like_when_padded() -> None:
    found = rows([2, 0, 5])
    whole = Tokens.from_rows(found.rows(), 3)
    assert torch.equal(found.values, whole.values)
    assert torch.equal(found.mask, whole.mask)
    assert (found.dim, found.lengths.tolist(), found.present.tolist()) == (3, [2, 0, 5], [True, False, True])
    torch.testing.assert_close(found.mean(), whole.mean())


def test_some_rows_in_another_order_and_hidden_ones_stay_ragged() -> None:
    found = {"a": rows([2, 0, 5]), "b": Tokens.pooled(torch.randn(3, 2))}
    some = take(found, [2, 0])
    assert is_ragged(some)
    assert some["a"].lengths.tolist() == [5, 2]
    assert torch.equal(some["a"].padded().values[1, :2], found["a"].rows()[0])
    alone = only(found, ["b"])
    assert alone["a"].lengths.tolist() == [0, 0, 0]
    assert alone["a"].padded().values.shape == (3, 1, 3)
    assert having(found, ["a", "b"]).tolist() == [0, 2]


def test_only_what_is_looked_at_is_read_and_it_becomes_float32() -> None:
    read = []

    class Store:
        def __getitem__(self, row: int) -> torch.Tensor:
            read.append(row)
            return torch.full((2, 3), row, dtype=torch.float16)

    found = Ragged(Store(), torch.arange(1000), torch.full((1000,), 2), 3).take(torch.tensor([7, 900]))
    assert read == []
    assert found.values.dtype == torch.float32
    assert read == [7, 900]


def test_stretches_hold_no_more_tokens_than_they_may_padding_among_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ragged, "CHUNK_TOKENS", 20)
    inputs = {"a": rows([1, 4, 4, 30, 1, 0, 2]), "b": Tokens.pooled(torch.randn(7, 2))}
    found = chunks(inputs)
    assert [(part.start, part.stop) for part in found] == [(0, 3), (3, 4), (4, 7)]
    assert [(p.start, p.stop) for p in chunks({"b": inputs["b"]}, 3)] == [(0, 3), (3, 6), (6, 7)]


def test_scales_are_those_of_all_tokens() -> None:
    found, one, other = rows([2, 0, 5, 9]), Standardise(3), Standardise(3)
    one.fit(found)
    other.fit(found.padded())
    torch.testing.assert_close(one.mean, other.mean)
    torch.testing.assert_close(one.scale, other.scale)
    nothing = Standardise(3)
    nothing.fit(rows([0, 0]))
    assert nothing.scale.tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", ["transformer", "mult", "bottleneck", "perceiver", "deepset", "late"])
def test_the_size_of_the_stretches_changes_no_result(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    inputs = {"a": rows([2, 0, 5, 9, 1, 1, 0]), "b": rows([1, 3, 0, 2, 2, 7, 0], 2, seed=1),
              "c": Tokens.pooled(torch.randn(7, 4))}
    dims = {n: t.dim for n, t in inputs.items()}
    front = Front(dims, plugins.load(plugins.find(name, "fusion"))(dims)).eval()
    with torch.no_grad():
        whole = front(padded(inputs))
        for size in (1, 10, 30, 1000):
            monkeypatch.setattr(ragged, "CHUNK_TOKENS", size)
            for key, tokens in front(inputs).items():
                torch.testing.assert_close(tokens.mean(), whole[key].mean(), rtol=0, atol=1e-5)
                assert torch.equal(tokens.present, whole[key].present)
