"""`train --conformal`, `--coverage`, `--abstain-below` and unlike inputs, through the command line."""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flows.made import LETTERS, metrics, table, write
from safetensors import safe_open
from safetensors.torch import load_file

from mmtool.cli.main import run
from mmtool.sealing import sealed


def noisy(folder: Path, rows: int = 240, *, calib: bool = False, missing: float = 0.0) -> Path:
    """As `table`, with a third of the labels drawn anew, so that a model is unsure; every third row calibrates, if asked."""
    found = [json.loads(line) for line in table(folder, rows, missing=missing).read_text().splitlines()]
    rng = random.Random(3)
    for i, row in enumerate(found):
        if rng.random() < 1 / 3:
            row["label"] = rng.choice(["high", "low", "middle"])
        row["split"] = "test" if i % 3 == 0 else "calib" if calib and i % 3 == 1 else "val" if i % 15 == 2 else "train"
        row["sum"] = str(float(row["sum"]) + rng.gauss(0, 1))
    return write(folder / "data.jsonl", found)


def header(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as f:
        found: dict[str, Any] = json.loads(f.metadata()["mmtool"])
        return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data.jsonl, m.safetensors and what its training said."""
    folder, told = tmp_path_factory.mktemp("made"), io.StringIO()
    with contextlib.redirect_stderr(told):
        assert run(["train", str(noisy(folder, missing=0.2)), "-t", "label", "-o", str(folder / "m.safetensors"),
                    "--conformal", "0.4", *LETTERS]) == 0
    (folder / "told.txt").write_text(told.getvalue())
    return folder


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    """A copy of the model, beside its data."""
    for name in ("data.jsonl", "m.safetensors"):
        shutil.copy(made / name, tmp_path / name)
    return tmp_path / "m.safetensors"


def test_each_subset_of_inputs_has_scores_of_its_own(mmtool: Callable, made: Path, model: Path) -> None:
    assert "64 rows took no part in training" in (made / "told.txt").read_text()
    rows = header(model)["conformal"]["rows"]["label"]
    assert set(rows) == {"a", "b", "a+b"}
    assert rows["a+b"] < min(rows["a"], rows["b"]) < 64
    assert header(model)["data"]["calib"] == 64
    assert "64 rows that took no part in training" in mmtool("info", model).out
    both, alone = (json.loads(mmtool("predict", "-m", model, *cells, "--coverage", "0.9", "--json").out)
                   for cells in (("--input", "a=z", "--input", "b=a"), ("--input", "b=a")))
    assert "high" in both["set"]
    assert set(alone["set"]) >= {"high", "low"}  # b knows nothing
    assert "set" not in json.loads(mmtool("predict", "-m", model, "--input", "a=z", "--json").out)


@pytest.mark.parametrize("fusion", [("concat",), ("gated", "--epochs", "3")])
def test_rows_kept_apart_change_nothing_but_the_scores(mmtool: Callable, tmp_path: Path, fusion: tuple[str, ...]) -> None:
    """The guarantee rests on it: no weight, scale, class, temperature or metric may see a calibration row."""
    data = noisy(tmp_path, calib=True)
    found = []
    for name in ("one", "other"):
        out = tmp_path / f"{name}.safetensors"
        ran = mmtool("train", data, "-t", "label", "-o", out, "-f", *fusion, "-e", "a=tiny-counted", "-e", "b=tiny-letters")
        assert ran.code == 0, ran.err
        found.append((header(out), load_file(out)))
        rows = [json.loads(line) for line in data.read_text().splitlines()]
        write(data, [{**r, "label": "high", "a": "qqq", "b": "qqq"} if r["split"] == "calib" else r for r in rows])
    (first, one), (second, other) = found
    assert first["data"]["calib"] == 80
    for key in ("metrics", "temperatures", "recipe", "curves", "inputs"):
        assert first[key] == second[key], key
    changed = {k for k in one if not (one[k].shape == other[k].shape and bool((one[k] == other[k]).all()))}
    assert changed == {"trained", *(f"conformal/0/{key}" for key in ("a", "b", "a+b")), "reference/b/known"}


def test_eval_reports_coverage_on_rows_that_are_used_for_nothing_else(mmtool: Callable, tmp_path: Path, model: Path) -> None:
    ran = mmtool("eval", model, tmp_path / "data.jsonl", "-o", tmp_path / "r", "--abstain-below", "0.7")
    assert ran.code == 0, ran.err
    found = metrics(tmp_path / "r")
    doubt, lines = found["doubt"], [json.loads(x) for x in (tmp_path / "r/predictions.jsonl").read_text().splitlines()]
    hits = sum(line["target"] in line["set"] for line in lines)
    assert doubt["coverage"]["value"] == pytest.approx(hits / 80, abs=1e-6)
    assert (found["rows"], doubt["coverage"]["asked"]) == (80, 0.9)
    assert doubt["coverage"]["band"][0] <= doubt["coverage"]["value"] <= 1
    assert doubt["set_size"] == pytest.approx(sum(len(line["set"]) for line in lines) / 80, abs=1e-6)
    assert set(doubt["by_inputs"]) == {"a", "b", "a+b"}
    kept = [line for line in lines if not line["abstained"]]
    assert 0 < len(kept) < 80
    assert all((line["probability"] < 0.7) is line["abstained"] for line in lines)
    assert doubt["abstain"]["kept"]["value"] == pytest.approx(len(kept) / 80, abs=1e-6)
    right = sum(line["prediction"] == line["target"] for line in kept)
    assert doubt["abstain"]["accuracy"]["value"] == pytest.approx(right / len(kept), abs=1e-6)
    page = (tmp_path / "r/report.html").read_text()
    assert "Asked to hold the truth for 0.9 of the rows" in page
    assert "<summary>Coverage</summary>" in page
    assert "Asked to hold the truth" in ran.err
    assert (tmp_path / "r/plots/label-selective.svg").exists()
    ran = mmtool("eval", model, tmp_path / "data.jsonl", "-o", tmp_path / "r2", "--coverage", "0.5")
    assert metrics(tmp_path / "r2")["doubt"]["coverage"]["asked"] == 0.5
    assert len(load_file(model)["trained"]) == 160  # rows that eval leaves out where no column says which test


def test_numbers_have_intervals_tags_have_sets_and_several_targets_each_their_own(mmtool: Callable, tmp_path: Path) -> None:
    data, path = noisy(tmp_path, calib=True), tmp_path / "m.safetensors"
    ran = mmtool("train", data, "-t", "sum=regress", "-t", "tags", "-t", "label", "-o", path, *LETTERS)
    assert ran.code == 0, ran.err
    asked = ("--input", "a=z", "--input", "b=a", "--coverage", "0.9", "--abstain-below", "1")
    found = json.loads(mmtool("predict", "-m", path, *asked, "--json").out)["targets"]
    low, high = found["sum"]["interval"]
    assert low < 316 < high
    assert high - low == pytest.approx(2 * 1.645, rel=0.5)
    assert {"az", "ba"} <= set(found["tags"]["set"])
    assert "abstained" not in found["sum"]
    assert found["label"]["abstained"] is True
    told = mmtool("predict", "-m", path, *asked).out
    assert "interval: 31" in told
    assert "set: {high" in told
    assert "abstained\n" in told
    ran = mmtool("predict", "-m", path, data, "--coverage", "0.9", "-o", tmp_path / "p.csv")
    assert (ran.code, "interval" in (tmp_path / "p.csv").read_text()) == (0, True)
    assert mmtool("eval", path, data, "-o", tmp_path / "r").code == 0
    doubt = metrics(tmp_path / "r")["doubt"]
    assert {c: d["coverage"]["calibration_rows"] for c, d in doubt.items()} == {"label": 80, "sum": 80, "tags": 80}
    assert doubt["sum"]["interval_width"] == pytest.approx(high - low, rel=0.01)


def test_of_a_group_one_row_counts(mmtool: Callable, tmp_path: Path) -> None:
    data, path = noisy(tmp_path), tmp_path / "m.safetensors"
    assert mmtool("train", data, "-t", "label", "-o", path, "--conformal", "0.5", "--group", "group", *LETTERS).code == 0
    found = header(path)
    groups = {json.loads(line)["group"] for line in data.read_text().splitlines()}
    assert found["conformal"]["rows"]["label"] == dict.fromkeys(("a", "b", "a+b"), len(groups) // 2)
    assert found["data"]["calib"] > len(groups) // 2


def test_too_few_rows_make_sets_of_everything_aloud(mmtool: Callable, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    ran = mmtool("train", noisy(tmp_path), "-t", "label", "-o", path, "--conformal", "0.05", *LETTERS)
    assert "8 rows calibrate, and a coverage of 0.9 needs 9" in ran.err
    ran = mmtool("predict", "-m", path, "--input", "a=z", "--coverage", "0.9", "--json")
    assert set(json.loads(ran.out)["set"]) == {"high", "middle", "low"}
    assert "coverage 0.9 needs 9 calibration rows" in ran.err


def test_trained_encoders_and_fused_features_have_scores_too(mmtool: Callable, tmp_path: Path) -> None:
    data, path = noisy(tmp_path, calib=True, missing=0.2), tmp_path / "m.safetensors"
    learned = ("-e", "a=tiny-learned", "-e", "b=tiny-learned", "--epochs", "3")
    ran = mmtool("train", data, "-t", "label", "-o", path, *learned)
    assert ran.code == 0, ran.err
    assert set(header(path)["reference"]) == {"a", "b"}
    assert mmtool("eval", path, data, "-o", tmp_path / "r").code == 0
    whole = header(path)["conformal"]["rows"]["label"]["a+b"]
    assert metrics(tmp_path / "r")["doubt"]["by_inputs"]["a+b"]["coverage"]["calibration_rows"] == whole
    assert mmtool("extract", data, "-o", tmp_path / "f", *LETTERS).code == 0
    assert mmtool("fuse", tmp_path / "f", "-o", tmp_path / "fused", "-f", "concat").code == 0
    ran = mmtool("train", tmp_path / "fused", "-t", "label", "-o", path)
    assert ran.code == 0, ran.err
    rows = header(path)["conformal"]["rows"]["label"]
    assert set(rows) == {"a", "b", "a+b"}
    assert sum(rows.values()) == 80  # told apart by what they had
    line = json.loads(mmtool("predict", "-m", path, "--input", "a=z", "--input", "b=a", "--coverage", "0.8", "--json").out)
    assert "high" in line["set"]
    assert set(line["unlike"]) == {"fused"}


def test_what_is_unlike_the_training_rows_is_said_and_they_are_not(mmtool: Callable, tmp_path: Path) -> None:
    rng = random.Random(0)
    data, path = table(tmp_path, 400), tmp_path / "m.safetensors"
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    write(data, [{**r, "b": "".join(rng.choices("abcdefgh", k=rng.randint(3, 9)))} for r in rows])
    ran = mmtool("train", data, "-t", "label", "-o", path, *LETTERS)
    assert header(path)["reference"] == {"a": {"held": 300}, "b": {"held": 300}}  # out of fold
    lines = [json.loads(x) for x in mmtool("predict", "-m", path, data).out.splitlines()]
    test = [line["unlike"]["b"] for line, row in zip(lines, rows, strict=True) if row["split"] == "test"]
    assert sum(p < 0.01 for p in test) <= 5  # of 100: 1 is expected
    assert 0.3 < sum(test) / len(test) < 0.7
    ran = mmtool("predict", "-m", path, "--input", "a=z", "--input", "b=" + "Ω" * 400)
    assert "b is unlike the training data (farther than 99.7% of held-out rows)" in ran.err
    assert "a is unlike" not in ran.err
    write(tmp_path / "odd.jsonl", [{"id": i, "a": "z", "b": "Ω" * 400} for i in range(3)])
    assert "3 unlike the training data" in mmtool("predict", "-m", path, tmp_path / "odd.jsonl").err
    assert "unlike" in (line := json.loads(mmtool("predict", "-m", path, "--input", "a=z", "--json").out))
    assert set(line["unlike"]) == {"a"}


@pytest.mark.parametrize("share", ["0", "1", "1.5", "-0.1", "nan", "inf"])
def test_a_coverage_that_is_no_share_is_refused(mmtool: Callable, tmp_path: Path, model: Path, share: str) -> None:
    for verb in (("predict", "-m", model, "--input", "a=z"), ("eval", model, tmp_path / "data.jsonl", "-o", tmp_path / "r")):
        ran = mmtool(*verb, f"--coverage={share}")
        assert (ran.code, "is no share between 0 and 1" in ran.err) == (2, True), ran.err
    ran = mmtool("train", tmp_path / "data.jsonl", "-t", "label", "-o", model, f"--conformal={share}", *LETTERS)
    assert (ran.code, "--conformal" in ran.err) == (2, True)


def test_what_cannot_be_asked_is_refused_with_a_remedy(mmtool: Callable, tmp_path: Path, model: Path) -> None:
    data, plain = tmp_path / "data.jsonl", tmp_path / "plain.safetensors"
    assert mmtool("train", data, "-t", "sum=regress", "-o", plain, *LETTERS).code == 0
    ran = mmtool("predict", "-m", plain, "--input", "a=z", "--coverage", "0.9")
    assert (ran.code, "train with --conformal 0.2" in ran.err) == (4, True)
    for verb in (("predict", "-m", plain, "--input", "a=z"), ("eval", plain, data, "-o", tmp_path / "r")):
        ran = mmtool(*verb, "--abstain-below", "0.5")
        assert (ran.code, "--abstain-below needs a task with one answer" in ran.err) == (2, True)
    for p in ("0", "1.01", "nan"):
        assert "is no probability" in mmtool("predict", "-m", model, "--input", "a=z", "--abstain-below", p).err
    ran = mmtool("predict", "--text", "z", "--coverage", "0.9")
    assert (ran.code, "belong to a trained model" in ran.err) == (2, True)
    ran = mmtool("train", noisy(tmp_path, calib=True), "-t", "label", "-o", plain, "--conformal", "0.2", *LETTERS)
    assert (ran.code, "the column split names some" in ran.err) == (2, True)
    noisy(tmp_path)
    assert mmtool("extract", data, "-o", tmp_path / "f", "-e", "a=tiny-counted").code == 0
    ran = mmtool("train", tmp_path / "f", "-t", "label", "-o", plain, "--conformal", "0.2")
    assert (ran.code, "learned from the rows with split train" in ran.err) == (1, True)


def test_damaged_scores_are_refused(mmtool: Callable, tmp_path: Path, model: Path) -> None:
    tensors, about = load_file(model), header(model)
    bad = tmp_path / "bad.safetensors"
    name = "conformal/0/a"
    for change, told in (({name: tensors[name].flip(0)}, {}), ({name: tensors[name][1:].clone()}, {}),
                         ({}, {"reference": {"c": {}}}), ({}, {"conformal": {"rows": []}}),
                         ({"reference/a/scale": -tensors["reference/a/scale"]}, {})):
        bad.write_bytes(sealed({**tensors, **change}, {**about, **told}))  # by somebody who makes the sums right
        ran = mmtool("predict", "-m", bad, "--input", "a=z")
        assert (ran.code, "error[E_ARTEFACT_DAMAGED]" in ran.err) == (4, True), ran.err
