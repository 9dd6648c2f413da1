"""`mmtool predict --explain` through the real command line: the part that decides is the part that is named."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from mmtool.cli.main import run

ENCODERS = ("-e", "photo=tiny-colour", "-e", "words=tiny-letters", "-e", "sound=tiny-loudness", "-e", "price+colour=table")
RATE_HZ = 8000
SAMPLES = Path(__file__).parents[2] / "mmtool" / "samples"


def picture(path: Path, told: bool, rng: np.random.Generator) -> str:
    """Grey, and where `told` red in the lower left corner; twice as wide as high."""
    pixels = np.full((60, 120, 3), 128, np.uint8) + rng.integers(0, 4, (1, 1, 3), dtype=np.uint8)
    if told:
        pixels[40:, :20] = (255, 0, 0)
    Image.fromarray(pixels).save(path)
    return path.name


def sound(path: Path, told: bool, rng: np.random.Generator) -> str:
    """Two seconds of hiss, and where `told` a burst from 1.25 to 1.5 s."""
    samples = rng.normal(0, 0.01, 2 * RATE_HZ)
    if told:
        samples[10_000:12_000] = 0.8 * np.sin(np.arange(2000))
    soundfile.write(path, samples, RATE_HZ)
    return path.name


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a manifest, in which each of four inputs knows the answer from one of its parts, and its model."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(60):
        told = i % 2 == 0
        words = ["mmmm", "mnm", "nmnm"]
        words.insert(int(rng.integers(0, 4)), "zzzzzz" if told else "nmm")
        rows.append({"id": f"r{i}", "photo": picture(folder / f"{i}.png", told, rng), "words": " ".join(words),
                     "sound": sound(folder / f"{i}.wav", told, rng), "price": 9.5 if told else 1.5,
                     "colour": str(rng.choice(["red", "blue"])), "label": "yes" if told else "no",
                     "amount": 100 + 50 * told + int(rng.integers(0, 5)), "tags": "big|red" if told else "small",
                     "split": "test" if i % 4 > 1 else "train"})
    with (folder / "data.csv").open("w", newline="") as f:
        writer = csv.DictWriter(f, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    told = [str(folder / "data.csv"), *ENCODERS, "-q", "--no-cache"]
    assert run(["train", *told, "-t", "label", "-o", str(folder / "m.safetensors")]) == 0
    assert run(["train", *told, "-t", "label", "-t", "amount=regress", "-t", "tags", "-o",
                str(folder / "three.safetensors")]) == 0
    return folder


@pytest.fixture
def row(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[object, ...]:
    """Arguments for one row that says yes, by all its inputs."""
    monkeypatch.chdir(tmp_path)
    return (made / "2.png", made / "2.wav", "--input", "words=mmmm zzzzzz nmnm", "--input", "price=9.5",
            "--input", "colour=red")


def answer(ran: object) -> dict:
    return json.loads(ran.out)


def test_contributions_add_up_to_the_prediction_less_the_baseline(mmtool: Callable, made: Path, row: tuple) -> None:
    found = answer(mmtool("predict", *row, "-m", made / "m.safetensors", "--explain", "--json"))
    told = found["explanation"]
    assert (found["prediction"], told["of"], told["unit"]) == ("yes", "yes", "probability")
    assert told["baseline"] == 0.5
    assert told["value"] == found["probability"] > 0.9
    assert sorted(found["contributions"]) == ["photo", "price_colour", "sound", "words"] == sorted(told["within"])
    assert sum(found["contributions"].values()) == pytest.approx(told["value"] - told["baseline"], abs=1e-6)
    assert min(found["contributions"].values()) > 0


def test_within_each_input_the_part_that_decides_has_the_highest_score(mmtool: Callable, made: Path, row: tuple) -> None:
    within = answer(mmtool("predict", *row, "-m", made / "m.safetensors", "--explain", "--json"))["explanation"]["within"]
    grid = np.array(within["photo"]["grid"])  # [rows, columns]
    assert grid.shape == (5, 10)
    assert np.unravel_index(grid.argmax(), grid.shape) in [(r, c) for r in (3, 4) for c in (0, 1)]
    assert grid.argmax() == np.abs(grid).argmax()
    words = within["words"]["words"]
    assert [w[:3] for w in words] == [[0, 4, "mmmm"], [5, 11, "zzzzzz"], [12, 16, "nmnm"]]
    assert max(words, key=lambda w: w[3])[2] == "zzzzzz"
    seconds = within["sound"]["seconds"]
    assert [s[0] for s in seconds] == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75]
    assert max(seconds, key=lambda s: s[2])[:2] == [1.25, 1.5]
    columns = within["price_colour"]["columns"]
    assert columns["price"] > abs(columns["colour"])


def test_the_overlay_is_a_picture_of_the_original_s_size_and_red_where_it_matters(mmtool: Callable, made: Path, row: tuple,
                                                                                   tmp_path: Path) -> None:
    within = answer(mmtool("predict", *row, "-m", made / "m.safetensors", "--explain", "--json"))["explanation"]["within"]
    path = Path(within["photo"]["overlay"])
    assert path.parent == Path("explained")
    with Image.open(path) as im:
        assert (im.format, im.size) == ("PNG", (120, 60))
        pixels = np.asarray(im).astype(int)
    red = pixels[..., 0] - pixels[..., 2]
    assert red[45:, :15].mean() > 60 > 10 > red[:30, 60:].mean()


def test_the_terminal_shows_bars_marks_and_paths(mmtool: Callable, made: Path, row: tuple) -> None:
    ran = mmtool("predict", *row, "-m", made / "m.safetensors", "--explain")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[0].startswith("yes ")
    at = next(i for i, line in enumerate(lines) if line.startswith("why yes: 0.500 without inputs, "))
    assert all("█" in line and "  +0." in line for line in lines[at + 1 : at + 5])
    assert "  words: mmmm *zzzzzz* nmnm" in lines
    assert any(line.startswith("  sound: 1.25–1.50 s +") for line in lines)
    assert any(line.startswith("  price_colour: price +") for line in lines)
    assert any(line.startswith("  photo: where, in explained/") for line in lines)


def test_with_fewer_inputs_only_those_are_explained(mmtool: Callable, made: Path) -> None:
    found = answer(mmtool("predict", "--input", "words=zzzzzz mmmm", "-m", made / "m.safetensors", "--explain", "--json"))
    assert list(found["contributions"]) == ["words"] == list(found["explanation"]["within"])
    assert found["contributions"]["words"] == pytest.approx(found["probability"] - 0.5, abs=1e-6)


def test_each_of_several_targets_is_explained(mmtool: Callable, made: Path, row: tuple) -> None:
    found = answer(mmtool("predict", *row, "-m", made / "three.safetensors", "--explain", "--json"))["targets"]
    units = {column: (f["explanation"]["unit"], f["explanation"]["of"]) for column, f in found.items()}
    assert units == {"label": ("probability", "yes"), "amount": ("number", None), "tags": ("probability", "big")}
    for column, f in found.items():
        total = f["explanation"]["value"] - f["explanation"]["baseline"]
        assert sum(f["contributions"].values()) == pytest.approx(total, abs=1e-6)
        assert f["explanation"]["within"]["photo"]["overlay"].endswith(f"-photo-{column}.png")
        assert max(f["explanation"]["within"]["words"]["words"], key=lambda w: w[3])[2] == "zzzzzz"
    assert found["amount"]["explanation"]["value"] == pytest.approx(found["amount"]["prediction"])
    ran = mmtool("predict", *row, "-m", made / "three.safetensors", "--explain")
    assert ran.out.count("without inputs") == 3


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_manifest_and_its_pictures_beside_the_predictions(mmtool: Callable, made: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"p.{suffix}"
    hostile = ["../../a", "..", "A/b", "a/B", "nul\u202e\n<b>", "x" * 300]
    rows = list(csv.DictReader((made / "data.csv").read_text().splitlines()))[: len(hostile)]
    for found, name in zip(rows, hostile, strict=True):
        found |= {"id": name, "photo": str(made / found["photo"]), "sound": ""}
    rows[3]["photo"] = str(tmp_path / "broken.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    ran = mmtool("predict", tmp_path / "d.jsonl", "-m", made / "m.safetensors", "--explain", "-o", out)
    assert (ran.code, ran.out) == (0, f"{out}\n")
    if suffix == "jsonl":
        found = [json.loads(line) for line in out.read_text().splitlines()]
    else:
        found = [{k: json.loads(v) if k in ("explanation", "errors") and v else v for k, v in r.items()}
                 for r in csv.DictReader(io.StringIO(out.read_text()))]
    assert [f["id"] for f in found] == hostile
    pictures = [f["explanation"]["within"]["photo"]["overlay"] for f in found if "photo" in f["explanation"]["within"]]
    assert len(pictures) == len(hostile) - 1
    assert len({p.casefold() for p in pictures}) == len(pictures)
    assert sorted(map(Path, pictures)) == sorted((tmp_path / "p-explained").iterdir())
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["d.jsonl", "broken.png", "p-explained", out.name])
    assert sorted(found[3]["explanation"]["within"]) == ["price_colour", "words"]
    assert "photo" in found[3]["errors"]


def test_json_lines_are_explained_and_the_same_twice(mmtool: Callable, made: Path, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [{"id": "a", "photo": str(made / "0.png")}, {"words": "zzzzzz mm"}, {"id": "a", "photo": str(made / "2.png")},
             {"photo": str(tmp_path / "none.png"), "words": ""}]

    def once() -> list[dict]:
        data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        return [json.loads(line) for line in mmtool("predict", "-", "-m", made / "m.safetensors", "--explain").out.splitlines()]

    found = once()
    assert [sorted(f["explanation"]["within"]) for f in found[:3]] == [["photo"], ["words"], ["photo"]]
    assert [f["explanation"]["within"]["photo"]["overlay"] for f in found[:3:2]] == ["explained/a-photo.png",
                                                                                    "explained/a-photo-2.png"]
    assert "explanation" not in found[3]
    before = {p.name: p.read_bytes() for p in Path("explained").iterdir()}
    assert once() == found
    assert {p.name: p.read_bytes() for p in Path("explained").iterdir()} == before


def test_of_features_only_the_inputs_are_explained_and_of_fused_ones_nothing(mmtool: Callable, made: Path, tmp_path: Path,
                                                                             row: tuple) -> None:
    features, fused, model = tmp_path / "feats", tmp_path / "fused", tmp_path / "m.safetensors"
    mmtool("extract", made / "data.csv", "-o", features, "-m", made / "m.safetensors")
    ran = mmtool("predict", features, "-m", made / "m.safetensors", "--explain")
    assert "a manifest tells where within it" in ran.err
    first = json.loads(ran.out.splitlines()[0])
    assert first["explanation"]["within"] == {}
    assert sum(first["contributions"].values()) == pytest.approx(first["probability"] - 0.5, abs=1e-6)
    assert mmtool("fuse", features, "-o", fused, "-f", "concat").code == 0
    assert mmtool("train", fused, "-t", "label", "-o", model, "-q").code == 0
    ran = mmtool("predict", fused, "-m", model, "--explain")
    assert (ran.code, ran.out) == (2, "")
    assert "give --explain the manifest, or the features that were fused" in ran.err
    ran = mmtool("predict", *row, "-m", model, "--explain", "--json")
    found = answer(ran)  # raw cells go through the fusion that the model remembers
    assert sum(found["contributions"].values()) == pytest.approx(found["probability"] - 0.5, abs=1e-6)
    assert max(found["explanation"]["within"]["sound"]["seconds"], key=lambda s: s[2])[:2] == [1.25, 1.5]


def test_an_input_whose_cells_have_no_parts_is_said_once(mmtool: Callable, tmp_path: Path) -> None:
    rows = [{"thing": "x" * (5 + 30 * (i % 2)), "label": "ab"[i % 2]} for i in range(40)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    model = tmp_path / "m.safetensors"
    assert mmtool("train", tmp_path / "d.jsonl", "-t", "label", "-e", "thing=tiny-raw", "-o", model).code == 0
    ran = mmtool("predict", tmp_path / "d.jsonl", "-m", model, "--explain")
    assert ran.err.count("only what it contributes as a whole") == 1
    assert all(json.loads(line)["explanation"]["within"] == {} for line in ran.out.splitlines())


def test_an_interrupted_run_keeps_what_it_wrote(mmtool: Callable, made: Path, tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    from mmtool.explain.rows import Explainer

    explain, rows = Explainer._row, []

    def interrupted(self: Explainer, *arguments: object) -> dict:
        if len(rows) == 3:
            raise KeyboardInterrupt
        rows.append(explain(self, *arguments))
        return rows[-1]

    told = ("predict", made / "data.csv", "-m", made / "m.safetensors", "-o", tmp_path / "p.jsonl")
    monkeypatch.setattr(Explainer, "_row", interrupted)
    ran = mmtool(*told, "--explain")
    assert ran.code == 130
    assert "p.partial.jsonl" in ran.err
    kept = [json.loads(line) for line in (tmp_path / "p.partial.jsonl").read_text().splitlines()]
    assert [k["id"] for k in kept] == ["r0", "r1", "r2"]
    assert not (tmp_path / "p.jsonl").exists()


def test_what_an_interrupted_run_kept_goes_when_the_whole_is_there_unless_it_is_something_else(
        mmtool: Callable, made: Path, tmp_path: Path) -> None:
    told = ("predict", made / "data.csv", "-m", made / "m.safetensors", "-o", tmp_path / "p.jsonl")
    assert mmtool(*told).code == 0
    whole, part = (tmp_path / "p.jsonl").read_bytes(), tmp_path / "p.partial.jsonl"
    part.write_bytes(whole[: whole.index(b"\n") + 1])
    assert mmtool(*told).code == 0
    assert not part.exists()
    part.write_text("mine")
    assert mmtool(*told).code == 0
    assert part.read_text() == "mine"


def test_a_file_in_the_place_of_the_folder_is_refused_before_any_work(mmtool: Callable, made: Path, tmp_path: Path) -> None:
    (tmp_path / "p-explained").write_text("mine")
    ran = mmtool("predict", made / "data.csv", "-m", made / "m.safetensors", "--explain", "-o", tmp_path / "p.jsonl")
    assert (ran.code, ran.out) == (5, "")
    assert "p-explained is a file" in ran.err
    assert (tmp_path / "p-explained").read_text() == "mine"


def test_too_many_inputs_are_refused(mmtool: Callable, tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(11)]
    rows = [{**dict.fromkeys(names, "az"[i % 2] * 3), "label": "ab"[i % 2]} for i in range(30)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    encoders = [part for n in names for part in ("-e", f"{n}=tiny-letters")]
    assert mmtool("train", tmp_path / "d.jsonl", "-t", "label", *encoders, "-o", tmp_path / "m.safetensors").code == 0
    ran = mmtool("predict", tmp_path / "d.jsonl", "-m", tmp_path / "m.safetensors", "--explain")
    assert ran.code == 2
    assert "11 are too many" in ran.err


def test_zero_shot_says_which_words_in_nats(mmtool: Callable) -> None:
    ran = mmtool("predict", "--text", "we saw a kitten today", "--labels", "cat,car", "--explain", "--json")
    found = answer(ran)
    assert (found["explanation"]["of"], found["explanation"]["unit"]) == ("cat", "nats")
    assert max(found["explanation"]["within"]["text"]["words"], key=lambda w: w[3])[2] == "kitten"
    ran = mmtool("predict", "--text", "we saw a kitten today", "--labels", "cat,car", "--explain")
    assert "why cat, in nats of evidence" in ran.out
    assert "*kitten*" in ran.out
