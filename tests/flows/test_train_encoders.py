"""Encoders that are trained, or fitted in each fold, through the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from flows.made import LETTERS, metrics, table
from safetensors import safe_open
from safetensors.torch import load_file

LEARNED = ("-e", "a=tiny-learned", "-e", "b=tiny-learned", "--epochs", "12", "--lr", "0.05")


def header(path: Path) -> dict:
    with safe_open(path, framework="pt") as f:
        return json.loads(f.metadata()["mmtool"])


def test_random_encoders_are_trained_and_travel_in_the_model(mmtool: Callable, tmp_path: Path) -> None:
    data, model = table(tmp_path), tmp_path / "m.safetensors"
    ran = mmtool("train", data, "--target", "label", "-o", model, *LEARNED)
    assert ran.code == 0, ran.err
    ran = mmtool("eval", model, data, "-o", tmp_path / "r")
    assert ran.code == 0, ran.err
    assert metrics(tmp_path / "r")["overall"]["accuracy"]["value"] == 1
    assert header(model)["inputs"]["a"]["weights"] == "trained"
    one, other = (json.loads(mmtool("predict", "-m", model, "--input", f"a={a}", "--json").out) for a in "az")
    assert (one["prediction"], other["prediction"]) == ("low", "high")
    assert not (tmp_path / "m.safetensors.partial").exists()


def test_what_eval_scores_is_what_was_trained(mmtool: Callable, tmp_path: Path) -> None:
    data, model = table(tmp_path, 200, missing=0.3), tmp_path / "m.safetensors"
    assert mmtool("train", data, "--target", "xor", "-o", model, *LEARNED, "-f", "gated", "--dense", "16").code == 0
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    val = tmp_path / "val.jsonl"
    val.write_text("".join(json.dumps({**r, "split": "test"}) + "\n" for r in rows if r["split"] == "val"))
    assert mmtool("eval", model, val, "-o", tmp_path / "r").code == 0
    assert metrics(tmp_path / "r")["overall"]["accuracy"] == header(model)["metrics"]["overall"]["accuracy"]
    assert metrics(tmp_path / "r")["by_inputs"]["a"]["accuracy"] == header(model)["metrics"]["by_inputs"]["a"]["accuracy"]


def test_a_pretrained_encoder_is_tuned_when_asked(mmtool: Callable, tmp_path: Path) -> None:
    data = table(tmp_path)
    told = ("--finetune", "a", "--epochs", "60", "--patience", "60", "--batch-rows", "8", "--encoder-lr", "0.05", "--lr", "0.1")
    for name, more in (("frozen", ()), ("tuned", told)):
        ran = mmtool("train", data, "--target", "label", "-o", tmp_path / f"{name}.safetensors", "-e", "a=tiny-tied:1e-10",
                     "-e", "b=tiny-letters", *more)  # this one's weights all but hide the letters
        assert ran.code == 0, ran.err
    assert "heads begin where L-BFGS left them" in ran.err
    frozen, tuned = (load_file(tmp_path / f"{name}.safetensors") for name in ("frozen", "tuned"))
    assert not any(k.startswith("weights/") for k in frozen)
    assert [k for k in tuned if k.startswith("weights/")] == ["weights/a/same"]  # tied: one of the two is kept
    assert header(tmp_path / "tuned.safetensors")["tied"] == {"weights/a/scale": "weights/a/same"}
    found = {}
    for name in ("frozen", "tuned"):
        assert mmtool("eval", tmp_path / f"{name}.safetensors", data, "-o", tmp_path / "r").code == 0
        found[name] = metrics(tmp_path / "r")["overall"]["accuracy"]["value"]
    assert found["frozen"] < 0.8
    assert found["tuned"] > 0.95


def test_tuning_that_helps_nothing_leaves_the_solved_heads(mmtool: Callable, tmp_path: Path) -> None:
    data, model = table(tmp_path), tmp_path / "m.safetensors"
    ran = mmtool("train", data, "--target", "label", "-o", model, "-e", "a=tiny-tied", "--finetune", "a", "--epochs", "3",
                 "--lr", "10", "--encoder-lr", "10", "--clip", "0")
    assert ran.code == 0, ran.err
    assert "best epoch 0 of 3" in ran.err
    assert header(model)["metrics"]["overall"]["accuracy"]["value"] == 1


def test_features_of_trained_encoders_carry_their_weights(mmtool: Callable, tmp_path: Path) -> None:
    data, model = table(tmp_path), tmp_path / "m.safetensors"
    assert mmtool("train", data, "--target", "label", "-o", model, *LEARNED).code == 0
    assert mmtool("extract", data, "-o", tmp_path / "f", "-m", model).code == 0
    assert mmtool("eval", model, tmp_path / "f", "-o", tmp_path / "r").code == 0
    assert mmtool("eval", model, data, "-o", tmp_path / "r2").code == 0
    assert metrics(tmp_path / "r") == metrics(tmp_path / "r2")
    again = tmp_path / "again.safetensors"  # a model on such features is as complete as the first
    assert mmtool("train", tmp_path / "f", "--target", "other", "-o", again).code == 0
    assert json.loads(mmtool("predict", "-m", again, "--input", "a=a", "--json").out)["inputs"] == ["a"]


def test_encoders_that_learn_from_rows_need_no_split_and_see_no_held_out_row(mmtool: Callable, tmp_path: Path) -> None:
    data, model = table(tmp_path, 100, split=False), tmp_path / "m.safetensors"
    ran = mmtool("train", data, "--target", "label", "-o", model, "-e", "a=tiny-letters", "-e", "n@number+colour=table",
                 "-e", "b=tiny-counted")
    assert ran.code == 0, ran.err
    assert load_file(model)["encoder/b/count"].tolist() == [80]  # all learning rows, and no test row
    assert mmtool("eval", model, data, "-o", tmp_path / "r").code == 0
    assert 0 < metrics(tmp_path / "r")["rows"] <= 20  # a test row that equals a training row is none
    assert header(model)["inputs"]["n"]["fitted"] is True


def test_a_bundled_model_needs_no_weights_of_its_encoders(mmtool: Callable, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    import mmtool_tiny

    data = table(tmp_path)
    for name, more in (("plain", ()), ("bundle", ("--bundle",))):
        ran = mmtool("train", data, "--target", "label", "-o", tmp_path / f"{name}.safetensors", "-e", "a=tiny-tied", *more)
        assert ran.code == 0, ran.err

    def absent(self: object) -> None:
        raise FileNotFoundError("the weight package is not installed")

    monkeypatch.setattr(mmtool_tiny.Tied, "load", absent)
    ran = mmtool("predict", "-m", tmp_path / "plain.safetensors", "--input", "a=z")
    assert ran.code != 0
    assert "weight package is not installed" in ran.err
    ran = mmtool("predict", "-m", tmp_path / "bundle.safetensors", "--input", "a=z", "--json")
    assert json.loads(ran.out)["prediction"] == "high", ran.err
    assert "weights in this file" in mmtool("info", tmp_path / "bundle.safetensors").out


def test_a_bundle_holds_encoders_as_they_were_fitted(mmtool: Callable, tmp_path: Path) -> None:
    data, model = table(tmp_path), tmp_path / "m.safetensors"
    assert mmtool("train", data, "-t", "label", "-o", model, "-e", "a=tiny-letters", "-e", "b=tiny-sized", "--bundle").code == 0
    assert load_file(model)["weights/b/ones"].shape == (90,)
    ran = mmtool("predict", "-m", model, "--input", "a=z", "--input", "b=z", "--json")
    assert json.loads(ran.out)["inputs"] == ["a", "b"], ran.err


def test_like_repeats_a_run_to_the_byte_and_takes_what_is_said_instead(mmtool: Callable, tmp_path: Path) -> None:
    data = table(tmp_path, missing=0.1)
    first, same, other = (tmp_path / f"{n}.safetensors" for n in ("first", "same", "other"))
    told = ("-t", "label", "-t", "sum=regress", "-f", "gated:dim=8", "--dense", "6", "--epochs", "3",
            "--label-smoothing", "0.1", "--seed", "3", "-e", "a=tiny-learned", "-e", "n@number+colour=table",
            "--modality-dropout", "0.2")
    ran = mmtool("train", data, "-o", first, *told)
    assert ran.code == 0, ran.err
    ran = mmtool("train", data, "-o", same, "--like", first)
    assert ran.code == 0, ran.err
    assert first.read_bytes() == same.read_bytes()
    assert mmtool("train", data, "-o", other, "--like", first, "--seed", "4", "-t", "xor").code == 0
    assert set(header(other)["tasks"]) == {"xor"}
    assert header(other)["tasks"]["xor"]["options"]["label_smoothing"] == 0  # it belonged to the targets that were replaced
    assert (header(other)["recipe"]["seed"], header(other)["hidden"]) == (4, [6])


@pytest.mark.parametrize("told", [("-t", "xor", "-t", "label", "-f", "gated", "--epochs", "2"),
                                  ("-t", "sum", "-t", "label", "--optimizer", "adamw", "--epochs", "2", "--folds", "3"),
                                  ("-t", "label", "--bundle")])
def test_like_repeats_whatever_the_order_and_the_bundle(mmtool: Callable, tmp_path: Path, told: tuple[str, ...]) -> None:
    data, first, same = table(tmp_path), tmp_path / "first.safetensors", tmp_path / "same.safetensors"
    assert mmtool("train", data, "-o", first, "-e", "b=tiny-letters", "-e", "a=tiny-tied", *told).code == 0
    ran = mmtool("train", data, "-o", same, "--like", first)
    assert ran.code == 0, ran.err
    assert first.read_bytes() == same.read_bytes()


def test_options_of_targets_that_are_said_count_with_like(mmtool: Callable, tmp_path: Path) -> None:
    data, first, other = table(tmp_path), tmp_path / "first.safetensors", tmp_path / "other.safetensors"
    assert mmtool("train", data, "-o", first, *LETTERS, "-t", "label", "--label-smoothing", "0.1").code == 0
    assert mmtool("train", data, "-o", other, "--like", first, "-t", "xor", "--label-smoothing", "0.3").code == 0
    assert header(other)["tasks"]["xor"]["options"]["label_smoothing"] == 0.3
    assert mmtool("train", data, "-o", other, "--like", first, "--label-smoothing", "0.3").code == 0
    assert header(other)["tasks"]["label"]["options"]["label_smoothing"] == 0.3
    ran = mmtool("train", data, "-o", other, "--like", first, "-t", "sum=regress")  # which knows no label smoothing
    assert ran.code == 0, ran.err


@pytest.mark.parametrize(("told", "fact"), [
    (("--finetune", "c"), "no such input"),
    (("--finetune", "a"), "no weights that PyTorch could train"),
    (("--augment", "a=drop"), "its encoder is not trained"),
    (("-e", "n@number+colour=table", "--finetune", "n"), "no weights that PyTorch could train"),
    (("--weights", "a=pyproject.toml"), "--weights belongs to"),
    (("--dense", "x"), "no list of widths"),
    (("--lr", "-1"), "means nothing"),
    (("--encoder-lr", "nan"), "means nothing"),
    (("--weight-decay", "inf"), "means nothing"),
    (("-f", "gated:dim=0"), "no width"),
    (("-f", "sum:dim=-3"), "no width"),
    (("-f", "attention:hidden=0"), "no width"),
    (("--schedule", "sometimes"), "is not known"),
    (("--precision", "fp16"), "needs a GPU"),
    (("--loss-weighting", "uncertainty"), "name another --target"),
])
def test_what_means_nothing_is_refused_before_any_work(mmtool: Callable, tmp_path: Path, told: tuple[str, ...],
                                                       fact: str) -> None:
    ran = mmtool("train", table(tmp_path), "-t", "label", "-o", tmp_path / "m.safetensors", *LETTERS, "--device", "cpu", *told)
    assert ran.code in (1, 2)
    assert fact in ran.err
    assert not list(tmp_path.glob("*.partial"))


def test_options_of_a_descent_that_change_nothing_are_named(mmtool: Callable, tmp_path: Path) -> None:
    ran = mmtool("train", table(tmp_path), "-t", "label", "-o", tmp_path / "m.safetensors", *LETTERS, "--lr", "0.1",
                 "--tensorboard", tmp_path / "board")
    assert "nothing was descended, so lr, tensorboard changed nothing" in ran.err


def test_a_loss_that_is_no_number_names_rows(mmtool: Callable, tmp_path: Path) -> None:
    ran = mmtool("train", table(tmp_path), "-t", "label", "-o", tmp_path / "m.safetensors", *LEARNED[:4],
                 "--lr", "1e25", "--clip", "0", "--optimizer", "sgd", "--batch-rows", "8")
    assert ran.code == 1
    assert "in the batch of the rows 'r" in ran.err


@pytest.mark.parametrize("told", [("--optimizer", "sgd", "--lr", "0.5"), ("--optimizer", "adam"), ("--schedule", "linear"),
                                  ("--schedule", "step"), ("--schedule", "constant", "--warmup", "0.5"), ("--l1", "0.001"),
                                  ("--accumulate", "3"), ("--precision", "bf16"), ("--dropout", "0.2"), ("--clip", "0")])
def test_every_option_of_a_descent_still_learns(mmtool: Callable, tmp_path: Path, told: tuple[str, ...]) -> None:
    model = tmp_path / "m.safetensors"
    ran = mmtool("train", table(tmp_path), "-t", "label", "-o", model, *LEARNED, "--batch-rows", "16", *told)
    assert ran.code == 0, ran.err
    assert header(model)["metrics"]["overall"]["accuracy"]["value"] > 0.9


def test_l1_makes_weights_small(mmtool: Callable, tmp_path: Path) -> None:
    sizes = []
    for strength in ("0", "0.1"):
        model = tmp_path / "m.safetensors"
        assert mmtool("train", table(tmp_path), "-t", "label", "-o", model, *LEARNED, "--l1", strength).code == 0
        sizes.append(float(load_file(model)["network/tasks.0.heads.0.weight"].abs().sum()))
    assert sizes[1] < 0.5 * sizes[0]


def test_a_descent_is_logged_for_tensorboard(mmtool: Callable, tmp_path: Path) -> None:
    board = tmp_path / "board"
    ran = mmtool("train", table(tmp_path), "-t", "label", "-o", tmp_path / "m.safetensors", *LEARNED, "--tensorboard", board)
    assert ran.code == 0, ran.err
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(board / "part-1-of-1"))
    events.Reload()
    assert len(events.Scalars("loss/epoch")) == len(events.Scalars("loss/held-out")) == 12
    assert events.Scalars("held-out/accuracy")[-1].value > 0.9
