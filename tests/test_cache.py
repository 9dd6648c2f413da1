"""The cache finds by content, prefers the equal block, and keeps to its size."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from mmtool import cache, sealing
from mmtool.cache import Cache

ONE, TWO = b"1" * 8, b"2" * 8


def key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_rows_come_back_and_the_equal_block_is_preferred(tmp_path: Path) -> None:
    Cache(tmp_path).put([(key("a"), ONE, torch.ones(2, 3)), (key("b"), ONE, torch.zeros(0, 3))])
    Cache(tmp_path).put([(key("a"), TWO, 2 * torch.ones(1, 3))])
    found = Cache(tmp_path)
    for block, value in ((ONE, torch.ones(2, 3)), (TWO, 2 * torch.ones(1, 3))):
        hit = found.get(key("a"), block)
        assert hit is not None
        assert torch.equal(hit[0], value)
        assert hit[1] is True
    other = found.get(key("a"), b"3" * 8)
    assert other is not None
    assert other[1] is False
    assert found.get(key("c"), ONE) is None
    assert found.get(key("a")[:16] + "0" * 48, ONE) is None  # 64 equal bits are not enough


def test_a_resumed_run_sees_only_the_packs_it_began_with(tmp_path: Path) -> None:
    Cache(tmp_path).put([(key("a"), ONE, torch.ones(1, 1))])
    before = Cache(tmp_path).packs
    Cache(tmp_path).put([(key("b"), ONE, torch.ones(1, 1))])
    assert Cache(tmp_path, before).get(key("b"), ONE) is None
    assert Cache(tmp_path).get(key("b"), ONE) is not None


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    for age, name in ((30, "old"), (20, "used"), (10, "new")):
        Cache(tmp_path / "f").put([(key(name), ONE, torch.full((1, 1000), float(age)))])
        pack = max((tmp_path / "f").iterdir(), key=lambda p: p.stat().st_mtime)
        os.utime(pack, (1e9 - age, 1e9 - age))
    assert Cache(tmp_path / "f").get(key("used"), ONE) is not None
    cache.evict(tmp_path, 10_000)
    left = Cache(tmp_path / "f")
    assert [left.get(key(n), ONE) is not None for n in ("old", "used", "new")] == [False, True, True]


def test_the_cache_lies_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMTOOL_CACHE", str(tmp_path))
    assert cache.home().parent == tmp_path
    monkeypatch.delenv("MMTOOL_CACHE")
    assert "mmtool" in str(cache.home())


def test_a_pack_is_verified_once_in_whatever_order_rows_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(10):  # more than stay open
        Cache(tmp_path).put([(key(str(i)), b"1" * 8, torch.full((1, 2), float(i)))])
    verified = []
    verify = sealing.verify

    def seen(path: Path, tensors: Any, digests: Any, remedy: str) -> None:
        verified.append(path)
        verify(path, tensors, digests, remedy)

    store = Cache(tmp_path)
    monkeypatch.setattr(sealing, "verify", seen)
    for _ in range(3):
        for i in range(10):
            found = store.get(key(str(i)), b"1" * 8)
            assert found is not None
            assert found[0].tolist() == [[i, i]]
    assert len(verified) == len(set(verified)) == 10
