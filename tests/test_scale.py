"""What is done for large tables changes nothing of what comes out: hashes, ids, rows, errors, counts, the cache."""

from __future__ import annotations

import gc
import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from mmtool.cache import Cache
from mmtool.cells import Raw
from mmtool.errors import MMToolError
from mmtool.extraction.blocks import TASK_CELLS, TASK_CHARS, _parts
from mmtool.features.part import Part
from mmtool.features.reader import all_finite
from mmtool.features.rows import count, count_cells, join, read_rows, write_errors, write_part
from mmtool.garbage import settled
from mmtool.manifest import open as opening
from mmtool.manifest.open import ids_and_rows, open_manifest, scan
from mmtool.manifest.rows import Blob, Row


def table(path: Path, ids: list[str]) -> str:
    path.write_text("id,t\n" + "".join(f"{name},x\n" for name in ids))
    return str(path)


def test_ids_that_are_equal_far_apart_are_found(tmp_path: Path) -> None:
    ids = [f"row-{i}" for i in range(300_001)]
    ids[300_000] = ids[0]
    with pytest.raises(MMToolError, match=r"1 ids occur more than once: 'row-0' \(rows 0, 300000\)"):
        scan(open_manifest(table(tmp_path / "a.csv", ids)))


def test_ids_of_equal_hashes_are_compared_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "hash", lambda text: -7, raising=False)
    assert scan(open_manifest(table(tmp_path / "a.csv", ["a", "b", "c"]))).rows == 3
    with pytest.raises(MMToolError, match=r"1 ids occur more than once: 'b' \(rows 1, 3\)"):
        scan(open_manifest(table(tmp_path / "b.csv", ["a", "b", "c", "b"])))


def test_a_rows_number_is_its_id_and_may_be_another_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "1", "t": "a"}\n{"t": "b"}\n')
    with pytest.raises(MMToolError, match=r"'1' \(rows 0, 1\)"):
        scan(open_manifest(str(path)))


@pytest.mark.parametrize("most", [1, 300, 1 << 16])
def test_the_hash_is_of_each_row_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(opening, "HASHED_CHARS", most)
    rows: list[Row] = [
        {"id": "a", "t": 'q"\\\x00\x7f'}, {"id": "b", "t": "猫 \U0001f408 \ud800"}, {}, {"t": None, "id": "c"},
        {"id": "d", "ü": "x" * 500}, {"id": Blob("e.png", b"\x89PNG"), "t": "1"}]
    told = hashlib.sha256()
    for row in rows:
        record = {k: hashlib.sha256(v.data).hexdigest() if isinstance(v, Blob) else v for k, v in row.items()}
        told.update(json.dumps(record).encode())
    found = scan(opening.Manifest("m", tmp_path, (), lambda: iter(rows)))
    assert (found.sha256, found.rows, found.columns) == (told.hexdigest(), 6, ("id", "t", "ü"))


def test_rows_from_the_middle_have_the_ids_of_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"t": "{i}"}}\n' for i in range(5)))
    manifest = open_manifest(str(path))
    assert list(ids_and_rows(manifest, 3)) == list(ids_and_rows(manifest))[3:] == [("3", {"t": "3"}), ("4", {"t": "4"})]
    assert list(ids_and_rows(manifest, 9)) == []


BAD = "E_IMG_TRUNCATED: cut off"
STATUSES = [(["ok", BAD, "missing"], ["ok", "ok", "ok"]), (["ok", "ok"], ["ok", "missing"]),
            (["missing", BAD], [BAD, "E_CELL_URL: a URL"])]
INPUTS = {"a": ("a",), "a.b": ("a", "c")}
"""One name begins as the other: in Parquet, a dot leads into a column."""


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    paths = []
    for number, (a, b) in enumerate(STATUSES):
        rows: list[dict[str, str | None]] = [{"a": f"{number}-{i}.png", "c": None} for i in range(len(a))]
        paths.append(tmp_path / f"{number}.parquet")
        write_part(paths[-1], Part([f"{number}-{i}" for i in range(len(a))], rows, {"a": a, "a.b": b}, {"n": {"a": number}}),
                   ["id", "a", "c"])
    return paths


def test_joined_rows_are_those_of_the_parts_and_whole_parts_have_no_errors(parts: list[Path], tmp_path: Path) -> None:
    join(parts, tmp_path / "rows.parquet")
    found = pq.read_table(tmp_path / "rows.parquet")
    assert found.to_pylist() == [row for path in parts for row in pq.read_table(path).to_pylist()]
    assert pq.ParquetFile(tmp_path / "rows.parquet").num_row_groups == len(parts)
    write_errors(parts, tmp_path / "errors.jsonl", INPUTS)
    told = [json.loads(line) for line in (tmp_path / "errors.jsonl").read_text().splitlines()]
    assert [(e["id"], e["input"], e["column"], e["path"], e["code"]) for e in told] == [
        ("0-1", "a", "a", "0-1.png", "E_IMG_TRUNCATED"), ("2-0", "a.b", "a+c", None, "E_IMG_TRUNCATED"),
        ("2-1", "a", "a", "2-1.png", "E_IMG_TRUNCATED"), ("2-1", "a.b", "a+c", None, "E_CELL_URL")]


def test_parts_are_counted_by_cell_and_by_row(parts: list[Path]) -> None:
    first, second, third = (count(path, ["a", "a.b"]) for path in parts)
    assert first.counts == {"a": {"ok": 1, "missing": 1, "bad": 1}, "a.b": {"ok": 3, "missing": 0, "bad": 0}}
    assert [(c.rows, c.bad_rows, c.notes) for c in (first, second, third)] == [
        (3, 1, {"n": {"a": 0}}), (2, 0, {"n": {"a": 1}}), (2, 2, {"n": {"a": 2}})]


def test_cells_are_counted_some_rows_at_a_time(parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    join(parts, path := tmp_path / "rows.parquet")
    header = {"rows": 7, "columns": ["id", "a", "c"]}
    monkeypatch.setattr("mmtool.features.rows.BATCH_ROWS", 2)
    assert count_cells(path, header, ["a", "a.b"]) == {"a": {"ok": 3, "missing": 2, "bad": 2},
                                                       "a.b": {"ok": 4, "missing": 1, "bad": 2}}
    assert read_rows(path, header, ["a", "a.b"]).to_pylist() == pq.read_table(path).to_pylist()
    with pytest.raises(MMToolError, match="has 7 rows instead of 8"):
        count_cells(path, {**header, "rows": 8}, ["a", "a.b"])


@pytest.mark.parametrize("spoil", [lambda data: bytes(len(data)), lambda data: b"", lambda data: data[: len(data) // 2]])
def test_a_pack_that_was_spoilt_is_dropped_and_its_rows_are_new(tmp_path: Path, spoil: object) -> None:
    keys = [hashlib.sha256(bytes([i])).hexdigest() for i in range(3)]
    Cache(tmp_path).put([(key, b"1" * 8, torch.ones(1, 2)) for key in keys])
    Cache(tmp_path).put([(keys[0], b"2" * 8, torch.zeros(1, 2))])
    (pack,) = (p for p in tmp_path.iterdir() if len(Cache(tmp_path, [p.name]).known) == 3)
    pack.write_bytes(spoil(pack.read_bytes()))  # type: ignore[operator]
    found = Cache(tmp_path)
    assert not pack.exists()
    assert found.get(keys[1], b"1" * 8) is None
    hit = found.get(keys[0], b"1" * 8)
    assert hit is not None and torch.equal(hit[0], torch.zeros(1, 2)) and not hit[1]


def test_rows_of_many_lengths_come_back_from_many_packs(tmp_path: Path) -> None:
    given = {hashlib.sha256(bytes([i])).hexdigest(): torch.full((i % 4, 3), float(i)) for i in range(40)}
    items = list(given.items())
    for at in range(0, 40, 7):
        Cache(tmp_path).put([(key, at.to_bytes(8), row) for key, row in items[at : at + 7]])
    found = Cache(tmp_path)
    assert len(found.known) == 40
    for number, (key, row) in enumerate(items):
        hit = found.get(key, (number // 7 * 7).to_bytes(8))
        assert hit is not None and torch.equal(hit[0], row) and hit[1]


def test_what_is_kept_from_the_search_is_let_go_again() -> None:
    before = gc.get_freeze_count()
    with pytest.raises(ValueError, match="out"), settled():
        assert gc.get_freeze_count() > before
        raise ValueError("out")
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_large_values_are_finite_and_the_infinite_are_found_wherever_they_are(dtype: torch.dtype) -> None:
    values = torch.full((600, 3), torch.finfo(dtype).max, dtype=dtype)  # their sum is not finite
    assert all_finite(values) and all_finite(values[:0])
    for wrong in (float("inf"), -float("inf"), float("nan")):
        for at in (0, 255, 256, 599):
            assert not all_finite(values.clone().index_fill_(0, torch.tensor([at]), wrong))
    assert not all_finite(torch.tensor([[float("inf"), -float("inf")]], dtype=dtype))


def test_short_texts_reach_a_reader_together_and_long_texts_and_files_some_at_a_time() -> None:
    def sizes(raws: list[Raw], modality: str) -> list[int]:
        parts = list(_parts(raws, modality))
        assert [raw for part in parts for raw in part] == raws
        return [len(part) for part in parts]

    assert sizes(["short", None] * 128, "text") == [256]
    assert sizes([{"a": "1", "b": None}] * 256, "table") == [256]
    assert sizes(["x" * TASK_CHARS] * 40, "text") == sizes([Blob("a", b"x" * TASK_CHARS)] * 40, "text") == [16, 16, 8]
    assert sizes(["x" * (TASK_CHARS // 64)] * 100, "text") == [64, 36]
    assert sizes(["a.jpg"] * 40, "image") == [TASK_CELLS, TASK_CELLS, 8]
    assert sizes([], "text") == []
