"""`mmtool sample`: the data set that the package ships, whole, small and of use."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from support import folder_bytes

import mmtool.sample
from mmtool.features.reader import Features
from mmtool.media.audio import decode_audio
from mmtool.media.images import decode_image

SHIPPED = Path(mmtool.sample.__file__).parent / "samples/clipart"
LACKING = {"image": 12, "title": 12, "speech": 12}
ENCODE = ("-e", "image=tiny-colour", "-e", "title=tiny-letters", "-e", "speech=tiny-loudness")


def rows() -> list[dict[str, str]]:
    with (SHIPPED / "data.csv").open(encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


def test_prints_the_path_of_the_shipped_table(mmtool: Callable) -> None:
    ran = mmtool("sample")
    assert (ran.code, ran.out, ran.err) == (0, f"{SHIPPED / 'data.csv'}\n", "")
    assert json.loads(mmtool("sample", "--json", "--quiet").out) == {"manifest": str(SHIPPED / "data.csv")}


def test_every_picture_and_sound_is_there_once_and_decodes() -> None:
    images = [row["image"] for row in rows() if row["image"]]
    speech = [row["speech"] for row in rows() if row["speech"]]
    files = {path for path in folder_bytes(SHIPPED) if "/" in path}
    assert sorted(files) == sorted(images + speech)
    assert len(set(folder_bytes(SHIPPED).values())) == len(files) + 2  # no two alike; the table and the page about it
    for path in images:
        _, height, width = decode_image((SHIPPED / path).read_bytes()).shape
        assert max(height, width) <= 128
    for path in speech:
        sound = decode_audio((SHIPPED / path).read_bytes(), 16_000)
        assert 0.3 < len(sound) / 16_000 < 4
        assert sound.abs().max() > 0.1


def test_the_table_is_balanced_and_lacks_what_the_page_says() -> None:
    table = rows()
    assert Counter(row["category"] for row in table) == dict.fromkeys(
        ("animals", "buildings", "food", "music", "office", "plants", "tools", "vehicles"), 30)
    for category in {row["category"] for row in table}:
        found = Counter(row["split"] for row in table if row["category"] == category)
        assert found == {"train": 21, "val": 3, "test": 6}
    for column, count in LACKING.items():
        assert sum(not row[column] for row in table) == count
        assert any(not row[column] and row["split"] == "test" for row in table)
    assert all(row["image"] or row["title"] or row["speech"] for row in table)
    titles = [row["title"].lower() for row in table if row["title"]]
    assert len(set(titles)) == len(titles)
    assert all(title.replace("-", "").replace(" ", "").isalpha() for title in titles)
    assert all(row["keywords"] and float(row["colour_bits"]) > 0 for row in table)


def test_it_is_small_and_its_licence_is_told() -> None:
    assert sum(map(len, folder_bytes(SHIPPED).values())) < 5e6
    note = (SHIPPED.parent / "LICENSES.md").read_text(encoding="utf-8")
    for part in ("clipart/images/*.png", "clipart/speech/*.ogg", "clipart/data.csv"):
        assert f"`{part}`" in note


@pytest.mark.parametrize("exists", [False, True])
def test_a_copy_is_the_same_files_and_a_table_like_any_other(mmtool: Callable, tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "new/copy"
    if exists:
        folder.mkdir(parents=True)
    ran = mmtool("sample", folder)
    assert (ran.code, ran.out) == (0, f"{folder / 'data.csv'}\n"), ran.err
    assert folder_bytes(folder) == folder_bytes(SHIPPED)


def test_a_folder_with_something_in_it_is_refused_and_kept(mmtool: Callable, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    ran = mmtool("sample", tmp_path)
    assert (ran.code, ran.out) == (5, "")
    assert "not empty (it holds 'mine.txt')" in ran.err
    assert folder_bytes(tmp_path) == {"mine.txt": b"mine"}
    ran = mmtool("sample", tmp_path / "mine.txt")
    assert (ran.code, "mine.txt is a file" in ran.err) == (5, True)


def test_a_copy_that_fails_leaves_nothing(mmtool: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmtool import files

    copy, left = files.copy, [100]

    def full(source: Path, target: Path) -> object:
        left[0] -= 1
        if not left[0]:
            raise OSError(28, "No space left on device", str(target))
        return copy(source, target)

    monkeypatch.setattr(files, "copy", full)
    ran = mmtool("sample", tmp_path / "copy")
    assert (ran.code, "error[E_NO_SPACE]" in ran.err) == (5, True)
    assert list(tmp_path.iterdir()) == []


def test_extract_counts_the_missing_cells(mmtool: Callable, tmp_path: Path) -> None:
    ran = mmtool("extract", mmtool("sample").out.strip(), "-o", tmp_path / "f", *ENCODE, "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["inputs"] == {name: {"ok": 240 - n, "missing": n, "bad": 0, "cached": 0}
                                             for name, n in LACKING.items()}
    assert len(Features(tmp_path / "f")) == 240


def test_even_mean_colours_and_letters_know_something_of_each_target(mmtool: Callable, tmp_path: Path) -> None:
    data, model = mmtool("sample").out.strip(), tmp_path / "m.safetensors"
    targets = ("-t", "category", "-t", "keywords=tag:min_count=5", "-t", "colour_bits")
    ran = mmtool("train", data, *targets, "-o", model, *ENCODE)
    assert ran.code == 0, ran.err
    ran = mmtool("eval", model, data, "-o", tmp_path / "r", "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["rows"] == 48
    for column in ("category", "keywords"):
        assert found["overall"][column]["roc_auc"]["value"] > 0.55
    assert 1 < found["baselines"]["colour_bits"]["without_inputs"]["rmse"]["value"] < 2  # bits; the rows do differ


def test_a_second_call_finds_its_own_copy(mmtool: Callable, tmp_path: Path) -> None:
    first, second = (mmtool("sample", tmp_path / "s") for _ in range(2))
    assert (first.code, first.out) == (second.code, second.out) == (0, f"{tmp_path / 's' / 'data.csv'}\n")
    (tmp_path / "s/data.csv").write_text("mine\n")
    assert mmtool("sample", tmp_path / "s").code == 5


def test_an_empty_name_is_no_manifest(mmtool: Callable, tmp_path: Path) -> None:
    ran = mmtool("extract", "", "-o", tmp_path / "f", *ENCODE)
    assert ran.code == 2
    assert "name is empty" in ran.err
