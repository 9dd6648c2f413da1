"""Cells cut into parts: nothing is lost, every script has words, and what is taken away is gone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mmtool.explain import attribute as attribute_module
from mmtool.explain import audio, image, table, text
from mmtool.explain.attribute import attribute
from mmtool.explain.overlay import Overlays, paint


@pytest.mark.parametrize(("written", "words"), [
    ("A red car.", ["A", "red", "car."]), ("  two  spaces\n", ["two", "spaces"]), ("größer!", ["größer!"]),
    ("今天下雨。", ["今", "天", "下", "雨。"]), ("我有iPhone手机", ["我", "有", "iPhone", "手", "机"]),
    ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]), ("ภาษา", ["ภ", "า", "ษ", "า"]), ("مرحبا بالعالم", ["مرحبا", "بالعالم"]),
    ("", []), ("𠀀字", ["𠀀", "字"])])
def test_words_of_any_script(written: str, words: list[str]) -> None:
    assert [written[start:end] for start, end in text.words(written)] == words


def test_a_word_that_is_not_kept_is_gone_with_its_space() -> None:
    parts = text.parts(" a red  car ")
    assert parts.keep([True, False, True]) == "a car"
    assert parts.keep([False] * 3) is None
    assert parts.describe([0.1, -0.2, 1 / 3]) == {"words": [[1, 2, "a", 0.1], [3, 6, "red", -0.2], [8, 11, "car", 0.333333]]}


def test_a_long_text_is_cut_into_runs_of_words_that_leave_none_out() -> None:
    written = " ".join(f"w{i}" for i in range(1000))
    parts = text.parts(written)
    assert 32 < parts.count <= text.MOST_PARTS
    assert " ".join(w[2] for w in parts.describe([0.0] * parts.count)["words"]) == written


@pytest.mark.parametrize(("height", "width", "grid"), [(100, 100, (7, 7)), (50, 100, (5, 10)), (1, 1, (1, 1)), (3, 3, (3, 3)),
                                                       (1, 1000, (1, 49)), (1000, 1, (49, 1))])
def test_patches_are_nearly_square(height: int, width: int, grid: tuple[int, int]) -> None:
    assert image.grid(height, width) == grid
    parts = image.parts(torch.zeros(3, height, width, dtype=torch.uint8), None)
    assert parts.count == grid[0] * grid[1]
    assert [len(line) for line in parts.describe([0.0] * parts.count)["grid"]] == [grid[1]] * grid[0]


@pytest.mark.parametrize("fill", ["mean", "blur"])
def test_a_patch_that_is_not_kept_gives_way_and_no_other_pixel_changes(fill: str) -> None:
    picture = torch.randint(0, 256, (3, 70, 91), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    parts = image.parts(picture, None, fill)
    assert torch.equal(parts.keep([True] * parts.count), picture)
    first = parts.keep([False] + [True] * (parts.count - 1))
    changed = (first != picture).any(0)  # [H, W]
    rows, columns = image.grid(70, 91)
    assert changed[: 70 // rows, : 91 // columns].float().mean() > 0.9
    assert not changed[70 // rows + 1 :].any()
    assert not changed[:, 91 // columns + 1 :].any()


def test_a_large_picture_is_cut_up_small() -> None:
    parts = image.parts(torch.zeros(3, 900, 1800, dtype=torch.uint8), 100)
    assert parts.keep([True] * parts.count).shape == (3, 200, 400)
    thin = image.parts(torch.zeros(3, 1, 1_000_000, dtype=torch.uint8), 100)
    assert thin.keep([True] * thin.count).numel() <= 3 * 400_000


@pytest.mark.parametrize(("samples", "count"), [(16_000, 8), (800, 4), (1_600_000, 40), (3, 3)])
def test_stretches_of_sound(samples: int, count: int) -> None:
    sound = torch.ones(samples)
    parts = audio.parts(sound, 8000)
    assert parts.count == count
    seconds = parts.describe([0.0] * count)["seconds"]
    assert (seconds[0][0], seconds[-1][1]) == (0, round(samples / 8000, 3))
    left = parts.keep([True] * (count - 1) + [False])
    assert len(left) == pytest.approx(samples * (count - 1) / count, abs=1)
    assert parts.keep([False] * count) is None
    faint = audio.parts(sound, 8000, "faint").keep([True] * (count - 1) + [False])
    assert (float(faint[0]), float(faint[-1]), len(faint)) == (1, pytest.approx(audio.FAINT), samples)


def test_columns_that_have_a_value() -> None:
    parts = table.parts({"a": 1.0, "b": None, "c": "x"})
    assert parts.keep([False, True]) == {"a": None, "b": None, "c": "x"}
    assert parts.keep([False, False]) is None
    assert parts.describe([0.5, 0.25]) == {"columns": {"a": 0.5, "c": 0.25}}


@pytest.mark.parametrize("count", [1, 2, 5, 49])
def test_scores_of_a_sum_are_its_terms(count: int) -> None:
    terms = torch.arange(count, dtype=torch.float64) - 2

    def game(kept: torch.Tensor) -> torch.Tensor:
        total = (kept * terms).sum(1)
        return torch.stack([total, -total], 1)  # two targets

    scores = attribute(count, game)
    shrunk = attribute_module.VARIANTS / (attribute_module.VARIANTS + 4 * attribute_module.RIDGE)
    assert scores.shape == (2, count)
    assert torch.equal(scores[0], -scores[1])
    if count <= 5:
        assert torch.allclose(scores[0].double(), shrunk * terms, atol=0.2)
    else:  # with noise, as 200 variants say little of each
        assert torch.corrcoef(torch.stack([scores[0].double(), terms]))[0, 1] > 0.9


def test_overlays_keep_to_their_folder_and_never_collide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overlays = Overlays(tmp_path / "p.jsonl")
    paths = [Path(overlays.write(row, ["photo"], b"png")) for row in ("../a", "..", "a", "A", "/etc/passwd", "")]
    assert len({p.name.lower() for p in paths}) == len(paths)
    assert all(p.parent == tmp_path / "p-explained" and p.suffix == ".png" for p in paths)


def test_a_large_picture_has_a_smaller_overlay() -> None:
    import io

    from PIL import Image

    with Image.open(io.BytesIO(paint(torch.zeros(3, 2000, 1000, dtype=torch.uint8), [[0.0, 1.0], [0.0, -1.0]]))) as im:
        assert im.size == (512, 1024)
        pixels = np.asarray(im).astype(int)
    assert pixels[100, 500].argmax() == 0  # red above, blue below, on the right
    assert pixels[900, 500].argmax() == 2
    assert pixels[:, 0].max() < 30


def test_captum_is_imported_only_to_explain(mmtool: Callable) -> None:
    import subprocess
    import sys

    code = "import sys, mmtool.predict_model; sys.exit('captum' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
