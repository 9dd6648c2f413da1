"""Manifests of every kind give the same rows, and say what is wrong with them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmtool.errors import MMToolError
from mmtool.manifest.open import open_manifest, scan
from mmtool.manifest.rows import Blob, Row


def rows(path: Path) -> list[Row]:
    return list(open_manifest(str(path)).rows())


def written(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_csv_in_any_unicode_encoding(tmp_path: Path, encoding: str) -> None:
    path = written(tmp_path / "a.csv", "id,text\n1,\"Zwölf, \"\"große\"\"\nBoxkämpfer\"\n2,猫\n".encode(encoding))
    assert rows(path) == [{"id": "1", "text": 'Zwölf, "große"\nBoxkämpfer'}, {"id": "2", "text": "猫"}]


def test_utf16_without_a_mark_and_windows_1252_are_read_and_said(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "text\ncafé au lait, encore\n".replace(", ", " ").encode("utf-16-le"))
    assert rows(path) == [{"text": "café au lait encore"}]
    path = written(tmp_path / "b.csv", "text\ncafé\n".encode("cp1252"))
    assert rows(path) == [{"text": "café"}]
    assert "Windows-1252" in open_manifest(str(path)).notes[0]


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", "\t")])
def test_delimiters(tmp_path: Path, name: str, delimiter: str) -> None:
    path = written(tmp_path / name, f"id{delimiter}text\n1{delimiter}one\n")
    assert rows(path) == [{"id": "1", "text": "one"}]


def test_cells_are_kept_as_written_and_blank_ones_are_missing(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "id,price,text\n007, 1.50 ,  \n\n8,,x\n")
    assert rows(path) == [{"id": "007", "price": " 1.50 ", "text": None}, {"id": "8", "price": None, "text": "x"}]


@pytest.mark.parametrize(("content", "words"), [
    ("", "is empty"), ("id,text\n", "has no rows"), ("a,a\n1,2\n", "two columns are called 'a'"),
    ("a,b\n1,2\n1,2,3\n", "line 3: 3 fields, but the header names 2"), ("a,b\n1\n", "line 2: 1 fields"),
    ('a,b\n"1,2\n', "line 2"),
    ("id\nx\ny\nx\nz\nz\n", "2 ids occur more than once: 'x' (rows 0, 2), 'z' (rows 3, 4)")])
def test_broken_csv_is_an_error_that_says_where(tmp_path: Path, content: str, words: str) -> None:
    path = written(tmp_path / "a.csv", content)
    with pytest.raises(MMToolError) as caught:
        scan(open_manifest(str(path)))
    assert words in str(caught.value)


def test_jsonl_values_become_text_and_null_is_missing(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '\ufeff{"id": "a", "text": "a\\nb", "tags": ["x", "y"], "n": null}\n\n{"text": 2.5}\n')
    assert rows(path) == [{"id": "a", "text": "a\nb", "tags": '["x", "y"]', "n": None}, {"text": "2.5"}]
    assert scan(open_manifest(str(path))).columns == ("id", "text", "tags", "n")


@pytest.mark.parametrize("line", ["{", "[1]", "nonsense", "[" * 100_000])
def test_bad_jsonl_names_the_line(tmp_path: Path, line: str) -> None:
    path = written(tmp_path / "a.jsonl", '{"a": 1}\n' + line + "\n")
    with pytest.raises(MMToolError, match="line 2"):
        rows(path)


def test_parquet_with_numbers_nulls_and_bytes(tmp_path: Path) -> None:
    table = pa.table({"id": [1, 2], "price": [1.5, None], "image": [{"bytes": b"\xff\xd8", "path": "a.jpg"}, None],
                      "raw": [b"x", None]})
    pq.write_table(table, tmp_path / "a.parquet")
    first, second = rows(tmp_path / "a.parquet")
    assert first == {"id": "1", "price": "1.5", "image": Blob("a.jpg", b"\xff\xd8"), "raw": Blob("a.parquet#0", b"x")}
    assert second == {"id": "2", "price": None, "image": None, "raw": None}


def test_a_file_that_is_no_parquet_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MMToolError, match="not a readable Parquet file"):
        rows(written(tmp_path / "a.parquet", "nonsense"))


def test_folder_of_class_folders(tmp_path: Path) -> None:
    for name in ("cat/b.jpg", "cat/a.png", "dog/c.jpg", ".hidden/x.jpg", "dog/notes.pdf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        written(tmp_path / name, b"x")
    assert rows(tmp_path) == [{"id": "cat/a", "image": "cat/a.png", "label": "cat"},
                              {"id": "cat/b", "image": "cat/b.jpg", "label": "cat"},
                              {"id": "dog/c", "image": "dog/c.jpg", "label": "dog"}]


def test_folder_with_splits_and_flat_folder_with_pairs(tmp_path: Path) -> None:
    for name in ("s/train/cat/a.jpg", "s/valid/cat/b.jpg", "f/1.jpg", "f/1.txt", "f/2.wav", "f/3.jpg", "f/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        written(tmp_path / name, b"x")
    assert [(r["split"], r["label"]) for r in rows(tmp_path / "s")] == [("train", "cat"), ("val", "cat")]
    assert rows(tmp_path / "f") == [{"id": "1", "image": "1.jpg", "text": Blob("1.txt", b"x")}, {"id": "2", "audio": "2.wav"},
                                    {"id": "3", "image": "3.jpg"}, {"id": "3.png", "image": "3.png"}]


def test_webdataset_shards(tmp_path: Path) -> None:
    for shard, keys in (("00", ("a", "b")), ("01", ("c",))):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            for key in keys:
                for suffix, data in (("jpg", b"J"), ("left.png", b"L"), ("txt", b"hi"), ("cls", b"3\n"),
                                     ("json", json.dumps({"price": 2}).encode())):
                    info = tarfile.TarInfo(f"x/{key}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    got = rows(tmp_path)
    assert [r["id"] for r in got] == ["x/a", "x/b", "x/c"]
    assert got[0] == {"id": "x/a", "image": Blob("00.tar/x/a.jpg", b"J"), "left": Blob("00.tar/x/a.left.png", b"L"),
                      "text": Blob("00.tar/x/a.txt", b"hi"), "label": "3", "price": "2"}


def test_a_cut_tar_is_an_error(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("a.jpg")
        info.size = 20_000
        tar.addfile(info, io.BytesIO(bytes(20_000)))
    data = (tmp_path / "a.tar").read_bytes()
    with pytest.raises(MMToolError, match="not a whole tar file"):
        rows(written(tmp_path / "b.tar", data[:9000]))


@pytest.mark.parametrize("name", ["nowhere.csv", "there.pdf"])
def test_what_is_no_manifest_is_said(tmp_path: Path, name: str) -> None:
    written(tmp_path / "there.pdf", "x")
    with pytest.raises(MMToolError, match=r"does not exist|is no manifest"):
        open_manifest(str(tmp_path / name))


def test_a_scan_hashes_content_not_names(tmp_path: Path) -> None:
    one = scan(open_manifest(str(written(tmp_path / "a.csv", "id,t\n1,x\n"))))
    same = scan(open_manifest(str(written(tmp_path / "b.tsv", "id\tt\n1\tx\n"))))
    other = scan(open_manifest(str(written(tmp_path / "c.csv", "id,t\n1,y\n"))))
    assert one == same
    assert one.sha256 != other.sha256
