"""`mmtool extract` on real files: what it writes, keeps, counts, resumes and refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from PIL import Image
from support import folder_bytes

from mmtool.features.header import read_header, seal
from mmtool.features.reader import Features


def make_manifest(folder: Path, rows: int, *, split: bool = False) -> Path:
    """Pictures of known colour, texts of known letters, sounds of known loudness."""
    folder.mkdir(exist_ok=True)
    lines = ["id,photo,title,clip" + (",split" if split else "")]
    for i in range(rows):
        if i < 20:
            Image.new("RGB", (8, 8), (i, 2 * i, 3 * i)).save(folder / f"{i}.png")
            soundfile.write(folder / f"{i}.wav", np.full(400, i / 100, np.float32), 8000, subtype="FLOAT")
        title = "" if i % 10 == 9 else "abcdefghij"[: 1 + i % 10]
        lines.append(f"r{i},{i % 20}.png,{title},{i % 20}.wav" + (f",{'train' if i % 2 else 'test'}" if split else ""))
    (folder / "data.csv").write_text("\n".join(lines) + "\n")
    return folder / "data.csv"


ENCODE = ("-e", "photo=tiny-colour", "-e", "title=tiny-letters", "-e", "clip=tiny-loudness")


def test_features_hold_every_cell_in_order(mmtool: Callable, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "d", 600)
    ran = mmtool("extract", manifest, "-o", tmp_path / "f", *ENCODE, "--tokens", "--workers", 2)
    assert (ran.code, ran.out) == (0, f"{tmp_path / 'f'}\n")
    assert "title: 540 ok, 60 missing, 0 bad, 0 cached" in ran.err
    features = Features(tmp_path / "f")
    assert (len(features), features.inputs) == (600, ["clip", "photo", "title"])
    assert features.rows["id"].to_pylist() == [f"r{i}" for i in range(600)]
    assert features.rows["status:title"].to_pylist()[8:10] == ["ok", "missing"]
    tokens = features.tokens("title", [0, 3, 9, 599])
    assert tokens.lengths.tolist() == [1, 4, 0, 0]
    assert tokens.values[1, :, 0].tolist() == [97, 98, 99, 100]
    colour = features.tokens("photo", [517])
    torch.testing.assert_close(colour.values[0, 0] * 255, torch.tensor([17.0, 34.0, 51.0]))
    torch.testing.assert_close(features.tokens("clip", [5]).values.flatten(), torch.tensor([0.05]), atol=1e-4, rtol=0)


def test_pooled_features_have_one_vector(mmtool: Callable, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "d", 30)
    assert mmtool("extract", manifest, "-o", tmp_path / "f", "-e", "title=tiny-letters").code == 0
    assert Features(tmp_path / "f").tokens("title", [3]).values.tolist() == [[[98.5, 1.0]]]


@pytest.mark.parametrize("workers", [1, 4])
def test_the_number_of_workers_changes_no_byte(mmtool: Callable, tmp_path: Path, workers: int) -> None:
    manifest = make_manifest(tmp_path / "d", 600)
    for name, n in (("a", 0), ("b", workers)):
        assert mmtool("extract", manifest, "-o", tmp_path / name, *ENCODE, "--no-cache", "--workers", n).code == 0
    assert folder_bytes(tmp_path / "a") == folder_bytes(tmp_path / "b")


def test_a_second_run_computes_nothing_and_a_changed_manifest_only_what_changed(mmtool: Callable, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "d", 300)
    mmtool("extract", manifest, "-o", tmp_path / "f", "-e", "title=tiny-letters")
    before = folder_bytes(tmp_path / "f")
    ran = mmtool("extract", manifest, "-o", tmp_path / "f", "-e", "title=tiny-letters")
    assert "title: 270 ok, 30 missing, 0 bad, 270 cached" in ran.err
    assert folder_bytes(tmp_path / "f") == before
    manifest.write_text(manifest.read_text().replace("r7,7.png,abcdefgh,", "r7,7.png,changed,"))
    ran = mmtool("extract", manifest, "-o", tmp_path / "f", "-e", "title=tiny-letters")
    assert "title: 270 ok, 30 missing, 0 bad, 269 cached" in ran.err
    numerics = Features(tmp_path / "f").header["numerics"]
    assert numerics["rows_from_other_blocks"] == {"title": 230}  # the first block was batched anew, the second was not


def test_equal_cells_of_a_block_get_equal_bits_computed_and_cached(mmtool: Callable, tmp_path: Path) -> None:
    """Batched apart, they would differ in the last bits, and the cache could give back only one of them."""
    manifest = make_manifest(tmp_path / "d", 200)
    arguments = ("extract", manifest, "-o", tmp_path / "f", "-e", "photo=timm:resnet10t,img_size=32", "--allow-random",
                 "--batch-size", 7)
    assert mmtool(*arguments).code == 0
    before = folder_bytes(tmp_path / "f")
    values = Features(tmp_path / "f").tokens("photo", range(200)).values
    assert torch.equal(values[:20], values[180:])
    assert "200 cached" in mmtool(*arguments).err
    assert folder_bytes(tmp_path / "f") == before


def test_a_mended_file_is_read_again(mmtool: Callable, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "d", 10)
    good = (tmp_path / "d/3.png").read_bytes()
    (tmp_path / "d/3.png").write_bytes(good[:30])
    ran = mmtool("extract", manifest, "-o", tmp_path / "f", "-e", "photo=tiny-colour", "--max-bad", 1)
    assert (ran.code, "9 ok, 0 missing, 1 bad" in ran.err) == (0, True)
    (tmp_path / "d/3.png").write_bytes(good)
    ran = mmtool("extract", manifest, "-o", tmp_path / "f", "-e", "photo=tiny-colour")
    assert "10 ok, 0 missing, 0 bad, 9 cached" in ran.err
    assert (tmp_path / "f/errors.jsonl").read_bytes() == b""


def test_bad_cells_are_counted_and_every_good_one_is_kept(mmtool: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    manifest = make_manifest(folder, 10)
    picture, sound = (folder / "1.png").read_bytes(), (folder / "1.wav").read_bytes()
    (folder / "1.png").write_bytes(picture[:40])
    (folder / "2.png").write_bytes(b"")
    (folder / "3.png").write_text("this is no picture")
    (folder / "4.png").unlink()
    (folder / "5.wav").write_bytes(sound[:300])
    Image.new("1", (40_000, 40_000)).save(folder / "6.png")
    assert (folder / "6.png").stat().st_size < 2_000_000
    manifest.write_text(manifest.read_text().replace("r7,7.png,", "r7,,").replace("abcdefghi,", "unreadable,"))
    ran = mmtool("extract", manifest, "-o", tmp_path / "f", *ENCODE)
    assert ran.code == 3
    assert "photo: 4 ok, 1 missing, 5 bad, 0 cached" in ran.err
    assert "clip: 9 ok, 0 missing, 1 bad, 0 cached" in ran.err
    assert "title: 8 ok, 1 missing, 1 bad, 0 cached" in ran.err
    errors = [json.loads(line) for line in (tmp_path / "f/errors.jsonl").read_text().splitlines()]
    assert [(e["id"], e["input"]) for e in errors] == [
        ("r1", "photo"), ("r2", "photo"), ("r3", "photo"), ("r4", "photo"), ("r5", "clip"), ("r6", "photo"), ("r8", "title")]
    assert errors[3]["reason"].endswith("no such file")
    assert errors[3]["path"] == "4.png"
    assert "says so itself" in errors[6]["reason"]
    features = Features(tmp_path / "f")
    assert features.tokens("photo", range(10)).present.tolist() == [True] + [False] * 4 + [True, False, False, True, True]
    assert features.tokens("clip", [1, 5]).present.tolist() == [True, False]
    assert mmtool("extract", manifest, "-o", tmp_path / "f", *ENCODE, "--max-bad", "70%").code == 0


def test_bad_rows_change_no_bit_of_the_others(mmtool: Callable, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "d", 20)
    spec = "photo=timm:resnet10t,img_size=32"
    common = ("-e", spec, "--allow-random", "--no-cache", "--max-bad", "50%")
    assert mmtool("extract", manifest, "-o", tmp_path / "a", *common).code == 0
    (tmp_path / "d/3.png").write_bytes(b"broken")
    assert mmtool("extract", manifest, "-o", tmp_path / "b", *common).code == 0
    a, b = (Features(tmp_path / n).tokens("photo", range(20)).values[:, 0] for n in "ab")
    kept = [i for i in range(20) if i != 3]
    assert torch.equal(a[kept], b[kept])
    assert not torch.equal(a[3], b[3])


def test_a_reader_that_dies_and_a_value_that_is_not_finite_cost_one_row_each(mmtool: Callable, tmp_path: Path) -> None:
    manifest = tmp_path / "a.csv"
    texts = ["good one", "kill the reader", "good two", "not a number", "good three"]
    manifest.write_text("text\n" + "\n".join(texts) + "\n")
    ran = mmtool("extract", manifest, "-o", tmp_path / "f", "-e", "text=tiny-letters", "--workers", 2, "--max-bad", 2)
    assert ran.code == 0
    reasons = {e["id"]: e["reason"] for e in map(json.loads, (tmp_path / "f/errors.jsonl").read_text().splitlines())}
    assert reasons == {"1": "the decoder crashed on it (SIGKILL)", "3": "the encoder gave a value that is not finite"}
    assert Features(tmp_path / "f").tokens("text", range(5)).present.tolist() == [True, False, True, False, True]


SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell is born deaf to it
from mmtool.features import rows
write = rows.write_part
def slow(path, *rest):
    write(path, *rest)
    print(path.name, flush=True)
    time.sleep(0.2)
rows.write_part = slow
from mmtool.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_ended_and_run_again_gives_the_same_bytes(mmtool: Callable, tmp_path: Path, end: signal.Signals) -> None:
    manifest = make_manifest(tmp_path / "d", 1500)
    arguments = ["extract", str(manifest), *ENCODE, "--workers", "1", "-o"]
    assert mmtool(*arguments, tmp_path / "straight", "--no-cache").code == 0
    process = subprocess.Popen([sys.executable, "-c", SLOW, *arguments, str(tmp_path / "f")], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while process.stdout.readline().strip() != "00001.parquet":
        assert process.poll() is None
    process.send_signal(end)
    _, err = process.communicate(timeout=20)
    assert process.returncode == (130 if end == signal.SIGINT else -9), err
    if end == signal.SIGINT:
        assert "interrupted; the same command goes on where it stopped" in err
        assert "Traceback" not in err
    assert not (tmp_path / "f").exists()
    done = len(list((tmp_path / "f.partial/.parts").iterdir()))
    assert 2 <= done < 6
    assert mmtool(*arguments, tmp_path / "f").code == 0
    assert folder_bytes(tmp_path / "f") == folder_bytes(tmp_path / "straight")
    assert not (tmp_path / "f.partial").exists()


def test_a_killed_parent_leaves_no_reader_behind(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "d", 1500)
    process = subprocess.Popen([sys.executable, "-c", SLOW, "extract", str(manifest), *ENCODE, "--workers", "3", "-o",
                                str(tmp_path / "f")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.readline()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 3
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{c}").exists() and "Z" not in Path(f"/proc/{c}/stat").read_text().split()[2] for c in children):
        assert time.monotonic() < deadline, "readers outlived their parent"
        time.sleep(0.05)


def test_memory_that_runs_out_halves_the_batch_and_is_recorded(mmtool: Callable, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "d", 60)
    assert mmtool("extract", manifest, "-o", tmp_path / "f", "-e", "title=tiny-greedy").code == 0
    assert mmtool("extract", manifest, "-o", tmp_path / "g", "-e", "title=tiny-letters").code == 0
    f, g = Features(tmp_path / "f"), Features(tmp_path / "g")
    assert torch.equal(f.tokens("title", range(60)).values, g.tokens("title", range(60)).values)
    assert f.header["numerics"]["batch_halved"] == ["title"]
    assert g.header["numerics"]["batch_halved"] == []


def test_random_weights_are_refused_unless_said(mmtool: Callable, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "d", 5)
    ran = mmtool("extract", manifest, "-o", tmp_path / "f", "-e", "title=tiny-untrained")
    assert ran.code == 1
    assert "random weights" in ran.err
    assert "--allow-random" in ran.err
    assert not (tmp_path / "f").exists()
    assert mmtool("extract", manifest, "-o", tmp_path / "f", "-e", "title=tiny-untrained", "--allow-random").code == 0


def test_fitting_sees_training_rows_only_and_needs_a_split(mmtool: Callable, tmp_path: Path) -> None:
    ran = mmtool("extract", make_manifest(tmp_path / "d", 20), "-o", tmp_path / "f", "-e", "title=tiny-counted")
    assert (ran.code, "no column 'split'" in ran.err) == (1, True)
    manifest = make_manifest(tmp_path / "e", 20, split=True)
    assert mmtool("extract", manifest, "-o", tmp_path / "f", "-e", "title=tiny-counted").code == 0
    features = Features(tmp_path / "f")
    assert features.tokens("title", [0]).values.item() == 8  # ten training rows, two of them without a title
    assert features.assets("title")["count"].item() == 8
    other = make_manifest(tmp_path / "g", 4)
    assert mmtool("extract", other, "-o", tmp_path / "h", "--like", tmp_path / "f").code == 0
    assert Features(tmp_path / "h").tokens("title", [0]).values.item() == 8


def test_like_refuses_another_encoder_and_says_which(mmtool: Callable, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "d", 5)
    mmtool("extract", manifest, "-o", tmp_path / "f", "-e", "title=tiny-letters")
    header = read_header(tmp_path / "f")
    header["inputs"]["title"]["identity"]["revision"] = 7
    seal(tmp_path / "f", header)
    ran = mmtool("extract", manifest, "-o", tmp_path / "g", "--like", tmp_path / "f")
    assert ran.code == 4
    assert "differs in revision" in ran.err


def test_data_uris_and_files_of_other_modalities(mmtool: Callable, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "d", 1)
    import base64

    uri = "data:image/png;base64," + base64.b64encode((tmp_path / "d/0.png").read_bytes()).decode()
    (tmp_path / "d/x.bin").write_bytes(b"12345")
    manifest.write_text(json.dumps({"photo": uri, "file": "x.bin"}) + "\n" + json.dumps({"file": "https://example.org/a.png",
                                                                                          "photo": "http://example.org/a.png"}))
    manifest = manifest.rename(tmp_path / "d/a.jsonl")
    ran = mmtool("extract", manifest, "-o", tmp_path / "f", "-e", "photo=tiny-colour", "-e", "file=tiny-raw", "--max-bad", 1)
    assert ran.code == 0
    features = Features(tmp_path / "f")
    assert features.tokens("photo", [0, 1]).present.tolist() == [True, False]
    assert features.tokens("file", [0]).values.item() == 5
    assert "a URL; mmtool fetches nothing" in (tmp_path / "f/errors.jsonl").read_text()


def test_stdin_is_a_manifest(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-m", "mmtool", "extract", "-", "-o", str(tmp_path / "f"), "-e", "t=tiny-letters",
                          "--json"], input='{"t": "ab"}\n{"t": null}\n', capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["inputs"] == {"t": {"ok": 1, "missing": 1, "bad": 0, "cached": 0}}


def test_odd_names_and_cells_are_printed_literally_and_kept(mmtool: Callable, tmp_path: Path) -> None:
    odd = "[/red] \x1b[31m‮evil\nname"
    manifest = tmp_path / "a.jsonl"
    manifest.write_text(json.dumps({"id": odd, "t": "unreadable " + odd}) + "\n" + json.dumps({"id": "b", "t": "🏳️‍🌈"}) + "\n")
    ran = mmtool("extract", manifest, "-o", tmp_path / "f", "-e", "t=tiny-letters", "--max-bad", 1)
    assert ran.code == 0
    assert "\x1b" not in ran.err
    assert "‮" not in ran.err
    assert "[/red]" in ran.err
    assert pq.read_table(tmp_path / "f/rows.parquet")["id"].to_pylist() == [odd, "b"]


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["nowhere.csv"], 5, "does not exist"),
    (["d/data.csv", "-e", "title=nothing-like-it"], 7, "no encoder plugin is called 'nothing-like-it'"),
    (["d/data.csv", "-e", "titel=tiny-letters"], 2, "no column 'titel'"),
    (["d/data.csv", "-e", "photo=tiny-colour,scal=1"], 2, "has no option 'scal'"),
    (["d/data.csv", "-e", "photo=tiny-colour,scale=big"], 2, "is not float"),
    (["d/data.csv", "-e", "photo+clip=tiny-colour"], 2, "reads one column"),
    (["d/data.csv", "-e", "photo=tiny-colour", "--device", "cuda:99"], 8, "CUDA"),
    (["d/data.csv", "-e", "photo=tiny-colour", "--device", "toaster"], 8, "is no device"),
    (["d/data.csv", "-e", "photo=tiny-colour", "--batch-size", "0"], 2, "--batch-size"),
    (["d/data.csv", "-e", "photo=tiny-colour", "--precision", "fp8"], 2, "--precision"),
    (["d/data.csv", "-e", "photo=tiny-colour", "--max-bad", "much"], 2, "--max-bad"),
    (["d/data.csv", "--frobnicate"], 2, "--frobnicate")])
def test_mistakes_are_one_to_three_lines_with_a_remedy(mmtool: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                       arguments: list[str], code: int, words: str) -> None:
    make_manifest(tmp_path / "d", 3)
    monkeypatch.chdir(tmp_path)
    ran = mmtool("extract", *arguments, "-o", "f")
    assert (ran.code, ran.out) == (code, "")
    assert words in ran.err
    assert "Traceback" not in ran.err
    assert len(ran.err.strip().splitlines()) <= 4
    assert not (tmp_path / "f").exists()


def test_other_files_are_never_overwritten(mmtool: Callable, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "d", 3)
    before = folder_bytes(tmp_path / "d")
    for target in (tmp_path / "d", tmp_path / "d/0.png", tmp_path / "no/such/folder"):
        ran = mmtool("extract", manifest, "-o", target, "-e", "title=tiny-letters")
        assert ran.code == 5
        assert "-o" in ran.err
    assert folder_bytes(tmp_path / "d") == before


def test_files_have_the_mode_that_the_umask_allows(mmtool: Callable, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "d", 3)
    mask = os.umask(0o027)
    try:
        mmtool("extract", manifest, "-o", tmp_path / "f", "-e", "title=tiny-letters")
    finally:
        os.umask(mask)
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "f").rglob("*") if p.is_file()} == {0o640}


def test_a_damaged_cache_is_computed_again(mmtool: Callable, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "d", 30)
    mmtool("extract", manifest, "-o", tmp_path / "f", "-e", "title=tiny-letters")
    before = folder_bytes(tmp_path / "f")
    (pack,) = Path(os.environ["MMTOOL_CACHE"]).rglob("*.safetensors")
    whole = pack.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"{}" * 50):
        pack.write_bytes(damaged)
        ran = mmtool("extract", manifest, "-o", tmp_path / "f", "-e", "title=tiny-letters")
        assert (ran.code, "27 ok, 3 missing, 0 bad, 0 cached" in ran.err) == (0, True)
        assert folder_bytes(tmp_path / "f") == before
