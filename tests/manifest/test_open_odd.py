"""Manifests that are damaged, hostile or simply odd: each is read, or refused with its place, and never hangs."""

from __future__ import annotations

import datetime
import decimal
import gzip
import io
import json
import os
import socket
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmtool.errors import MMToolError
from mmtool.manifest import archives, delimited, lines
from mmtool.manifest.open import open_manifest, scan
from mmtool.manifest.rows import Blob, Row


def rows(path: Path) -> list[Row]:
    return list(open_manifest(str(path)).rows())


def written(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)
    return path


def refused(path: Path) -> MMToolError:
    with pytest.raises(MMToolError) as caught:
        scan(open_manifest(str(path)))
    return caught.value


# ---- text

def test_a_byte_that_is_no_utf8_spoils_its_cell_alone(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "id,text\n1,zwölf große Boxkämpfer\n2,".encode() + b"b\xffd\n")
    manifest = open_manifest(str(path))
    assert manifest.notes == (f"{path}: 1 bytes are not UTF-8, the first at byte 39; their cells are no text",)
    assert [r["text"] for r in manifest.rows()] == ["zwölf große Boxkämpfer", "b\udcffd"]
    path = written(tmp_path / "a.jsonl", b'{"text": "b\xffd"}\n{"text": "ok"}\n')
    assert [r["text"] for r in rows(path)] == ["b\udcffd", "ok"]
    assert open_manifest(str(written(tmp_path / "b.csv", "text\nnaïve".encode()[:-3]))).notes[0].endswith("Windows-1252")


def test_such_a_cell_is_bad_and_its_row_goes_on(mmtool: Callable, tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", b'{"id": "x\\ud800", "a": "b\xffd", "b": "ok"}\n'
                                         b'{"id": "y", "a": "ok", "b": "a\\ud800"}\n')
    ran = mmtool("extract", path, "-o", tmp_path / "f", "-e", "a=tiny-letters", "-e", "b=tiny-letters", "--max-bad", "100%")
    assert ran.code == 0 and all(f"{name}: 1 ok, 0 missing, 1 bad" in ran.err for name in "ab"), ran.err
    found = [json.loads(line) for line in (tmp_path / "f/errors.jsonl").read_text().splitlines()]
    assert [(e["id"], e["input"]) for e in found] == [("x\\ud800", "a"), ("y", "b")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_marked_unicode_is_read_in_jsonl_and_csv(tmp_path: Path, encoding: str) -> None:
    assert rows(written(tmp_path / "a.jsonl", '{"t": "猫"}\n{"t": "b"}\n'.encode(encoding))) == [{"t": "猫"}, {"t": "b"}]
    assert rows(written(tmp_path / "a.csv", "t\r\n猫\r\nb\r\n".encode(encoding))) == [{"t": "猫"}, {"t": "b"}]


def test_cut_utf16_says_where(tmp_path: Path) -> None:
    error = refused(written(tmp_path / "a.csv", "t\nabc\n".encode("utf-16")[:-1]))
    assert "is not utf-16, after line 1: truncated data" in error.message


def test_a_line_or_cell_without_an_end_is_refused_by_its_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines.MOST_CHARS == 64 * 2**20
    monkeypatch.setattr(lines, "MOST_CHARS", 1000)
    error = refused(written(tmp_path / "a.jsonl", '{"t": "a"}\n{"t": "' + "x" * 2000 + '"}\n'))
    assert (error.code, "line 2: longer than 1000 characters" in error.message) == ("E_MANIFEST_LIMIT", True)
    assert refused(written(tmp_path / "a.csv", "t\n" + "x" * 2000 + "\n")).code == "E_MANIFEST_LIMIT"
    monkeypatch.setattr(delimited, "MOST_CHARS", 500)
    before = delimited.csv.field_size_limit(500)
    try:
        error = refused(written(tmp_path / "b.csv", 't\na\n"never closed\n' + "x\n" * 600))
    finally:
        delimited.csv.field_size_limit(before)
    assert (error.code, "line 3: a cell has more than 500 characters" in error.message) == ("E_MANIFEST_LIMIT", True)


@pytest.mark.parametrize(("content", "found"), [
    ("id,t\r1,a\r2,b\r", [("1", "a"), ("2", "b")]), ('id;t\n1;"a;\r\nb"\n\n\n', [("1", "a;\r\nb")]),
    ('\ufeff"id","t"\n1,a\x00b', [("1", "a\x00b")]),
    ("id,t\n1,\u202egnp\u202c 👨\u200d👩\n", [("1", "\u202egnp\u202c 👨\u200d👩")])])
def test_line_ends_quotes_nul_and_directions(tmp_path: Path, content: str, found: list[tuple[str, str]]) -> None:
    assert [(r["id"], r["t"]) for r in rows(written(tmp_path / "a.csv", content))] == found


@pytest.mark.parametrize(("content", "words"), [
    ("\n\n", "is empty"), (" , \n1,2\n", "is empty"), ("id,,t,\n1,2,3,4\n", "the columns 2, 4 have no name"),
    ('id,t\n1,"a\nb"\n2,3,4\n', "line 4: 3 fields"), ('id,t\n1,a\n2,"b\n3,c\n', "line 3: unexpected end of data")])
def test_broken_tables_say_where(tmp_path: Path, content: str, words: str) -> None:
    assert words in refused(written(tmp_path / "a.csv", content)).message


def test_ten_thousand_columns_are_one_pass(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(10_000)]
    path = written(tmp_path / "a.csv", ",".join(names) + "\n" + ",".join(map(str, range(10_000))) + "\n")
    assert rows(path) == [{n: str(i) for i, n in enumerate(names)}]
    assert "two columns are called 'c7'" in refused(written(path, ",".join([*names, "c7"]) + "\n")).message


# ---- JSONL

@pytest.mark.parametrize(("line", "words"), [
    ('{"a": 1, "a": 2}', "the key 'a' is there twice"), ('{"a": {"b": 1, "b": 2}}', "the key 'b' is there twice"),
    ('{"a": "b', "Unterminated string"), ("\x00\x01", "not JSON")])
def test_json_that_would_be_misread_is_refused_with_its_line(tmp_path: Path, line: str, words: str) -> None:
    error = refused(written(tmp_path / "a.jsonl", '{"a": 0}\n' + line))
    assert "line 2" in error.message and words in error.message


def test_numbers_of_any_length_and_nested_values_are_text(tmp_path: Path) -> None:
    deep = "[" * 900 + "]" * 900
    path = written(tmp_path / "a.jsonl", f'{{"n": {"9" * 5000}, "x": 1e999, "l": [1, {{"a": null}}], "d": {deep}, "": 1}}\n')
    assert rows(path) == [{"n": "9" * 5000, "x": "Infinity", "l": '[1, {"a": null}]', "d": deep, "": "1"}]


# ---- Parquet

def test_parquet_values_that_python_has_no_object_for(tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(struct.pack("<ii", 0, 2)), pa.py_buffer(b"\xffa")])
    pq.write_table(pa.table({
        "ns": pa.array([1], pa.timestamp("ns")), "zone": pa.array([1000], pa.timestamp("ms", "No/Where")),
        "far": pa.array([2**60], pa.timestamp("us")), "text": broken, "list": [[datetime.date(2020, 1, 2)]],
        "struct": [{"a": b"x", "b": None}], "decimal": [decimal.Decimal("1.50")],
        "words": pa.array(["x"]).dictionary_encode(), "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64()))}),
        tmp_path / "a.parquet")
    (row,) = rows(tmp_path / "a.parquet")
    assert row["ns"] == "1970-01-01 00:00:00.000000001"
    assert row["zone"] == "1970-01-01 00:00:01.000"
    assert row["far"] == "<value out of range: 1152921504606846976>"
    assert row["text"] == "\udcffa"
    assert row["list"] == '["2020-01-02"]'
    assert (row["decimal"], row["words"], row["map"]) == ("1.50", "x", '[["k", 1]]')
    assert row["struct"] == '{"a": "b\'x\'", "b": null}'


def test_parquet_that_is_cut_or_has_a_name_twice(tmp_path: Path) -> None:
    pq.write_table(pa.table({"t": ["a" * 100] * 50}), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    for data in (whole[:-20], whole[:40] + whole[60:], b"PAR1 nothing PAR1", b""):
        assert "not a readable Parquet file" in refused(written(tmp_path / "b.parquet", data)).message
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["t", "t"]), tmp_path / "c.parquet")
    assert "two columns are called 't'" in refused(tmp_path / "c.parquet").message


# ---- tar shards

def shard(path: Path, *members: tuple[str, bytes, dict[str, object]]) -> bytes:
    with tarfile.open(path, "w") as tar:
        for name, data, fields in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in fields.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))
    return path.read_bytes()


def header(size: int, kind: bytes = b"0") -> bytes:
    info = tarfile.TarInfo("big.txt")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def test_a_shard_that_ends_or_breaks_at_a_member_loses_no_row_in_silence(tmp_path: Path) -> None:
    whole = shard(tmp_path / "a.tar", *((f"{i}.txt", b"x" * 600, {}) for i in range(3)))
    for data, words in ((whole[:1536 + 100], "at byte 1536: truncated header"), (whole[:1536], "at byte 1536: empty header"),
                        (whole[:1536] + b"\xff" * 512 + whole[2048:], "at byte 1536: "), (b"", "empty header")):
        error = refused(written(tmp_path / "b.tar", data))
        assert "not a whole tar file" in error.message and words in error.message


def test_a_gzipped_shard_is_checked_to_its_end(tmp_path: Path) -> None:
    whole = gzip.compress(shard(tmp_path / "a.tar", ("0.txt", os.urandom(600), {})))
    assert len(rows(written(tmp_path / "b.tar.gz", whole))) == 1
    damaged = bytearray(whole)
    damaged[-6] ^= 1  # of the checksum
    for data in (whole[:-10], bytes(damaged), whole[:300], b"no gzip"):
        assert "not a whole tar file" in refused(written(tmp_path / "c.tar.gz", data)).message


def test_sizes_that_lie_are_seen_and_large_members_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    negative = bytearray(header(0))
    negative[124:136] = b"\xff" * 12
    negative[148:156] = b"%06o\0 " % (sum(negative[:148]) + 8 * 32 + sum(negative[156:512]))
    for data in (header(10**12) + bytes(9000), bytes(negative) + bytes(9000), header(10**11, b"x") + bytes(9000)):
        assert "not a whole tar file" in refused(written(tmp_path / "a.tar", data)).message
    monkeypatch.setattr(archives, "MOST_BYTES", 1000)
    shard(tmp_path / "b.tar", ("0.txt", b"x" * 2000, {}), ("1.txt", b"ok", {}))
    first, second = rows(tmp_path / "b.tar")
    assert first["text"] == Blob("b.tar/0.txt", b"", archives.TOO_LARGE)
    assert second["text"] == Blob("b.tar/1.txt", b"ok")
    shard(tmp_path / "c.tar", ("0.json", b'{"a": "' + b"x" * 2000 + b'"}', {}))
    assert refused(tmp_path / "c.tar").code == "E_MANIFEST_LIMIT"


def test_names_links_and_devices_in_a_shard_touch_nothing(tmp_path: Path) -> None:
    shard(tmp_path / "a.tar", ("/etc/x.txt", b"one", {}), ("../../y.txt", b"two", {}),
          ("s.txt", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
          ("h.txt", b"", {"type": tarfile.LNKTYPE, "linkname": "../../etc/passwd"}),
          ("d.txt", b"", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5}), ("f.txt", b"", {"type": tarfile.FIFOTYPE}),
          ("n" * 9000 + ".txt", b"long", {}), (os.fsdecode(b"\xff.txt"), b"odd", {}))
    found = rows(tmp_path / "a.tar")
    assert [str(r["id"])[:12] for r in found] == ["/etc/x", "../../y", "nnnnnnnnnnnn", "\udcff"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar"]
    shard(tmp_path / "b.tar", ("0.json", b"[" * 100_000, {}))
    assert "member 0.json: not JSON" in refused(tmp_path / "b.tar").message


# ---- folders and what is no file

def test_a_folder_with_loops_pipes_sockets_and_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "d"
    (folder / "a").mkdir(parents=True)
    for name in ("1.png", "\x1b[31m[bold]\nx.png", os.fsdecode(b"\xff.png")):
        (folder / "a" / name).write_bytes(b"x")
    (folder / "a/loop").symlink_to(folder)
    for name, target in (("self.png", "self.png"), ("broken.png", "nowhere.png"), ("zero.txt", "/dev/zero"),
                         ("good.png", "1.png")):
        (folder / "a" / name).symlink_to(target)
    os.mkfifo(folder / "a/pipe.png")
    os.mkfifo(folder / "a/pipe.txt")
    (folder / "a/dir.png").mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        monkeypatch.chdir(folder / "a")
        bound.bind("sock.png")
    assert {r["image"] for r in rows(folder)} == {
        "a/1.png", "a/good.png", "a/\x1b[31m[bold]\nx.png", "a/" + os.fsdecode(b"\xff.png")}
    assert scan(open_manifest(str(folder))).rows == 4


def test_a_folder_that_cannot_be_listed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b.png").write_bytes(b"x")
    listed = os.scandir

    def scandir(path: object) -> object:
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", scandir)
    error = refused(tmp_path)
    assert (error.code, error.exit_code, f"{tmp_path / 'a'}: Permission denied" in error.message) == ("E_PERMISSION", 5, True)


@pytest.mark.parametrize("suffix", ["", ".jsonl", ".csv", ".tar", ".parquet"])
def test_a_pipe_or_device_as_manifest_does_not_hang(mmtool: Callable, tmp_path: Path, suffix: str) -> None:
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"zero{suffix}").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        ran = mmtool("extract", tmp_path / f"{name}{suffix}", "-o", tmp_path / "f", "-e", "t=tiny-letters")
        assert (ran.code, ran.err) == (
            5, f"error[E_NOT_REGULAR]: {tmp_path}/{name}{suffix} is neither a file nor a folder\n"
               "  a manifest is read more than once; - reads JSONL from a pipe\n")


@pytest.mark.parametrize(("given", "line"), [
    (b'{"t": "a"}\n{"t": "b', "error[E_MANIFEST]: stdin, line 2: not JSON (Unterminated string"),
    (bytes(range(256)) * 9, "error[E_MANIFEST]: stdin, line 1: not JSON ("), (b"", "error[E_MANIFEST]: - has no rows"),
    (None, "error[E_USAGE]: - reads JSONL from stdin, and stdin is closed")])
def test_stdin_that_is_cut_or_garbage(mmtool: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: bytes | None,
                                      line: str) -> None:
    monkeypatch.setattr("sys.stdin", None if given is None else io.TextIOWrapper(io.BytesIO(given)))
    ran = mmtool("extract", "-", "-o", tmp_path / "f", "-e", "t=tiny-letters")
    assert (ran.code, ran.err.startswith(line)) == (2 if given is None else 1, True), ran.err
    assert not (tmp_path / "f").exists()
