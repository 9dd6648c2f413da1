"""Cells that are read again and again."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmtool_tiny import Letters, Raw

from mmtool.cells import Source
from mmtool.manifest.rows import Blob
from mmtool.training import cellstore


def test_what_the_manifest_itself_holds_is_not_held_in_memory(tmp_path: Path) -> None:
    def raws() -> Iterator[Blob]:
        return (Blob(str(number), bytes(1_000_000 + number)) for number in range(200))

    tracemalloc.start()
    try:
        store = cellstore.read(tmp_path, "a", raws, Source("blob", tmp_path), Raw(), prepared=True, workers=0,
                               advance=lambda cells: None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [int(store.prepared_cell(row)) for row in range(200)] == [1_000_000 + number for number in range(200)]
    assert peak < 60e6


@pytest.mark.parametrize("workers", [0, 2])
def test_what_does_not_fit_is_decoded_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setattr(cellstore, "MOST_BYTES", 80)
    texts = [chr(97 + number % 26) * (1 + number % 3) if number % 7 else None for number in range(60)]
    for _ in range(2):  # the second time from what is there
        store = cellstore.read(tmp_path, "a", lambda: iter(texts), Source("text", tmp_path), Letters(), prepared=True,
                               workers=workers, advance=lambda cells: None)
        assert 0 < sum(place is not None for place in store.places) < 50
        for row, text in enumerate(texts):
            assert store.statuses[row] == ("missing" if text is None else "ok")
            if text is not None:
                assert torch.equal(store.prepared_cell(row), Letters().prepare(text))
