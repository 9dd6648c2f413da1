"""A cell that kills, hangs or starves its decoder costs one row: the run goes on, and no other row changes a bit."""

from __future__ import annotations

import ctypes
import faulthandler
import io
import json
import mmap
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from media_samples import painting, saved
from PIL import Image

from mmtool import reader_process
from mmtool.features.reader import Features
from mmtool.media import images
from mmtool.readers import default_workers

MARK = b"hostile"
ROWS, BAD = 20, 7


def starve() -> None:
    held = []
    while True:
        held.append(bytearray(16 * 2**20))


def need_half_a_gibibyte() -> None:
    try:  # not by malloc, which may have that much to spare from what ran before
        mmap.mmap(-1, 2**29, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError from error


def hold_the_lock() -> None:
    re.match(r"(a+)+$", "a" * 60 + "b")


HARMS: dict[str, tuple[Callable[[], Any], str]] = {
    "aborts": (os.abort, "E_CELL_CRASHED: the decoder crashed on it (SIGABRT)"),
    "leaves": (lambda: os._exit(0), "E_CELL_CRASHED: the decoder crashed on it (exit 0)"),
    "reads-nowhere": (lambda: ctypes.string_at(0), "E_CELL_CRASHED: the decoder crashed on it (SIGSEGV)"),
    "sleeps": (lambda: time.sleep(1000), "E_CELL_TIMEOUT: reading it took more than 2 s"),
    "holds-the-lock": (hold_the_lock, "E_CELL_TIMEOUT: reading it took more than 2 s"),
    "takes-python-memory": (starve, "E_CELL_MEMORY: reading it takes more memory than a cell may have"),
    "takes-numpy-memory": (lambda: np.ones(2**30), "E_CELL_MEMORY: reading it takes more memory than a cell may have"),
    "needs-half-a-gibibyte": (need_half_a_gibibyte, "E_CELL_MEMORY: reading it takes more memory than a cell may have"),
}


@pytest.fixture
def harmed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A decoder that a file with MARK at its end harms; the reason that the file's row gets. Small limits."""
    harm, reason = HARMS[request.param]
    decode = images.decode_image

    def decoder(data: bytes, *arguments: Any, **options: Any) -> torch.Tensor:
        if data.endswith(MARK):
            faulthandler.disable()  # pytest's, which would print
            harm()
        return decode(data, *arguments, **options)

    monkeypatch.setattr(images, "decode_image", decoder)
    monkeypatch.setattr(reader_process, "CELL_SECONDS", 2.0 if "more than 2 s" in reason else 60.0)
    monkeypatch.setattr(reader_process, "CELL_BYTES", 2**28)
    return reason


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two colours of pictures; that of row BAD harms the decoder."""
    lines = ["photo,label,split"]
    for i in range(ROWS):
        data = saved(Image.new("RGB", (8, 8), (i, 200 * (i % 2), 3)), "PNG")
        (tmp_path / f"{i}.png").write_bytes(data + (MARK if i == BAD else b""))
        lines.append(f"{i}.png,{'green' if i % 2 else 'blue'},{'test' if i % 4 == 0 else 'train'}")
    (tmp_path / "data.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "data.csv"


def bad_cells(folder: Path) -> dict[str, str]:
    errors = map(json.loads, (folder / "errors.jsonl").read_text().splitlines())
    return {e["id"]: f"{e['code']}: {e['reason']}" for e in errors}


@pytest.mark.parametrize(("harmed", "workers"), [(name, ("--workers", 2) if i % 2 else ()) for i, name in enumerate(HARMS)],
                         indirect=["harmed"])
def test_a_hostile_cell_costs_its_row_and_changes_no_other(mmtool: Callable, table: Path, harmed: str, tmp_path: Path,
                                                           workers: tuple[object, ...]) -> None:
    ran = mmtool("extract", table, "-o", tmp_path / "f", "-e", "photo=tiny-colour", "--no-cache", *workers)
    assert (ran.code, "19 ok, 0 missing, 1 bad" in ran.err) == (3, True), ran.err
    assert bad_cells(tmp_path / "f") == {str(BAD): harmed}
    features = Features(tmp_path / "f")
    assert features.rows["status:photo"].to_pylist()[BAD] == harmed
    (table.parent / f"{BAD}.png").write_bytes(b"")
    mmtool("extract", table, "-o", tmp_path / "without", "-e", "photo=tiny-colour", "--no-cache", "--workers", 0)
    for name in sorted(p.name for p in (tmp_path / "f/photo").glob("*.safetensors")):
        assert (tmp_path / "f/photo" / name).read_bytes() == (tmp_path / "without/photo" / name).read_bytes()


@pytest.mark.parametrize("harmed", ["aborts"], indirect=True)
def test_training_and_predicting_survive_a_hostile_cell(mmtool: Callable, table: Path, harmed: str, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    model, hostile, good = tmp_path / "m.safetensors", tmp_path / f"{BAD}.png", tmp_path / "3.png"
    ran = mmtool("train", table, "-t", "label", "-o", model, "-e", "photo=image-cnn:width=4,img_size=8", "--epochs", 1)
    assert ran.code == 3
    assert f"1 of 15 cells are bad and left out; the first: {harmed}" in ran.err
    ran = mmtool("predict", "-m", model, hostile)
    code, reason = harmed.split(": ", 1)
    assert (ran.code, ran.out, ran.err.splitlines()[0]) == (3, "", f"error[{code}]: {hostile}: {reason}")
    ran = mmtool("predict", "-m", model, good, hostile, good, "--json")
    found = [json.loads(line) for line in ran.out.splitlines()]
    assert (ran.code, [f.get("errors") for f in found]) == (3, [None, {"photo": harmed}, None])
    lines = b"".join(json.dumps({"image": str(path)}).encode() + b"\n" for path in (good, hostile, good))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    answers = [json.loads(line) for line in mmtool("predict", "-m", model, "-").out.splitlines()]
    assert [a["prediction"] is None for a in answers] == [False, True, False]
    assert answers[1]["errors"] == {"photo": harmed}


@pytest.mark.parametrize("harmed", ["needs-half-a-gibibyte"], indirect=True)
def test_a_raised_limit_raises_what_a_reader_may_take(mmtool: Callable, table: Path, harmed: str, tmp_path: Path) -> None:
    arguments = ("extract", table, "-e", "photo=tiny-colour", "--no-cache", "-o", tmp_path / "f")
    assert mmtool(*arguments).code == 3
    assert bad_cells(tmp_path / "f") == {str(BAD): harmed}
    assert mmtool(*arguments, "--max-megapixels", 640).code == 0  # ten times the default


def test_limits_are_options_of_every_verb_that_decodes(mmtool: Callable, tmp_path: Path) -> None:
    (tmp_path / "big.png").write_bytes(saved(painting(400, 300), "PNG"))
    (tmp_path / "small.png").write_bytes(saved(painting(40, 30), "PNG"))
    cells = ["big", "small"] * 8
    lines = [f"{name}.png,{name},{'test' if i % 4 > 1 else 'train'}" for i, name in enumerate(cells)]
    data = tmp_path / "data.csv"
    data.write_text("photo,label,split\n" + "\n".join(lines) + "\n")
    model = tmp_path / "m.safetensors"
    assert mmtool("train", data, "-t", "label", "-e", "photo=tiny-colour", "-o", model).code == 0
    for limit, code in ((("--max-megapixels", 0.1), "E_IMG_TOO_LARGE"), (("--max-cell-mb", 0.01), "E_CELL_TOO_LARGE")):
        for arguments in (("extract", data, "-e", "photo=tiny-colour", "-o", tmp_path / "f"),
                          ("train", data, "-t", "label", "-e", "photo=tiny-colour", "-o", tmp_path / "n.safetensors"),
                          ("eval", model, data, "-o", tmp_path / "r")):
            ran = mmtool(*arguments, *limit)
            assert (ran.code, code in ran.err) == (3, True), ran.err
        ran = mmtool("predict", "-m", model, tmp_path / "big.png", *limit)
        assert (ran.code, ran.err.startswith(f"error[{code}]: ")) == (3, True)


def test_media_are_read_in_a_process_of_their_own_also_where_rows_are_few() -> None:
    assert [default_workers(1, kinds) for kinds in (["image"], ["text", "audio"], ["blob"], ["text", "table"])] == [1, 1, 1, 0]
    assert default_workers(65, ["text"]) >= 1


def test_kinds_of_bad_cells_are_counted(mmtool: Callable, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(saved(painting(), "PNG"))
    (tmp_path / "cut.png").write_bytes(saved(painting(), "PNG")[:500])
    (tmp_path / "data.csv").write_text("photo\na.png\ncut.png\nnone.png\ncut.png\nhttp://x/y.png\n")
    ran = mmtool("extract", tmp_path / "data.csv", "-o", tmp_path / "f", "-e", "photo=tiny-colour", "--max-bad", 9)
    assert (f"4 rows have a bad cell (2 E_IMG_TRUNCATED, 1 E_CELL_NOT_FOUND, 1 E_CELL_URL), listed in "
            f"{tmp_path / 'f/errors.jsonl'}; the first: row '1', photo: E_IMG_TRUNCATED: truncated PNG") in ran.err


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    yield
    import multiprocessing

    assert not multiprocessing.active_children()
