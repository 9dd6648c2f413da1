"""`mmtool train`, `eval` and `predict -m` through the command line, on data whose answer is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from flows.made import LETTERS, metrics, table, write
from safetensors import safe_open
from safetensors.torch import save_file

from mmtool.sealing import read_sealed, sealed


@pytest.fixture
def features(mmtool: Callable, tmp_path: Path) -> Path:
    assert mmtool("extract", table(tmp_path), "-o", tmp_path / "f", *LETTERS).code == 0
    return tmp_path / "f"


def test_a_manifest_becomes_a_model_that_knows_the_answer(mmtool: Callable, tmp_path: Path) -> None:
    data, model = table(tmp_path), tmp_path / "m.safetensors"
    ran = mmtool("train", data, "--target", "label", "-o", model, *LETTERS)
    assert (ran.code, ran.out) == (0, f"{model}\n"), ran.err
    assert "task: label=classify (2 different values)" in ran.err
    ran = mmtool("eval", model, data, "-o", tmp_path / "r")
    assert (ran.code, ran.out) == (0, f"{tmp_path / 'r'}\n"), ran.err
    found = metrics(tmp_path / "r")
    assert found["rows"] == 30
    assert found["overall"]["accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert found["by_inputs"]["a"]["accuracy"]["value"] == 1
    assert found["by_inputs"]["b"]["accuracy"]["value"] < 0.8
    assert set(found["baselines"]) == {"without_inputs", "best_single_input:a"}
    lines = [json.loads(line) for line in (tmp_path / "r/predictions.jsonl").read_text().splitlines()]
    assert all(line["prediction"] == line["target"] for line in lines)


def test_the_same_run_gives_the_same_bytes_from_features_and_from_a_manifest(mmtool: Callable, tmp_path: Path,
                                                                           features: Path) -> None:
    for fusion in ("concat", "gated"):
        common = ("--target", "label", "-f", fusion, "--epochs", 3)
        for name, data in (("1", features), ("2", features)):
            assert mmtool("train", data, "-o", tmp_path / f"{name}.safetensors", *common).code == 0
        assert mmtool("train", tmp_path / "data.jsonl", "-o", tmp_path / "3.safetensors", *LETTERS, *common).code == 0
        files = [(tmp_path / f"{n}.safetensors").read_bytes() for n in "123"]
        assert files[0] == files[1] == files[2]
    with safe_open(tmp_path / "1.safetensors", framework="pt") as f:
        assert list(f.metadata()) == ["mmtool"]


def test_product_learns_xor_and_concatenation_cannot(mmtool: Callable, tmp_path: Path, features: Path) -> None:
    accuracy = {}
    for fusion in ("concat", "product"):
        model = tmp_path / f"{fusion}.safetensors"
        assert mmtool("train", features, "--target", "xor", "-o", model, "-f", fusion).code == 0
        assert mmtool("eval", model, features, "-o", tmp_path / fusion).code == 0
        accuracy[fusion] = metrics(tmp_path / fusion)["overall"]["accuracy"]["value"]
    assert accuracy["product"] == 1
    assert accuracy["concat"] < 0.8


@pytest.mark.parametrize("fusion", ["sum", "mean", "max", "weighted", "attention", "gated", "late", "poe", "film", "mutan",
                                    "transformer:16"])
def test_every_fusion_learns_with_missing_inputs(mmtool: Callable, tmp_path: Path, fusion: str) -> None:
    data, model = table(tmp_path, 160, missing=0.2), tmp_path / "m.safetensors"
    ran = mmtool("train", data, "--target", "label", "-o", model, "-f", fusion, "--epochs", 40, "--lr", "0.02", *LETTERS)
    assert ran.code == 0, ran.err
    assert mmtool("eval", model, data, "-o", tmp_path / "r").code == 0
    by_inputs = metrics(tmp_path / "r")["by_inputs"]
    assert set(by_inputs) == {"a", "b", "a+b"}
    if fusion not in ("sum", "mean", "max", "attention"):
        assert by_inputs["a"]["accuracy"]["value"] > 0.95


def test_numbers_and_tags(mmtool: Callable, tmp_path: Path, features: Path) -> None:
    for target, metric, answer in (("sum=regress", "r2", "316"), ("tags", "f1_micro", "aa")):
        model = tmp_path / "m.safetensors"
        assert mmtool("train", features, "--target", target, "-o", model).code == 0
        assert mmtool("eval", model, features, "-o", tmp_path / "r").code == 0
        assert metrics(tmp_path / "r")["overall"][metric]["value"] > 0.99
        ran = mmtool("predict", "-m", model, "--input", "a=z" if metric == "r2" else "a=a", "--input", "b=a")
        assert (ran.code, answer in ran.out) == (0, True), ran.out


def test_an_input_that_reads_the_target_is_dropped_aloud(mmtool: Callable, tmp_path: Path) -> None:
    data = table(tmp_path)
    mmtool("extract", data, "-o", tmp_path / "f", *LETTERS, "-e", "label=tiny-letters")
    for source, encode in ((tmp_path / "f", ()), (data, (*LETTERS, "-e", "label=tiny-letters"))):
        ran = mmtool("train", source, "--target", "label", "-o", tmp_path / "m.safetensors", *encode)
        assert "input 'label' reads the target column 'label' and is dropped" in ran.err
        assert json.loads(safe_open(tmp_path / "m.safetensors", "pt").metadata()["mmtool"])["inputs"].keys() == {"a", "b"}


def test_without_a_split_a_test_is_kept_and_eval_scores_only_that(mmtool: Callable, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in table(tmp_path, 100, split=False).read_text().splitlines()]
    data = write(tmp_path / "data.jsonl", [{**row, "b": f"{'b' * i}"} for i, row in enumerate(rows, 1)])
    ran = mmtool("train", data, "--target", "label", "-o", tmp_path / "m.safetensors", *LETTERS)
    assert "no column 'split': 20 of 100 rows are kept for the test" in ran.err
    ran = mmtool("eval", tmp_path / "m.safetensors", data, "-o", tmp_path / "r")
    assert "80 of 100 rows trained the model" in ran.err
    assert metrics(tmp_path / "r")["rows"] == 20
    mmtool("train", data, "--target", "label", "-o", tmp_path / "m.safetensors", "--folds", 4, *LETTERS)
    ran = mmtool("eval", tmp_path / "m.safetensors", data, "-o", tmp_path / "r2")
    assert (ran.code, "every row trained the model" in ran.err) == (1, True)
    assert mmtool("eval", tmp_path / "m.safetensors", data, "-o", tmp_path / "r2", "--split", "all").code == 0


def test_predict_takes_any_subset_of_the_inputs(mmtool: Callable, tmp_path: Path, features: Path) -> None:
    model = tmp_path / "m.safetensors"
    mmtool("train", features, "--target", "label", "-o", model)
    ran = mmtool("predict", "-m", model, "--input", "a=z", "--json")
    line = json.loads(ran.out)
    assert (line["prediction"], line["inputs"], line["measured"]["accuracy"]["value"]) == ("high", ["a"], 1.0)
    ran = mmtool("predict", "-m", model, "--input", "a=a", "--input", "b=z")
    assert ran.out.startswith("low ")
    assert "from a, b; accuracy 1.000 [1.000, 1.000] with these inputs" in ran.out
    for source in (features, tmp_path / "data.jsonl"):
        ran = mmtool("predict", "-m", model, source)
        answers = [json.loads(line) for line in ran.out.splitlines()]
        truth = [json.loads(line) for line in (tmp_path / "data.jsonl").read_text().splitlines()]
        assert [a["prediction"] for a in answers] == [t["label"] for t in truth]
    ran = mmtool("predict", "-m", model, "--text", "z")
    assert (ran.code, "two inputs read text: a, b" in ran.err) == (2, True)


def test_other_peoples_predictions_are_scored(mmtool: Callable, tmp_path: Path) -> None:
    data = table(tmp_path, 40)
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    write(tmp_path / "p.jsonl", [{"id": r["id"], "prediction": r["label"] if i % 4 else "low"} for i, r in enumerate(rows)])
    ran = mmtool("eval", tmp_path / "p.jsonl", data, "--target", "label", "-o", tmp_path / "r", "--split", "all")
    assert ran.code == 0, ran.err
    wrong = sum(r["label"] != "low" for i, r in enumerate(rows) if i % 4 == 0)
    assert metrics(tmp_path / "r")["overall"]["accuracy"]["value"] == pytest.approx(1 - wrong / 40)
    ran = mmtool("eval", tmp_path / "p.jsonl", data, "--target", "label", "-o", tmp_path / "r")
    assert "30 of 40 predictions are not of rows with split test and are not scored" in ran.err
    assert metrics(tmp_path / "r")["overall"]["accuracy"]["value"] == pytest.approx(1 - wrong / 10)
    write(tmp_path / "p.jsonl", [{"id": r["id"], "prediction": "LOW", "probabilities": {"LOW": 2}} for r in rows[:8]])
    ran = mmtool("eval", tmp_path / "p.jsonl", data, "--target", "label", "-o", tmp_path / "r")
    assert "2 of 10 rows with split test have a prediction" in ran.err
    assert "2 predictions are labels that no scored row has, such as 'LOW'" in ran.err
    assert "the probabilities of 'r0' are none" in ran.err
    write(tmp_path / "p.jsonl", [{"id": "r0", "prediction": "low"}] * 2)
    assert "1 ids occur more than once" in mmtool("eval", tmp_path / "p.jsonl", data, "-t", "label", "-o", tmp_path / "r").err
    write(tmp_path / "p.jsonl", [{"id": "nobody", "prediction": "low"}])
    assert "1 ids are not in" in mmtool("eval", tmp_path / "p.jsonl", data, "--target", "label", "-o", tmp_path / "r").err


def test_a_label_that_training_never_saw_counts_as_wrong(mmtool: Callable, tmp_path: Path, features: Path) -> None:
    model = tmp_path / "m.safetensors"
    mmtool("train", features, "--target", "label", "-o", model)
    rows = [json.loads(line) for line in (tmp_path / "data.jsonl").read_text().splitlines()]
    rows[0]["label"] = "odd"
    data = write(tmp_path / "odd.jsonl", rows)
    ran = mmtool("eval", model, data, "-o", tmp_path / "r")
    assert "1 rows have a label that training never saw, such as 'odd'" in ran.err
    assert metrics(tmp_path / "r")["overall"]["accuracy"]["value"] == pytest.approx(29 / 30)


def test_rows_without_a_target_are_left_out_aloud(mmtool: Callable, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in table(tmp_path).read_text().splitlines()]
    for i, cell in ((1, None), (2, "NaN"), (3, "")):
        rows[i]["sum"] = cell
    rows[5]["sum"] = "plenty"
    data = write(tmp_path / "d.jsonl", rows)
    ran = mmtool("train", data, "--target", "sum=regress", "-o", tmp_path / "m.safetensors", *LETTERS)
    assert ran.code == 0
    assert "3 of 120 rows have no sum and are left out" in ran.err
    assert ("1 rows have a sum that cannot be read and are left out; the first: row 5: E_TARGET: 'plenty' is no number"
            in ran.err)


def test_what_cannot_be_learned_is_refused_with_its_reason(mmtool: Callable, tmp_path: Path, features: Path) -> None:
    out = ("-o", tmp_path / "m.safetensors")
    for arguments, code, words in (
            (("--target", "nothing"), 2, "there is no column 'nothing'"),
            (("--target", "id=regress"), 1, "no row has a id"),
            (("--target", "label", "--folds", 200), 1, "90 rows cannot be parted in 200"),
            (("--target", "label", "-f", "nonsense"), 7, "no fusion plugin is called 'nonsense'"),
            (("--target", "label", "-f", "concat:flags=perhaps"), 2, "is not true|false"),
            (("--target", "label", "--optimizer", "magic"), 2, "--optimizer 'magic' is not known"),
            (("--target", "sum=regress", "--label-smoothing", "0.1"), 2, "regress has no option 'label_smoothing'")):
        ran = mmtool("train", features, *arguments, *out)
        assert (ran.code, words in ran.err) == (code, True), ran.err
    rows = [json.loads(line) for line in (tmp_path / "data.jsonl").read_text().splitlines()]
    data = write(tmp_path / "one.jsonl", [{**row, "label": "same"} for row in rows])
    assert "every training row has 'same'" in mmtool("train", data, "--target", "label", *out, *LETTERS).err
    assert not (tmp_path / "m.safetensors").exists()


def test_features_of_another_encoder_are_refused_naming_both(mmtool: Callable, tmp_path: Path, features: Path) -> None:
    model = tmp_path / "m.safetensors"
    mmtool("train", features, "--target", "label", "-o", model)
    mmtool("extract", tmp_path / "data.jsonl", "-o", tmp_path / "g", "-e", "a=tiny-greedy", "-e", "b=tiny-letters")
    for ran in (mmtool("eval", model, tmp_path / "g", "-o", tmp_path / "r"), mmtool("predict", "-m", model, tmp_path / "g")):
        assert ran.code == 4
        assert "input 'a': the model takes tiny-letters" in ran.err
        assert "has tiny-greedy" in ran.err


def test_a_tampered_model_is_refused(mmtool: Callable, tmp_path: Path, features: Path) -> None:
    model = tmp_path / "m.safetensors"
    mmtool("train", features, "--target", "label", "-o", model)
    tensors, header = read_sealed(model)
    bad = tmp_path / "bad.safetensors"
    for change, words, code in (({"format": 3}, "has format 3", 4), ({"extra": 1}, "unknown key 'extra'", 4),
                                ({"inputs": []}, "the header.inputs is a list, not an object", 4),
                                ({"fusion": {"name": "os:system", "options": {}}}, "no fusion plugin", 7),
                                ({"fusion": {"name": "sum", "options": {}}}, "its tensor 'network/", 4)):
        bad.write_bytes(sealed(tensors, {**header, **change}))  # by somebody who makes the sums right
        ran = mmtool("predict", "-m", bad, "--input", "a=z")
        assert (ran.code, words in ran.err) == (code, True), ran.err
    bad.write_bytes(model.read_bytes()[:200])
    assert "cannot be read" in mmtool("predict", "-m", bad, "--input", "a=z").err
    save_file({"x": torch.zeros(1)}, bad)
    assert "is no model of mmtool" in mmtool("predict", "-m", bad, "--input", "a=z").err


def test_what_an_encoder_learned_travels_with_the_model(mmtool: Callable, tmp_path: Path) -> None:
    data, model = table(tmp_path), tmp_path / "m.safetensors"
    assert mmtool("train", data, "--target", "label", "-o", model, "-e", "a=tiny-letters", "-e", "b=tiny-counted").code == 0
    ran = mmtool("predict", "-m", model, "--input", "a=z", "--input", "b=q", "--json")
    assert json.loads(ran.out)["prediction"] == "high"


def test_info_tells_what_a_file_is(mmtool: Callable, tmp_path: Path, features: Path) -> None:
    model = tmp_path / "m.safetensors"
    mmtool("train", features, "--target", "label", "-o", model)
    mmtool("eval", model, features, "-o", tmp_path / "r")
    ran = mmtool("info", model)
    assert (ran.code, "label (classify: high, low)" in ran.out, "accuracy" in ran.out) == (0, True, True)
    kinds = [json.loads(mmtool("info", path, "--json").out)["kind"] for path in (features, model, tmp_path / "r")]
    assert kinds == ["features", "model", "report"]
    ran = mmtool("info", tmp_path)
    assert (ran.code, "is no model, features folder or report" in ran.err) == (4, True)
