"""Several targets at once, and fused features, through the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from flows.made import LETTERS, metrics, table


@pytest.mark.parametrize("told", [(), ("-f", "gated", "--epochs", "40", "--lr", "0.01", "--loss-weighting", "uncertainty"),
                                  ("-f", "late", "--optimizer", "adamw", "--epochs", "60", "--lr", "0.05")])
def test_several_targets_share_a_fusion(mmtool: Callable, tmp_path: Path, told: tuple[str, ...]) -> None:
    data, model = table(tmp_path, 160, missing=0.1), tmp_path / "m.safetensors"
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    for row in rows[::5]:
        row["label"] = ""  # not every row has every target
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ran = mmtool("train", data, "-t", "label", "-t", "sum=regress", "-t", "tags", "-o", model, *LETTERS, *told)
    assert ran.code == 0, ran.err
    assert mmtool("eval", model, data, "-o", tmp_path / "r").code == 0
    found = metrics(tmp_path / "r")
    assert set(found["overall"]) == {"label", "sum", "tags"}
    assert found["by_inputs"]["label"]["a"]["accuracy"]["value"] > 0.95
    if "late" not in told:
        assert found["overall"]["sum"]["r2"]["value"] > 0.5
    lines = [json.loads(line) for line in (tmp_path / "r/predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 40
    assert sum("label" in line["targets"] for line in lines) == sum(bool(r["label"]) for r in rows if r["split"] == "test")
    ran = mmtool("predict", "-m", model, "--input", "a=z", "--json")
    found = json.loads(ran.out)
    assert found["targets"]["label"]["prediction"] == "high"
    assert found["targets"]["label"]["measured"]["accuracy"]["value"] > 0.9
    assert found["inputs"] == ["a"]
    for name in ("p.csv", "p.parquet", "p.jsonl"):
        assert mmtool("predict", data, "-m", model, "-o", tmp_path / name).code == 0
    ran = mmtool("eval", tmp_path / "p.jsonl", data, "-t", "label", "-o", tmp_path / "q", "--split", "all")
    assert ran.code == 0, ran.err
    assert metrics(tmp_path / "q")["rows"] == sum(bool(r["label"]) for r in rows)
    assert mmtool("eval", tmp_path / "p.jsonl", data, "-t", "xor", "-o", tmp_path / "q").code == 4
    shown = mmtool("predict", "-m", model, "--input", "a=z").out
    assert "label:" in shown
    assert "sum" in shown
    assert mmtool("info", model).out.count("predicts") == 3


def test_a_model_of_one_target_is_the_same_beside_another_where_heads_are_solved(mmtool: Callable, tmp_path: Path) -> None:
    data = table(tmp_path)
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    assert mmtool("train", data, "-t", "label", "-o", one, *LETTERS).code == 0
    assert mmtool("train", data, "-t", "label", "-t", "sum", "-o", two, *LETTERS).code == 0
    ps = [json.loads(mmtool("predict", "-m", m, "--input", "a=z", "--input", "b=a", "--json").out) for m in (one, two)]
    assert ps[0]["probability"] == pytest.approx(ps[1]["targets"]["label"]["probability"], abs=1e-3)


@pytest.mark.parametrize("fusion", ["concat", "mean", "product"])
def test_fused_features_train_a_model_that_predicts_from_raw_cells(mmtool: Callable, tmp_path: Path, fusion: str) -> None:
    data, model = table(tmp_path, 400, missing=0.5), tmp_path / "m.safetensors"
    assert mmtool("extract", data, "-o", tmp_path / "f", *LETTERS).code == 0
    ran = mmtool("fuse", tmp_path / "f", "-o", tmp_path / "g", "-f", fusion)
    assert (ran.code, ran.out) == (0, f"{tmp_path / 'g'}\n"), ran.err
    assert "fused from   a, b" in mmtool("info", tmp_path / "g").out
    ran = mmtool("train", tmp_path / "g", "-t", "tags", "-o", model)
    assert ran.code == 0, ran.err
    reports = []
    for name in ("g", "data.jsonl"):
        ran = mmtool("eval", model, tmp_path / name, "-o", tmp_path / "r")
        assert ran.code == 0, ran.err
        reports.append(metrics(tmp_path / "r"))
    assert reports[0]["overall"] == reports[1]["overall"]
    assert set(reports[0]["by_inputs"]) == {"a", "b", "a+b"}
    ran = mmtool("predict", "-m", model, "--input", "a=z", "--json")
    assert json.loads(ran.out)["inputs"] == ["a"], ran.err
    from_features = mmtool("predict", tmp_path / "g", "-m", model).out
    assert from_features == mmtool("predict", data, "-m", model).out


def test_the_learned_fusion_of_a_model_fuses_as_the_model_does(mmtool: Callable, tmp_path: Path) -> None:
    data, first, second = table(tmp_path, 200), tmp_path / "m.safetensors", tmp_path / "n.safetensors"
    assert mmtool("extract", data, "-o", tmp_path / "f", *LETTERS).code == 0
    assert mmtool("train", tmp_path / "f", "-t", "xor", "-f", "gated", "-o", first, "--lr", "0.02").code == 0
    ran = mmtool("fuse", tmp_path / "f", "-o", tmp_path / "g", "-m", first)
    assert ran.code == 0, ran.err
    assert mmtool("train", tmp_path / "g", "-t", "xor", "-o", second).code == 0
    for model in (first, second):
        assert mmtool("eval", model, data, "-o", tmp_path / "r").code == 0
        assert metrics(tmp_path / "r")["overall"]["accuracy"]["value"] > 0.95  # a linear head finds what the gates made plain


@pytest.mark.parametrize(("told", "fact"), [
    (("-f", "gated"), "has weights"), (("-f", "late"), "not one vector a row"), ((), "takes a fusion or a model"),
    (("-f", "nothing"), "nothing")])
def test_what_cannot_fuse_is_refused_with_the_reason(mmtool: Callable, tmp_path: Path, told: tuple[str, ...],
                                                     fact: str) -> None:
    assert mmtool("extract", table(tmp_path, 20), "-o", tmp_path / "f", *LETTERS).code == 0
    ran = mmtool("fuse", tmp_path / "f", "-o", tmp_path / "g", *told)
    assert ran.code in (1, 2, 7)
    assert fact in ran.err
    assert not (tmp_path / "g").exists()
    assert not list(tmp_path.glob("*.partial"))


def test_features_fused_otherwise_are_refused(mmtool: Callable, tmp_path: Path) -> None:
    data, model = table(tmp_path, 60), tmp_path / "m.safetensors"
    assert mmtool("extract", data, "-o", tmp_path / "f", *LETTERS).code == 0
    for fusion in ("mean", "max"):
        assert mmtool("fuse", tmp_path / "f", "-o", tmp_path / fusion, "-f", fusion).code == 0
    assert mmtool("train", tmp_path / "mean", "-t", "label", "-o", model).code == 0
    ran = mmtool("eval", model, tmp_path / "max", "-o", tmp_path / "r")
    assert ran.code == 4
    assert "fused otherwise" in ran.err
    for target in ("f", "f/inside"):
        ran = mmtool("fuse", tmp_path / "f", "-o", tmp_path / target, "-f", "mean")
        assert ran.code == 2
        assert "is the folder that is fused" in ran.err
    ran = mmtool("fuse", tmp_path / "mean", "-o", tmp_path / "twice", "-f", "mean")
    assert "fused already" in ran.err


@pytest.mark.parametrize(("told", "fact"), [
    (("-t", "label", "-t", "label"), "given twice"), (("-t", "label", "-t", "nothing"), "no column"),
    (("-t", "sum=regress", "--label-smoothing", "0.1"), "regress has no option"), ((), "nothing to predict")])
def test_targets_that_cannot_be(mmtool: Callable, tmp_path: Path, told: tuple[str, ...], fact: str) -> None:
    ran = mmtool("train", table(tmp_path), "-o", tmp_path / "m.safetensors", *LETTERS, *told)
    assert ran.code == 2
    assert fact in ran.err


def test_each_of_several_targets_is_scored_where_it_is_there(mmtool: Callable, tmp_path: Path) -> None:
    data, model = table(tmp_path), tmp_path / "m.safetensors"
    assert mmtool("train", data, "-t", "label", "-t", "sum=regress", "-o", model, *LETTERS).code == 0
    assert mmtool("predict", data, "-m", model, "-o", tmp_path / "p.jsonl").code == 0
    ran = mmtool("eval", tmp_path / "p.jsonl", data, "-t", "label", "-o", tmp_path / "r")
    assert ran.code == 0, ran.err
    assert metrics(tmp_path / "r")["overall"]["accuracy"]["value"] == 1
    ran = mmtool("eval", tmp_path / "p.jsonl", data, "-t", "other", "-o", tmp_path / "r")
    assert (ran.code, "says nothing of 'other'" in ran.err) == (4, True), ran.err
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    for gone in ({"sum": "none"}, {"sum": ""}):
        data.write_text("".join(json.dumps({**row, **gone}) + "\n" for row in rows))
        ran = mmtool("eval", model, data, "-o", tmp_path / "r")
        assert (ran.code, "no scored row has a sum" in ran.err) == (0, True), ran.err
        assert set(metrics(tmp_path / "r")["overall"]) == {"label"}
    data.write_text("".join(json.dumps({**row, "sum": "", "label": ""}) + "\n" for row in rows))
    ran = mmtool("eval", model, data, "-o", tmp_path / "r")
    assert (ran.code, "no row has a target that can be read" in ran.err) == (1, True), ran.err


def test_features_of_weights_that_a_model_learned_give_numbers_that_are_not_believed(mmtool: Callable, tmp_path: Path) -> None:
    data, first, second = table(tmp_path, 100), tmp_path / "m.safetensors", tmp_path / "n.safetensors"
    assert mmtool("extract", data, "-o", tmp_path / "f", *LETTERS).code == 0
    assert mmtool("train", tmp_path / "f", "-t", "xor", "-f", "gated", "-o", first, "--lr", "0.02").code == 0
    assert mmtool("fuse", tmp_path / "f", "-o", tmp_path / "g", "-m", first).code == 0
    ran = mmtool("train", tmp_path / "g", "-t", "xor", "-o", second)
    assert "the numbers above are then wrong, too good or too bad" in ran.err
    assert "not measured with these inputs alone" in mmtool("predict", "-m", second, "--input", "a=a", "--input", "b=z").out


def test_rows_that_trained_the_model_are_not_scored_without_a_word(mmtool: Callable, tmp_path: Path) -> None:
    data, model = table(tmp_path), tmp_path / "m.safetensors"
    assert mmtool("train", data, "-t", "label", "-o", model, *LETTERS).code == 0
    ran = mmtool("eval", model, data, "-o", tmp_path / "r", "--split", "all")
    assert "scored rows trained the model, or equal one that did" in ran.err
    assert "scored: 120 rows (all rows)" in ran.err


def test_a_model_that_knows_nothing_is_said_to(mmtool: Callable, tmp_path: Path) -> None:
    ran = mmtool("train", table(tmp_path), "-t", "other", "-o", tmp_path / "m.safetensors", *LETTERS)
    assert "other: the model is not clearly better than an answer that sees no input" in ran.err


def test_groups_that_a_split_tears_are_named(mmtool: Callable, tmp_path: Path) -> None:
    ran = mmtool("train", table(tmp_path), "-t", "label", "-o", tmp_path / "m.safetensors", "--group", "group", *LETTERS)
    assert "column 'split' tears 30 groups of 'group', such as 'g0'" in ran.err
