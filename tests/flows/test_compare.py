"""`mmtool compare` and `train -f auto` through the command line, on data whose answer is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flows.made import LETTERS, table, write

from mmtool.cli.main import run


def compared(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "comparison.json").read_text())["targets"]


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    assert run(["extract", str(table(folder)), "-o", str(folder / "f"), "-q", *LETTERS]) == 0
    return folder / "f"


FEW = ("-f", "concat", "-f", "tensor", "-f", "late", "--epochs", "20")


@pytest.fixture(scope="module")
def ranked(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of one comparison, which others must equal."""
    report = tmp_path_factory.mktemp("ranked") / "r"
    assert run(["compare", str(features), "-t", "label", "-o", str(report), *FEW]) == 0
    return report


def test_fusions_inputs_and_heads_are_ranked_on_the_same_rows(ranked: Path) -> None:
    found = compared(ranked)["label"]
    assert found["metric"] == "accuracy"
    assert found["rows"] == 90  # the test rows were left alone
    assert found["folds"] == 5
    each = {c["name"]: c for c in found["candidates"]}
    assert {"concat", "tensor", "late", "a alone", "b alone", "concat, dense 64"} <= set(each)
    assert each["concat"]["value"] == each["a alone"]["value"] == 1.0
    assert each["b alone"]["value"] < 0.8
    assert each["b alone"]["gap"]["high"] < 0
    assert sum(c["chosen"] for c in found["candidates"]) == 1
    values = [c["value"] for c in found["candidates"]]
    assert values == sorted(values, reverse=True)
    assert all(c["parameters"] > 0 and c["train_seconds"] > 0 and c["predict_ms_per_row"] > 0 for c in found["candidates"])
    page = (ranked / "report.html").read_text()
    assert "b alone" in page
    assert (ranked / "plots").is_dir()


def test_what_needs_both_inputs_is_found_by_a_fusion_that_multiplies(mmtool: Callable, tmp_path: Path) -> None:
    data = table(tmp_path, 200, split=False)
    assert mmtool("compare", data, "-t", "xor", "-o", tmp_path / "r", *LETTERS, "-f", "concat", "-f", "tensor",
                  "--epochs", "40", "--only-fusions").code == 0
    found = compared(tmp_path / "r")["xor"]
    assert found["candidates"][0]["name"] == "tensor"
    assert found["candidates"][0]["value"] > 0.95
    assert found["candidates"][1]["value"] < 0.75


def test_equal_runs_compare_alike_but_for_the_times(mmtool: Callable, tmp_path: Path, features: Path, ranked: Path) -> None:
    def told(report: Path) -> str:
        found = compared(report)
        for c in found["label"]["candidates"]:
            del c["train_seconds"], c["predict_ms_per_row"]
        return json.dumps(found)

    ran = mmtool("compare", features, "-t", "label", "-o", tmp_path / "r", *FEW)
    assert (ran.code, ran.out) == (0, f"{tmp_path / 'r'}\n"), ran.err
    assert told(tmp_path / "r") == told(ranked)


def test_one_process_gives_what_several_give(mmtool: Callable, tmp_path: Path, features: Path, ranked: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    def values(report: Path) -> list[Any]:
        return [(c["name"], c["value"], c["loss"]) for c in compared(report)["label"]["candidates"]]

    monkeypatch.setattr("mmtool.training.workers.MOST", 1)
    assert mmtool("compare", features, "-t", "label", "-o", tmp_path / "r", *FEW).code == 0
    assert values(tmp_path / "r") == values(ranked)


def test_several_targets_have_a_comparison_each(mmtool: Callable, tmp_path: Path, features: Path) -> None:
    targets = ("-t", "label", "-t", "sum=regress", "-t", "tags=tag")
    assert mmtool("compare", features, *targets, "-o", tmp_path / "r", "-f", "concat", "-f", "gated", "--epochs", "5").code == 0
    found = compared(tmp_path / "r")
    assert {c: one["metric"] for c, one in found.items()} == {"label": "accuracy", "sum": "r2", "tags": "f1_micro"}
    assert len({next(c["name"] for c in one["candidates"] if c["chosen"]) for one in found.values()}) == 1


def test_an_ensemble_is_weighed_by_folds_that_it_is_not_scored_on(mmtool: Callable, tmp_path: Path, features: Path) -> None:
    ran = mmtool("compare", features, "-t", "label", "-o", tmp_path / "r", *FEW, "--ensemble")
    assert ran.code == 0, ran.err
    found = compared(tmp_path / "r")["label"]
    assert abs(sum(found["ensemble"]["members"].values()) - 1) < 1e-4
    assert any(c["kind"] == "ensemble" for c in found["candidates"])


def test_settings_are_searched(mmtool: Callable, tmp_path: Path, features: Path) -> None:
    ran = mmtool("compare", features, "-t", "label", "-o", tmp_path / "r", *FEW, "--search", "3")
    assert ran.code == 0, ran.err
    (one,) = [c for c in compared(tmp_path / "r")["label"]["candidates"] if c["kind"] == "search"]
    assert set(one["settings"]) & {"modality_dropout", "given", "dropout"}


def test_auto_trains_the_best_and_the_report_tells_of_the_others(mmtool: Callable, tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmtool.training.candidates.installed", lambda: ["concat", "sum", "gated", "product", "tensor"])
    data, model = table(tmp_path, 200), tmp_path / "m.safetensors"
    ran = mmtool("train", data, "-t", "xor", "-f", "auto", "-o", model, *LETTERS, "--epochs", "15")
    assert ran.code == 0, ran.err
    assert "chosen: " in ran.err
    assert mmtool("eval", model, data, "-o", tmp_path / "r").code == 0
    found = json.loads((tmp_path / "r/metrics.json").read_text())
    assert found["overall"]["accuracy"]["value"] > 0.9  # a sum of both would have half of it
    assert "a alone" in (tmp_path / "r/report.html").read_text()
    ran = mmtool("info", model, "--json")
    header = json.loads(ran.out)
    assert header["fusion"]["name"] == next(c["fusion"] for c in header["comparison"]["xor"]["candidates"] if c["chosen"])
    assert not any("train_seconds" in c for c in header["comparison"]["xor"]["candidates"])  # equal runs have equal bytes


def test_a_fusion_that_fails_is_told_and_the_others_go_on(mmtool: Callable, tmp_path: Path, features: Path) -> None:
    ran = mmtool("compare", features, "-t", "label", "-o", tmp_path / "r", "-f", "concat", "-f", "gated", "--lr", "1e30",
                 "--only-fusions")
    assert ran.code == 0, ran.err
    assert "gated could not be tried: the " in ran.err
    assert "loss is" in ran.err
    (skipped,) = compared(tmp_path / "r")["label"]["skipped"]
    assert skipped["name"] == "gated"


@pytest.mark.parametrize(("arguments", "told"), [
    (("-f", "nonsense"), "no fusion plugin"), (("-f", "auto"), "leave -f out"),
    (("-f", "concat", "-f", "concat"), "named twice"), (("--folds", "1"), "--folds 1"),
    (("-t", "nothing"), "there is no column")], ids=str)
def test_wrong_use_is_told(mmtool: Callable, tmp_path: Path, features: Path, arguments: tuple[str, ...], told: str) -> None:
    ran = mmtool("compare", features, "-t", "label", "-o", tmp_path / "r", *arguments)
    assert ran.code in (2, 7)
    assert told in ran.err
    assert not (tmp_path / "r").exists()


def test_search_without_auto_is_refused(mmtool: Callable, tmp_path: Path, features: Path) -> None:
    ran = mmtool("train", features, "-t", "label", "-o", tmp_path / "m.safetensors", "--search", "3")
    assert ran.code == 2
    assert "-f auto" in ran.err


def test_encoders_that_are_trained_cannot_be_compared(mmtool: Callable, tmp_path: Path) -> None:
    data = table(tmp_path)
    ran = mmtool("compare", data, "-t", "label", "-o", tmp_path / "r", "-e", "a=text-rnn", "-f", "concat")
    assert ran.code == 1
    assert "extract -m MODEL" in ran.err


def test_encoders_that_learn_from_rows_are_fitted_in_each_fold(mmtool: Callable, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"id": i, "n": i % 5, "c": "xyz"[i % 3], "label": "ab"[i % 3 == 0]} for i in range(90)]
    data = write(tmp_path / "d.jsonl", rows)
    ran = mmtool("compare", data, "-t", "label", "-o", tmp_path / "r", "-e", "n=table", "-e", "c=table", "-f", "concat")
    assert ran.code == 0, ran.err
    each = {c["name"]: c["value"] for c in compared(tmp_path / "r")["label"]["candidates"]}
    assert each["c alone"] == 1.0
    assert each["n alone"] < 0.8


def test_a_report_of_one_kind_is_replaced_by_the_other_whole(mmtool: Callable, tmp_path: Path, features: Path) -> None:
    model = tmp_path / "m.safetensors"
    assert mmtool("train", features, "-t", "label", "-o", model).code == 0
    assert mmtool("eval", model, features, "-o", tmp_path / "r").code == 0
    assert mmtool("compare", features, "-t", "label", "-o", tmp_path / "r", "-f", "concat").code == 0
    assert not (tmp_path / "r/metrics.json").exists()
    assert mmtool("eval", model, features, "-o", tmp_path / "r").code == 0
    assert not (tmp_path / "r/comparison.json").exists()
    ran = mmtool("info", tmp_path / "r")
    assert ran.code == 0
