"""`mmtool eval --by-input`: what each input is worth, on data whose answer is known."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mmtool_tiny
import pytest
from flows.made import LETTERS, metrics, table, write

NOISE = ("-e", "noise=tiny-letters")


def xor_and_noise(folder: Path, rows: int = 320) -> Path:
    """`xor` needs a and b, `label` a alone, `noise` knows nothing."""
    rng = random.Random(3)
    out: list[dict[str, object]] = []
    for i in range(rows):
        a, b = rng.choice("az"), rng.choice("az")
        out.append({"id": f"r{i}", "a": a, "b": b, "noise": rng.choice("abcdefgh") * rng.randint(1, 4),
                    "xor": "same" if a == b else "different", "label": "high" if a == "z" else "low",
                    "split": "test" if i % 2 else "val" if i % 4 else "train"})
    return write(folder / "data.jsonl", out)


def worth(mmtool: Callable, folder: Path, data: Path, *train: object, evaluate: tuple[object, ...] = ()) -> tuple[Any, str]:
    """The worth in metrics.json of a model trained so, and what the terminal was told."""
    ran = mmtool("train", data, "-o", folder / "m.safetensors", *train)
    assert ran.code == 0, ran.err
    ran = mmtool("eval", folder / "m.safetensors", data, "-o", folder / "r", "--by-input", *evaluate)
    assert ran.code == 0, ran.err
    return metrics(folder / "r")["worth"], ran.err


def check_sum(found: dict[str, Any]) -> None:
    gain = (found["all"]["value"] - found["none"]["value"]) * (1 if found["greater_is_better"] else -1)
    assert sum(e["shapley"]["value"] for e in found["inputs"].values()) == pytest.approx(gain, abs=1e-6)


def test_xor_is_synergy_only(mmtool: Callable, tmp_path: Path) -> None:
    found, told = worth(mmtool, tmp_path, xor_and_noise(tmp_path), "-t", "xor", "-f", "product", *LETTERS)
    gain = found["all"]["value"] - found["none"]["value"]
    assert gain > 0.4
    check_sum(found)
    for entry in found["inputs"].values():
        assert entry["alone"]["low"] <= 0 <= entry["alone"]["high"]
        assert entry["left_out"]["low"] > 0.3
        assert entry["shapley"]["low"] <= gain / 2 <= entry["shapley"]["high"]
        assert entry["verdict"] == "clear worth, and something is lost without it"
    [pair] = found["pairs"]
    assert (pair["word"], pair["interaction"]["low"] > 0.3) == ("synergistic", True)
    assert "a and b are synergistic: together they gain" in told
    assert [s["inputs"] for s in found["subsets"]] == [[], ["a"], ["b"], ["a", "b"]]
    page = (tmp_path / "r/report.html").read_text()
    assert "What each input is worth" in page
    assert "a and b are synergistic" in page
    assert (tmp_path / "r/plots/xor-worth.svg").exists()


def test_a_copy_shares_its_worth_and_noise_has_none(mmtool: Callable, tmp_path: Path) -> None:
    encode = ("-e", "a=tiny-letters", "-e", "copy@a=tiny-letters", *NOISE)
    found, told = worth(mmtool, tmp_path, xor_and_noise(tmp_path), "-t", "label", *encode)
    check_sum(found)
    a, copy, noise = (found["inputs"][n]["shapley"] for n in ("a", "copy", "noise"))
    assert copy["low"] <= a["value"] <= copy["high"]
    assert a["low"] <= copy["value"] <= a["high"]
    assert a["low"] > 0.2
    assert noise["low"] <= 0 <= noise["high"]
    assert found["inputs"]["noise"]["verdict"] == "no clear worth: its interval contains zero"
    assert found["inputs"]["a"]["verdict"].startswith("clear worth, but nothing is clearly lost without it")
    assert {tuple(p["inputs"]): p["word"] for p in found["pairs"]}["a", "copy"] == "redundant"
    assert "a and copy are redundant: together they gain" in told
    assert "noise has no clear worth on these 160 rows: its interval contains zero." in told


@pytest.mark.parametrize(("target", "metric"), [("label", None), ("label", "log_loss"), ("tags", None), ("sum=regress", None),
                                                ("sum=regress", "rmse")])
def test_worths_add_up_where_inputs_are_missing(mmtool: Callable, tmp_path: Path, target: str, metric: str | None) -> None:
    found, told = worth(mmtool, tmp_path, table(tmp_path, missing=0.4), "-t", target, *LETTERS,
                        evaluate=() if metric is None else ("--metric", metric))
    check_sum(found)
    assert found["rows"] == 30
    assert found["greater_is_better"] == (metric is None)
    assert found["inputs"]["a"]["shapley"]["value"] > 0.05  # a gain is more than nothing, also where less is better
    assert ("less is better, so what falls is gained" in told) == (metric is not None)
    whole = metrics(tmp_path / "r")
    assert found["all"]["value"] == pytest.approx(whole["overall"][found["metric"]]["value"], abs=1e-6)
    assert found["none"]["value"] == pytest.approx(whole["baselines"]["without_inputs"][found["metric"]]["value"], abs=1e-6)


def test_several_targets_have_a_worth_each(mmtool: Callable, tmp_path: Path) -> None:
    found, told = worth(mmtool, tmp_path, table(tmp_path), "-t", "label", "-t", "sum=regress", *LETTERS,
                        evaluate=("--metric", "mae"))
    assert {column: e["metric"] for column, e in found.items()} == {"label": "accuracy", "sum": "mae"}
    for each in found.values():
        check_sum(each)
        assert each["inputs"]["a"]["cost"]["seconds_per_row"] > 0
    assert "label has no metric 'mae': its inputs are judged by accuracy" in told
    assert "label worth in accuracy" in told
    ran = mmtool("info", tmp_path / "r")
    assert (ran.code, "sum worth in mae" in ran.out) == (0, True)


def test_the_same_command_gives_the_same_worth(mmtool: Callable, tmp_path: Path) -> None:
    data = table(tmp_path, missing=0.2)
    each = []
    for _ in range(2):
        found, _ = worth(mmtool, tmp_path, data, "-t", "label", *LETTERS)
        each.append({**found, "inputs": {n: {**e, "cost": None} for n, e in found["inputs"].items()}})
    assert each[0] == each[1]


def test_times_are_taken_afresh_and_not_from_the_cache(mmtool: Callable, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    data = table(tmp_path)
    assert mmtool("train", data, "-t", "label", "-o", tmp_path / "m.safetensors", *LETTERS).code == 0
    quick = mmtool_tiny.Letters.prepare

    def slow(self: Any, cell: str) -> Any:
        time.sleep(0.004)
        return quick(self, cell)

    monkeypatch.setattr(mmtool_tiny.Letters, "prepare", slow)
    ran = mmtool("eval", tmp_path / "m.safetensors", data, "-o", tmp_path / "r", "--by-input", "--workers", 0)
    assert "30 ok, 0 missing, 0 bad, 30 cached" in ran.err
    cost = metrics(tmp_path / "r")["worth"]["inputs"]["a"]["cost"]
    assert cost["seconds_per_row"] >= 0.004
    assert (cost["cells"], cost["threads"], cost["why"]) == (30, 1, None)
    assert (cost["encoder_bytes"], cost["feature_bytes_per_row"]) == (0, 2 * 4)


def test_weights_are_counted_and_what_is_gone_is_not_measured(mmtool: Callable, tmp_path: Path) -> None:
    from PIL import Image

    lines = [json.loads(line) for line in table(tmp_path, 60).read_text().splitlines()]
    (tmp_path / "media").mkdir()
    for i, line in enumerate(lines):
        Image.new("RGB", (8, 8), (250, 0, 0) if line["label"] == "high" else (0, 0, 250)).save(tmp_path / f"media/{i}.png")
    data = write(tmp_path / "data.jsonl", [{**line, "photo": f"media/{i}.png"} for i, line in enumerate(lines)])
    assert mmtool("extract", data, "-o", tmp_path / "f", "-e", "a=tiny-tied", "-e", "photo=tiny-colour").code == 0
    assert mmtool("train", tmp_path / "f", "-t", "label", "-o", tmp_path / "m.safetensors").code == 0
    for gone in (False, True):
        if gone:
            for path in (tmp_path / "media").iterdir():
                path.unlink()
        ran = mmtool("eval", tmp_path / "m.safetensors", tmp_path / "f", "-o", tmp_path / "r", "--by-input")
        assert ran.code == 0, ran.err
        found = metrics(tmp_path / "r")["worth"]["inputs"]
        assert found["a"]["cost"]["seconds_per_row"] > 0
        assert found["a"]["cost"]["encoder_bytes"] == 4 * 4  # known by two names, held once
        photo = found["photo"]["cost"]
        assert ((photo["seconds_per_row"] is None), photo["why"]) == (gone, "E_CELL_NOT_FOUND: no such file" if gone else None)
        assert ("not measured" in ran.err) == gone
        assert ("photo was not timed: E_CELL_NOT_FOUND: no such file" in (tmp_path / "r/report.html").read_text()) == gone


@pytest.mark.parametrize(("train", "said"), [((), True), (("--modality-dropout", "0.3"), False), (("-f", "late"), False)])
def test_a_model_that_never_missed_an_input_is_said_to(mmtool: Callable, tmp_path: Path, train: tuple[str, ...],
                                                       said: bool) -> None:
    found, told = worth(mmtool, tmp_path, table(tmp_path), "-t", "label", *LETTERS, *train)
    assert found["inputs_never_hidden"] == said
    assert ("Training hid no input from this model" in told) == said


def test_what_was_fused_is_taken_apart_from_the_manifest_only(mmtool: Callable, tmp_path: Path) -> None:
    data = table(tmp_path)
    assert mmtool("extract", data, "-o", tmp_path / "f", *LETTERS).code == 0
    assert mmtool("fuse", tmp_path / "f", "-o", tmp_path / "g", "-f", "concat").code == 0
    assert mmtool("train", tmp_path / "g", "-t", "label", "-o", tmp_path / "m.safetensors").code == 0
    ran = mmtool("eval", tmp_path / "m.safetensors", tmp_path / "g", "-o", tmp_path / "r", "--by-input")
    assert (ran.code, "fused features cannot be taken apart" in ran.err, "give the manifest" in ran.err) == (2, True, True)
    ran = mmtool("eval", tmp_path / "m.safetensors", data, "-o", tmp_path / "r", "--by-input")
    assert ran.code == 0, ran.err
    check_sum(found := metrics(tmp_path / "r")["worth"])
    assert found["inputs"]["a"]["shapley"]["low"] > 0.2


def test_wrong_use_is_refused_before_any_work(mmtool: Callable, tmp_path: Path) -> None:
    data, model = table(tmp_path), tmp_path / "m.safetensors"
    assert mmtool("train", data, "-t", "label", "-o", model, *LETTERS).code == 0
    for more, fact in ((("--by-input", "--metric", "beauty"), "known: accuracy, average_precision"),
                       (("--metric", "accuracy"), "--metric belongs to --by-input")):
        ran = mmtool("eval", model, data, "-o", tmp_path / "r", *more)
        assert (ran.code, fact in ran.err) == (2, True), ran.err
    (tmp_path / "p.jsonl").write_text('{"id": "r0", "prediction": "low"}\n')
    ran = mmtool("eval", tmp_path / "p.jsonl", data, "-o", tmp_path / "r", "-t", "label", "--by-input")
    assert (ran.code, "predictions are made already" in ran.err) == (2, True)
    many = [word for n in range(11) for word in ("-e", f"i{n}@a=tiny-letters")]
    assert mmtool("train", data, "-t", "label", "-o", model, *many).code == 0
    ran = mmtool("eval", model, data, "-o", tmp_path / "r", "--by-input")
    assert (ran.code, "at most 10 inputs; the model has 11" in ran.err) == (2, True)
    assert not (tmp_path / "r").exists()


def test_a_metric_that_means_nothing_is_an_error_with_a_remedy(mmtool: Callable, tmp_path: Path) -> None:
    """A correlation with an answer that never varies is no number."""
    data, model = table(tmp_path), tmp_path / "m.safetensors"
    assert mmtool("train", data, "-t", "sum=regress", "-o", model, *LETTERS).code == 0
    ran = mmtool("eval", model, data, "-o", tmp_path / "r", "--by-input", "--metric", "spearman")
    assert (ran.code, "spearman means nothing on these rows for an answer that sees no input" in ran.err) == (1, True), ran.err
    assert "choose another: --metric NAME" in ran.err
