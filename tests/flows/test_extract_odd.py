"""Odd names, odd targets and odd moments in `mmtool extract`."""

from __future__ import annotations

import io
import json
import os
import signal
import struct
import tarfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from support import folder_bytes
from test_extract import make_manifest

from mmtool import reader_process
from mmtool.cells import Source
from mmtool.errors import MMToolError
from mmtool.extraction import folder
from mmtool.extraction.folder import Partial
from mmtool.features.reader import Features
from mmtool.locks import locked
from mmtool.readers import Readers
from mmtool.reading import Job, Outcome, Task

LETTERS = ("-e", "title=tiny-letters")


@pytest.fixture
def pool() -> Iterator[Readers]:
    from mmtool_tiny import Letters

    with Readers(2, {"t": Job(Source("text", Path()), Letters(), np.zeros(0, np.uint64))}) as started:
        yield started


def test_an_error_in_the_manifest_comes_after_what_was_read_before_it(pool: Readers) -> None:
    def tasks() -> Iterator[Task]:
        for _ in range(5):
            yield Task("t", ["a", "b"])
        raise MMToolError("line 11 is broken")

    results = pool.map(tasks())
    assert [len(next(results)) for _ in range(5)] == [2] * 5
    with pytest.raises(MMToolError, match="line 11 is broken"):
        next(results)


def test_a_reader_that_is_killed_while_idle_is_replaced(pool: Readers) -> None:
    for worker in pool.workers:
        os.kill(worker.process.pid or 0, signal.SIGKILL)
        worker.process.join()
    assert [[o.status for o in outcomes] for outcomes in pool.map([Task("t", ["a", None]), Task("t", ["b"])])] == [
        ["ok", "missing"], ["ok"]]


def test_a_cell_that_takes_too_long_is_bad(pool: Readers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_process, "CELL_SECONDS", 0.3)
    monkeypatch.setattr(reader_process, "GRACE_SECONDS", 0.1)
    pool.workers[0].process.kill()
    stopped = pool.workers[1].process.pid or 0
    os.kill(stopped, signal.SIGSTOP)
    started = time.monotonic()
    assert [o[0].status for o in pool.map([Task("t", ["a"]), Task("t", ["b"])])] == ["ok", "ok"]
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("column", ["parts", "features.json", "rows.parquet", "errors.jsonl", "../x", "图片", "x" * 300, ".",
                                    "a/b"])
def test_a_column_may_have_any_name(mmtool: Callable, tmp_path: Path, column: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({column: "abc"}) + "\n")
    ran = mmtool("extract", tmp_path / "a.jsonl", "-o", tmp_path / "f", "-e", f"{column}=tiny-letters")
    assert ran.code == 0, ran.err
    features = Features(tmp_path / "f")
    assert features.tokens(features.inputs[0], [0]).present.tolist() == [True]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl", "f"]


def test_columns_whose_names_become_one_are_told_apart(mmtool: Callable, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmtool.inputs.DEFAULT_ENCODERS", {"text": ("tiny-letters",)})
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"标题": f"a first text {i}", "文字": f"another text {i}"}) + "\n"
                                              for i in range(3)))
    assert mmtool("extract", tmp_path / "a.jsonl", "-o", tmp_path / "f").code == 0
    assert Features(tmp_path / "f").inputs == ["__", "__-2"]


def test_a_sample_of_a_shard_stays_one_where_its_json_states_an_id(mmtool: Callable, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in (("0.json", b'{"id": "img0"}'), ("0.txt", b"abc"), ("1.json", b'{"id": "img1"}'), ("1.txt", b"de")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert mmtool("extract", tmp_path / "a.tar", "-o", tmp_path / "f", "-e", "text=tiny-letters", "--tokens").code == 0
    features = Features(tmp_path / "f")
    assert features.rows["id"].to_pylist() == ["img0", "img1"]
    assert features.tokens("text", [0, 1]).lengths.tolist() == [3, 2]


def test_a_run_killed_just_before_its_end_states_the_same_width(mmtool: Callable, tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """The pooled width of `spectral` is not the width of its tokens, and no shard is computed after the resume."""
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(8000) / 9).astype(np.float32), 16000)
    (tmp_path / "a.csv").write_text("clip\na.wav\n")
    arguments = ("extract", tmp_path / "a.csv", "-e", "clip=spectral", "-o")
    assert mmtool(*arguments, tmp_path / "straight").code == 0

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("mmtool.features.rows.join", killed)
        assert mmtool(*arguments, tmp_path / "f").code == 130
    assert mmtool(*arguments, tmp_path / "f").code == 0
    assert folder_bytes(tmp_path / "f") == folder_bytes(tmp_path / "straight")


def test_the_cache_does_not_go_round_a_limit(mmtool: Callable, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "d", 3)
    arguments = ("extract", manifest, "-o", tmp_path / "f", "-e", "clip=tiny-loudness", "--max-bad", "100%")
    assert "3 ok" in mmtool(*arguments).err
    ran = mmtool(*arguments, "--max-seconds", 0.02)
    assert "0 ok, 0 missing, 3 bad" in ran.err


def test_rows_batched_in_another_company_are_recorded(mmtool: Callable, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "d", 20)
    arguments = ("extract", manifest, "-o", tmp_path / "f", *LETTERS)
    text = manifest.read_text()
    mmtool(*arguments)
    manifest.write_text(text.replace("abcd,", "wxyz,"))
    mmtool(*arguments)  # two cells are new, and batched without the others
    assert Features(tmp_path / "f").header["numerics"]["rows_from_other_blocks"]["title"] == 16
    mmtool(*arguments)
    assert Features(tmp_path / "f").header["numerics"]["rows_from_other_blocks"]["title"] == 18


def test_a_file_of_the_user_in_the_folder_is_kept(mmtool: Callable, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "d", 3)
    mmtool("extract", manifest, "-o", tmp_path / "f", *LETTERS)
    (tmp_path / "f/notes.txt").write_text("precious")
    ran = mmtool("extract", manifest, "-o", tmp_path / "f", *LETTERS)
    assert (ran.code, "'notes.txt'" in ran.err) == (5, True)
    assert (tmp_path / "f/notes.txt").read_text() == "precious"


def test_two_runs_do_not_write_one_folder(mmtool: Callable, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "d", 3)
    with locked(tmp_path / "f"):
        ran = mmtool("extract", manifest, "-o", tmp_path / "f", *LETTERS)
    assert ran.code == 6
    assert f"error[E_LOCKED]: another run writes {tmp_path / 'f'}: process {os.getpid()} on " in ran.err
    assert mmtool("extract", manifest, "-o", tmp_path / "f", *LETTERS).code == 0
    assert {p.name for p in tmp_path.iterdir()} == {"d", "f"}


def test_targets_that_cannot_be_replaced_are_refused_first(mmtool: Callable, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = make_manifest(tmp_path / "d", 3)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for target in (".", "..", tmp_path / ("x" * 250)):
        ran = mmtool("extract", manifest, "-o", target, *LETTERS)
        assert ran.code == 5
        assert "Traceback" not in ran.err


def test_a_link_to_a_folder_is_followed(mmtool: Callable, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "d", 3)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for _ in range(2):
        assert mmtool("extract", manifest, "-o", tmp_path / "link", *LETTERS).code == 0
    assert (tmp_path / "link").is_symlink()
    assert len(Features(tmp_path / "real")) == 3


@pytest.mark.parametrize(("arguments", "words"), [
    (["--tokens"], "--like and --tokens"), (["-e", "title=tiny-letters"], "--like and -e"),
    (["--weights", "nope=FILE"], "no such file")])
def test_like_excludes_what_it_decides(mmtool: Callable, tmp_path: Path, arguments: list[str], words: str) -> None:
    manifest = make_manifest(tmp_path / "d", 3)
    mmtool("extract", manifest, "-o", tmp_path / "f", *LETTERS)
    ran = mmtool("extract", manifest, "-o", tmp_path / "g", "--like", tmp_path / "f", *arguments)
    assert (ran.code, words in ran.err) == (2, True)


def test_a_damaged_header_and_a_reserved_column_are_said(mmtool: Callable, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "d", 3)
    (tmp_path / "f").mkdir()
    for header in ("{}", "[]", '{"format": 1, "inputs": {"a": {}}, "shards": []}', '{"format": 99}'):
        (tmp_path / "f/features.json").write_text(header)
        ran = mmtool("extract", manifest, "-o", tmp_path / "g", "--like", tmp_path / "f")
        assert ran.code == 4
        assert "Traceback" not in ran.err
    (tmp_path / "a.csv").write_text("title,status:title\nabc,x\n")
    ran = mmtool("extract", tmp_path / "a.csv", "-o", tmp_path / "g", *LETTERS)
    assert (ran.code, "'status:title'" in ran.err) == (1, True)


def test_a_cache_that_cannot_be_written_costs_nothing(mmtool: Callable, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = make_manifest(tmp_path / "d", 3)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MMTOOL_CACHE", str(tmp_path / "file"))
    ran = mmtool("extract", manifest, "-o", tmp_path / "f", *LETTERS)
    assert (ran.code, "going on without it" in ran.err) == (0, True)
    monkeypatch.setenv("MMTOOL_CACHE_BYTES", "10G")
    assert mmtool("extract", manifest, "-o", tmp_path / "g", *LETTERS).code == 2


def test_an_edited_plugin_is_not_served_what_is_cached(mmtool: Callable, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = make_manifest(tmp_path / "d", 3)
    assert "0 cached" in mmtool("extract", manifest, "-o", tmp_path / "f", *LETTERS).err
    assert "3 cached" in mmtool("extract", manifest, "-o", tmp_path / "f", *LETTERS).err
    edited = tmp_path / "edited.py"
    edited.write_text("# another text\n")
    monkeypatch.setattr("inspect.getfile", lambda _: str(edited))
    assert "0 cached" in mmtool("extract", manifest, "-o", tmp_path / "f", *LETTERS).err


def test_replacing_other_features_is_said(mmtool: Callable, tmp_path: Path) -> None:
    for name, rows, words in (("a", 3, None), ("a", 3, None), ("b", 4, "of other rows, are replaced")):
        ran = mmtool("extract", make_manifest(tmp_path / name, rows), "-o", tmp_path / "f", *LETTERS)
        assert (words or "") in ran.err
        assert ("replaced" in ran.err) == (words is not None)


def test_sounds_are_not_given_to_an_encoder_of_pictures(mmtool: Callable, tmp_path: Path) -> None:
    ran = mmtool("extract", make_manifest(tmp_path / "d", 3), "-o", tmp_path / "f", "-e", "clip=tiny-colour")
    assert (ran.code, "'clip' holds audio" in ran.err) == (2, True)


def test_a_disk_that_is_too_small_is_said_before_the_work(mmtool: Callable, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = make_manifest(tmp_path / "d", 3)
    monkeypatch.setattr("mmtool.extract.shutil.disk_usage", lambda path: SimpleNamespace(free=11))
    ran = mmtool("extract", manifest, "-o", tmp_path / "f", *LETTERS)
    assert ran.code == 0
    assert "warning: these features take up to " in ran.err and " B are free on the disk of" in ran.err
    assert ran.err.index("these features take") < ran.err.index("title: 3 ok")


def _killed_before_the_end(mmtool: Callable, monkeypatch: pytest.MonkeyPatch, *argv: object) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Partial, "finish", die)
        with pytest.raises(Killed):
            mmtool(*argv)


def test_a_shard_that_is_damaged_before_a_run_goes_on_is_found(
        mmtool: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = make_manifest(tmp_path / "d", 30)
    argv = ("extract", manifest, "-o", tmp_path / "f", *LETTERS)
    _killed_before_the_end(mmtool, monkeypatch, *argv)
    shard = tmp_path / "f.partial/title/00000.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert mmtool(*argv).code == 0
    with pytest.raises(MMToolError, match=r"title.00000\.safetensors: the file does not hold what was written"):
        Features(tmp_path / "f").tokens("title", [0])


def test_what_comes_into_the_target_while_the_run_goes_on_is_not_removed(
        mmtool: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = make_manifest(tmp_path / "d", 30)
    argv = ("extract", manifest, "-o", tmp_path / "f", *LETTERS)
    assert mmtool(*argv).code == 0
    argv = (*argv, "--tokens")
    _killed_before_the_end(mmtool, monkeypatch, *argv)
    seal = folder.seal

    def put(target: Path, header: dict[str, Any]) -> None:
        (tmp_path / "f/notes.txt").write_text("precious")
        seal(target, header)

    with monkeypatch.context() as patch:
        patch.setattr(folder, "seal", put)
        ran = mmtool(*argv)
    assert ran.code == 5
    assert "holds 'notes.txt', which is no part of features" in ran.err
    assert (tmp_path / "f/notes.txt").read_text() == "precious"
    (tmp_path / "f/notes.txt").unlink()
    ran = mmtool(*argv)
    assert ran.code == 0
    assert "30 of 30 rows were done before" in ran.err


def test_finished_features_called_partial_are_nobodys_leftovers(mmtool: Callable, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "d", 10)
    assert mmtool("extract", manifest, "-o", tmp_path / "f.partial", *LETTERS).code == 0
    before = folder_bytes(tmp_path / "f.partial")
    ran = mmtool("extract", manifest, "-o", tmp_path / "f", *LETTERS)
    assert ran.code == 5
    assert "is in the way" in ran.err
    assert folder_bytes(tmp_path / "f.partial") == before


def test_a_reader_that_dies_while_it_answers_costs_no_more_than_its_cell(
        monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    from mmtool_tiny import Letters

    read, send = reader_process.read_cell, Connection.send

    def read_cell(raw: Any, job: Job) -> Any:
        if raw == "large":
            return Outcome("ok", prepared=np.array([_TooLarge()]))
        return Outcome("bad", reason=raw) if raw == "half" else read(raw, job)

    def send_some(connection: Connection, found: Any) -> None:
        if isinstance(found, tuple) and any(outcome.reason == "half" for outcome in found[0]):
            os.write(connection.fileno(), struct.pack("!i", 1000) + b"half")
            os.kill(os.getpid(), signal.SIGKILL)  # as a machine without memory does
        send(connection, found)

    monkeypatch.setattr(reader_process, "read_cell", read_cell)
    monkeypatch.setattr(Connection, "send", send_some)
    with Readers(2, {"t": Job(Source("text", Path()), Letters(), np.zeros(0, np.uint64))}) as started:
        tasks = [Task("t", ["a", "half", "b"]), Task("t", ["c", "large"])]
        found = [[o.reason or o.status for o in outcomes] for outcomes in started.map(tasks)]
    assert found == [["ok", "E_CELL_CRASHED: the decoder crashed on it (SIGKILL)", "ok"],
                     ["ok", "E_CELL_MEMORY: reading it takes more memory than a cell may have"]]
    assert capfd.readouterr().err == ""


class _TooLarge:
    def __reduce__(self) -> tuple[Any, ...]:
        raise MemoryError


@pytest.mark.parametrize("mine", ["title/notes.txt", "title/sub"])
def test_what_lies_in_an_inputs_folder_is_not_replaced_with_it(mmtool: Callable, tmp_path: Path, mine: str) -> None:
    manifest = make_manifest(tmp_path / "d", 5)
    argv = ("extract", manifest, "-o", tmp_path / "f", *LETTERS)
    assert mmtool(*argv).code == 0
    assert mmtool(*argv).code == 0
    (tmp_path / "f" / mine).mkdir()
    ran = mmtool(*argv)
    assert ran.code == 5
    assert f"holds '{mine}', which is no part of features" in ran.err


def test_a_backend_that_few_rows_do_not_get_is_neither_recorded_nor_kept_silent(mmtool: Callable, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "d", 3)
    ran = mmtool("extract", manifest, "-o", tmp_path / "f", *LETTERS, "--backend", "openvino")
    assert "--backend openvino: 3 rows do not repay its start, so PyTorch computes them; it needs more than 64" in ran.err
    assert (ran.code, Features(tmp_path / "f").header["numerics"]["backend"]) == (0, "torch")
    plain = mmtool("extract", manifest, "-o", tmp_path / "g", *LETTERS, "--backend", "torch")
    assert "backend" not in plain.err and folder_bytes(tmp_path / "f") == folder_bytes(tmp_path / "g")
