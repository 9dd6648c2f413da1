"""Cells become small pictures, short sounds and short texts; what cannot be read says why."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from mmtool.manifest.rows import Blob, Row
from mmtool.page.cells import shower
from mmtool.page.contents import Shown


def entry(modality: str, *columns: str, **more: Any) -> dict[str, Any]:
    return {"modality": modality, "columns": list(columns), **more}


def show(row: Row, base: Path, statuses: dict[str, str] | None = None, **inputs: dict[str, Any]) -> list[Shown]:
    return shower(inputs, {"r": row}, base, {"r": statuses or {}})("r")


def data_of(cell: Shown) -> bytes:
    assert cell.data_uri is not None, cell.problem
    return base64.b64decode(cell.data_uri.partition(",")[2])


@pytest.mark.parametrize(("size", "shown", "kind"), [((800, 400), (160, 80), "JPEG"), ((28, 28), (140, 140), "PNG"),
                                                     ((100, 100), (100, 100), "JPEG"), ((4000, 1), (160, 1), "JPEG")])
def test_a_picture_becomes_a_thumbnail(tmp_path: Path, size: tuple[int, int], shown: tuple[int, int], kind: str) -> None:
    Image.new("RGB", size, "red").save(tmp_path / "a.png")
    (cell,) = show({"photo": "a.png"}, tmp_path, image=entry("image", "photo"))
    picture = Image.open(io.BytesIO(data_of(cell)))
    assert (picture.size, picture.format, cell.input, cell.column) == (shown, kind, "image", "photo")
    assert len(cell.data_uri or "") < 20_000


@pytest.mark.parametrize(("seconds", "text", "kept"), [(2.0, "2.0 s", 2.0), (12.3, "first 5 of 12.3 s", 5.0)])
def test_a_sound_becomes_at_most_five_seconds(tmp_path: Path, seconds: float, text: str, kept: float) -> None:
    wave = 0.3 * np.sin(np.arange(int(seconds * 44100)) * 0.05)
    soundfile.write(tmp_path / "a.wav", np.stack([wave, wave], 1), 44100)
    (cell,) = show({"clip": "a.wav"}, tmp_path, sound=entry("audio", "clip"))
    samples, rate_hz = soundfile.read(io.BytesIO(data_of(cell)))
    assert (cell.text, rate_hz, samples.ndim) == (text, 16000, 1)
    assert len(samples) / rate_hz == pytest.approx(kept, abs=0.15)
    assert len(cell.data_uri or "") < 60_000
    assert np.abs(samples).max() == pytest.approx(0.3, abs=0.05)


def test_texts_and_tables(tmp_path: Path) -> None:
    row: Row = {"title": "x" * 1000, "price": "3.0", "colour": "red", "weight": None, "shape": "[1, 2]"}
    table, text, series = show(row, tmp_path, t=entry("text", "title"), a=entry("table", "price", "colour", "weight"),
                               z=entry("series", "shape"))
    assert table.text == "price: 3, colour: red"
    assert text.text == "x" * 299 + "…"
    assert series.text == "[1, 2]"


def test_the_bytes_of_a_manifest_itself(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.new("RGB", (300, 300)).save(out, "PNG")
    cells = show({"a": Blob("a.png", out.getvalue()), "b": Blob("b.bin", b"12345")}, tmp_path, a=entry("image", "a"),
                 b=entry("video", "b"))
    assert data_of(cells[0])[:2] == b"\xff\xd8"
    assert cells[1].problem == "5 bytes of video, which this page cannot show"


@pytest.mark.parametrize(("cell", "problem"), [(None, "missing"), ("no.png", "no such file"), ("bad.png", "not a picture"),
                                               ("http://a/b.png", "a URL"), ("data:image/png;base64,@@", "not base64"),
                                               ("cut.png", "truncated PNG"), (".", "not a regular file")])
def test_what_cannot_be_read_says_why(tmp_path: Path, cell: str | None, problem: str) -> None:
    (tmp_path / "bad.png").write_bytes(b"<svg onload=alert(1)>")
    Image.effect_noise((200, 200), 50).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:9000])
    (shown,) = show({"photo": cell}, tmp_path, image=entry("image", "photo"))
    assert shown.data_uri is None
    assert problem in (shown.problem or "")


def test_the_limits_of_the_model_hold(tmp_path: Path) -> None:
    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    (cell,) = show({"photo": "a.png"}, tmp_path, image=entry("image", "photo", limits={"max_pixels": 99, "unknown": 1}))
    assert "100x100 px is over the limit" in (cell.problem or "")


def test_a_cell_that_failed_before_is_not_decoded_again(tmp_path: Path) -> None:
    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    reason = "the decoder crashed on it (exit -11)"
    (cell,) = show({"photo": "a.png"}, tmp_path, {"image": reason}, image=entry("image", "photo"))
    assert (cell.data_uri, cell.problem) == (None, reason)


def test_an_unknown_row_has_no_cells(tmp_path: Path) -> None:
    assert shower({"a": entry("text", "a")}, {}, tmp_path)("x") == []
