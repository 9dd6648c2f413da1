"""`mmtool predict` without a model: zero-shot, through the real command line, with the starter's encoders."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

SAMPLES = Path(__file__).parents[2] / "mmtool" / "samples"
CAT, COFFEE, VOICE = (SAMPLES / name for name in ("cat.jpg", "coffee.jpg", "voice.ogg"))
LABELS = ("--labels", "cat,dog,horse,cup of coffee")


def objects(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_photo_and_a_text_give_imagenet_labels(mmtool: Callable) -> None:
    ran = mmtool("predict", CAT, "--text", "a kitten on the sofa")
    lines = ran.out.splitlines()
    assert ran.code == 0
    assert len(lines) == 6
    assert " cat" in lines[0]
    assert lines[-1].startswith("from image +")
    assert "text" in lines[-1]


@pytest.mark.parametrize(("arguments", "best", "inputs"), [
    ([CAT], "cat", ["image"]), ([COFFEE], "cup of coffee", ["image"]), ([VOICE], "cat", ["audio"]),
    (["--text", "he barks at the postman"], "dog", ["text"]), ([CAT, VOICE], "cat", ["audio", "image"]),
    (["--input", f"image={COFFEE}", "--text", "espresso"], "cup of coffee", ["image", "text"])])
def test_any_mixture_of_inputs(mmtool: Callable, arguments: list[object], best: str, inputs: list[str]) -> None:
    ran = mmtool("predict", *arguments, *LABELS, "--json")
    (found,) = objects(ran.out)
    assert ran.code == 0
    assert (found["prediction"], found["inputs"]) == (best, inputs)
    assert sum(found["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert sorted(found["contributions"]) == inputs


def test_several_files_of_one_kind_are_a_row_each(mmtool: Callable) -> None:
    ran = mmtool("predict", CAT, COFFEE, *LABELS)
    assert ran.code == 0
    first, second = ran.out.splitlines()
    assert first.startswith(f"{CAT}  cat  ")
    assert second.startswith(f"{COFFEE}  cup of coffee  ")


def test_evidence_adds_up(mmtool: Callable) -> None:
    """Log-odds of the mixture are the sum of the log-odds of its parts."""
    import math

    def odds(*arguments: object) -> float:
        p = objects(mmtool("predict", *arguments, "--labels", "cat,dog", "--json").out)[0]["probabilities"]
        return math.log(p["cat"] / p["dog"])

    both = odds(COFFEE, "--text", "a hairy animal")
    assert both == pytest.approx(odds(COFFEE) + odds("--text", "a hairy animal"), abs=0.02)


def test_a_manifest_gives_json_lines_in_its_order(mmtool: Callable, tmp_path: Path) -> None:
    manifest = tmp_path / "a.csv"
    manifest.write_text(f"id,photo,title\nx,{CAT},\ny,{COFFEE},a hot drink\nz,{tmp_path}/none.jpg,he barks at cars\n,,\n")
    ran = mmtool("predict", manifest, *LABELS, "-e", "photo=effnet-lite0", "-e", "title=minilm")
    found = objects(ran.out)
    assert ran.code == 3  # one of the rows has nothing to go by
    assert [(f["id"], f["prediction"], f["inputs"]) for f in found] == [
        ("x", "cat", ["photo"]), ("y", "cup of coffee", ["photo", "title"]), ("z", "dog", ["title"]), ("3", None, [])]
    assert found[2]["errors"] == {"photo": "E_CELL_NOT_FOUND: no such file"}


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_predictions_go_to_a_file(mmtool: Callable, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"p.{suffix}"
    ran = mmtool("predict", CAT, COFFEE, *LABELS, "-o", target)
    assert (ran.code, ran.out) == (0, f"{target}\n")
    if suffix == "jsonl":
        rows = objects(target.read_text())
    elif suffix == "csv":
        rows = list(csv.DictReader(target.read_text().splitlines()))
    else:
        rows = pq.read_table(target).to_pylist()
    assert [r["prediction"] for r in rows] == ["cat", "cup of coffee"]


def test_json_lines_are_answered_as_they_come() -> None:
    command = [sys.executable, "-m", "mmtool", "predict", "-", *LABELS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line, best in ((json.dumps({"id": "a", "image": str(CAT)}), "cat"), ("nonsense", None),
                           (json.dumps({"text": "espresso"}), "cup of coffee"), (json.dumps({"smell": "x"}), None)):
            process.stdin.write(line + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["prediction"] == best  # before the next line is written
        process.stdin.close()
        assert process.wait(timeout=30) == 3
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_lines_may_have_other_keys_in_any_order(mmtool: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders are loaded once, whatever inputs a line has; what is no input is said once and left out."""
    import io

    lines = [{"image": str(COFFEE), "price": 3}, {"text": "he barks", "id": "b"},
             {"text": "espresso", "image": str(COFFEE), "price": 4}, {"image": None, "text": "espresso"},
             {"image": str(COFFEE), "note": "he barks"}]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines) + b"\xff\xfe\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    built = []
    from mmtool import encoding

    build = encoding.build
    monkeypatch.setattr(encoding, "build", lambda text, **more: built.append(text) or build(text, **more))
    ran = mmtool("predict", "-", *LABELS, "-e", "note=minilm")
    found = objects(ran.out)
    assert [(f["prediction"], f["inputs"]) for f in found[:4]] == [
        ("cup of coffee", ["image"]), ("dog", ["text"]), ("cup of coffee", ["image", "text"]), ("cup of coffee", ["text"])]
    assert found[4]["inputs"] == ["image", "note"]
    assert "not JSON" in found[5]["errors"]["line"]
    assert ran.err.count("'price' is no input") == 1
    assert sorted(built) == ["effnet-lite0", "minilm"]


def test_an_input_may_be_called_label(mmtool: Callable, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"label\n{CAT}\n")
    ran = mmtool("predict", tmp_path / "a.csv", "-e", "label=effnet-lite0", *LABELS)
    assert [(f["prediction"], f["inputs"]) for f in objects(ran.out)] == [("cat", ["label"])]


def test_a_target_that_cannot_be_written_is_refused_before_any_work(mmtool: Callable, tmp_path: Path) -> None:
    for target in (tmp_path / "no" / "p.jsonl", tmp_path):
        ran = mmtool("predict", CAT, *LABELS, "-o", target)
        assert (ran.code, ran.out) == (5, "")
        assert str(target) in ran.err


def test_an_empty_text_is_missing(mmtool: Callable) -> None:
    (found,) = objects(mmtool("predict", CAT, "--text", " ", *LABELS, "--json").out)
    assert found["inputs"] == ["image"]


def test_the_reader_of_the_output_may_go_away() -> None:
    lines = "".join(json.dumps({"text": f"a text {i}"}) + "\n" for i in range(200))
    ran = subprocess.run(f"{sys.executable} -m mmtool predict - --labels cat,dog | head -n 1", shell=True, input=lines,
                         text=True, capture_output=True, check=False)
    assert json.loads(ran.stdout)["prediction"] in ("cat", "dog")
    assert "Traceback" not in ran.stderr


def test_a_broken_file_is_an_error_alone_and_a_warning_beside_others(mmtool: Callable, tmp_path: Path) -> None:
    broken = tmp_path / "[b]roken.jpg"
    broken.write_bytes(CAT.read_bytes()[:2000])
    ran = mmtool("predict", broken, *LABELS)
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.splitlines()[0] == f"error[E_IMG_TRUNCATED]: {broken}: truncated JPEG"
    ran = mmtool("predict", broken, "--text", "espresso", *LABELS)
    assert ran.code == 0
    assert "cup of coffee" in ran.out.splitlines()[0]
    assert "image was left out: E_IMG_TRUNCATED: truncated JPEG" in ran.err


@pytest.mark.parametrize(("arguments", "words"), [
    ([], "nothing to predict"),
    ([CAT, COFFEE, VOICE], "which files belong together?"), ([CAT, "--input", "image=x.jpg"], "given twice"),
    ([CAT, "--labels", "cat"], "at least two labels"), ([CAT, "--labels", "cat,dog,cat"], "names 'cat' twice"),
    ([CAT, "-e", "image=spectral"], "states no space"),
    ([CAT, "--input", "smell=x"], "no encoder for input 'smell'"), ([CAT, "-e", "text=tiny-letters", "--text", "x"], "space"),
    (["-", "--text", "x"], "put them in a column"),
    ([sys.executable], "mmtool knows")])
def test_mistakes_are_usage_errors(mmtool: Callable, arguments: list[object], words: str) -> None:
    ran = mmtool("predict", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["nowhere.jpg"], 5, "error[E_NOT_FOUND]: nowhere.jpg does not exist"),
    ([CAT, "--device", "cuda:77"], 8, "error[E_DEVICE]")])
def test_what_is_not_there_has_a_code_of_its_own(mmtool: Callable, arguments: list[object], code: int, words: str) -> None:
    ran = mmtool("predict", *arguments)
    assert (ran.code, ran.out, ran.err.startswith(words)) == (code, "", True)


def test_labels_from_a_file(mmtool: Callable, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\n\ncup of coffee, hot\n")
    ran = mmtool("predict", COFFEE, "--labels", f"@{tmp_path / 'labels.txt'}", "--json")
    assert objects(ran.out)[0]["prediction"] == "cup of coffee, hot"


def test_another_encoder_and_space(mmtool: Callable) -> None:
    """Labels are read by the text encoder that is named, in its own space."""
    ran = mmtool("predict", "--text", "zz", "-e", "text=tiny-letters", "--labels", "aa,zz", "--json")
    assert objects(ran.out)[0]["prediction"] == "zz"
