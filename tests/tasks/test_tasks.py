"""Tasks: targets in and out, and metrics against scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as sk

from mmtool.api import CellError, MMToolError, Task
from mmtool.metrics.bootstrap import measure
from mmtool.tasks.classify import Classify
from mmtool.tasks.codec import split_cell
from mmtool.tasks.regress import Regress
from mmtool.tasks.tag import Tag
from mmtool.testing import task_checks
from mmtool.training.targets import choose, parse

RNG = np.random.default_rng(0)


class SeveralNumbers(Regress):
    sample_targets = ("1|2", "[3, 5.5]", "4|-4", "0|1e3", "2|2", "[7, 1]")


class Default(Classify):
    sample_targets = Task.sample_targets


@pytest.mark.parametrize("task", ["classify", "classify:0.1,class_weights=balanced", "tag", "tag:1,threshold=0.3", "regress",
                                  SeveralNumbers, Default])
def test_a_task_keeps_the_contract(task: Any) -> None:
    outcomes = {str(check): check.run() for check in task_checks(task)}
    assert [f"{o.check}: {o.reason}" for o in outcomes.values() if o.status == "failed"] == []
    skipped = {name for name, o in outcomes.items() if o.status == "skipped"} - {"agrees-on-cuda"}
    assert skipped <= {"is-calibrated-as-stated"}


def test_a_fitted_task_refuses_numbers_of_another_width_before_they_are_measured() -> None:
    task = Regress()
    task.check("1|2")
    task.fit(["1", "2", "4"])
    with pytest.raises(CellError, match="2 numbers, not 1"):
        task.check("1|2")


@pytest.mark.parametrize("cell", ["[" * 100_000, f"[{'9' * 400}]", f"[{'9' * 5000}]"])
def test_a_hostile_cell_is_no_number_and_ends_nothing(cell: str) -> None:
    with pytest.raises(CellError, match="no number"):
        Regress().check(cell)
    Tag().check(cell)
    assert split_cell(cell)


def values(task: Task, predictions: list[dict[str, Any]], targets: list[str], counts: Any = None) -> dict[str, float]:
    counts = np.ones((1, len(targets))) if counts is None else counts
    return {k: float(v[0]) for k, v in task.metrics(predictions, targets, counts).items()}


@pytest.mark.parametrize("classes", [2, 4])
def test_classification_metrics_are_scikit_learns(classes: int) -> None:
    y = np.concatenate([np.arange(classes), RNG.integers(0, classes, 60)])
    p = RNG.dirichlet(np.ones(classes), len(y)).round(2)
    p[:, -1] = 1 - p[:, :-1].sum(1)
    p = p.clip(1e-3).round(3)
    names = [f"c{i}" for i in range(classes)]
    task = Classify()
    task.fit([names[i] for i in y])
    predictions = [{"prediction": names[row.argmax()], "probabilities": dict(zip(names, row, strict=True))} for row in p]
    found = values(task, predictions, [names[i] for i in y])
    guess = p.argmax(1)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(y, guess))
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, guess))
    for average in ("macro", "micro", "weighted"):
        for name, of in (("f1", sk.f1_score), ("precision", sk.precision_score), ("recall", sk.recall_score)):
            assert found[f"{name}_{average}"] == pytest.approx(of(y, guess, average=average, zero_division=0))
    one_hot = np.eye(classes)[y]
    assert found["roc_auc"] == pytest.approx(np.mean([sk.roc_auc_score(one_hot[:, c], p[:, c]) for c in range(classes)]))
    assert found["average_precision"] == pytest.approx(
        np.mean([sk.average_precision_score(one_hot[:, c], p[:, c]) for c in range(classes)]))
    assert found["log_loss"] == pytest.approx(-np.log(p[np.arange(len(y)), y]).mean())
    brier = ((p - one_hot) ** 2).sum(1).mean() / (2 if classes == 2 else 1)
    assert found["brier"] == pytest.approx(brier)


def test_counting_a_row_twice_is_the_same_as_having_it_twice() -> None:
    task = Classify()
    task.fit(["a", "b", "c"])
    y = ["a", "b", "c", "a", "b", "a"]
    predictions = [{"prediction": g, "probabilities": {g: 0.6, "a": 0.4} if g != "a" else {"a": 0.9, "b": 0.1}}
                   for g in ("a", "b", "b", "c", "a", "a")]
    counts = [2, 1, 3, 0, 1, 1]
    repeated = [i for i, n in enumerate(counts) for _ in range(n)]
    one = values(task, predictions, y, np.array([counts], dtype=float))
    other = values(task, [predictions[i] for i in repeated], [y[i] for i in repeated])
    assert one == pytest.approx(other)


def test_tagging_metrics_are_scikit_learns() -> None:
    y, p = RNG.integers(0, 2, (50, 3)).astype(bool), RNG.random((50, 3)).round(3)
    names = ["x", "y", "z"]
    targets = ["|".join(n for n, on in zip(names, row, strict=True) if on) for row in y]
    task = Tag(min_count=1)
    task.fit([t for t in targets if t])
    predictions = [{"prediction": [n for n, q in zip(names, row, strict=True) if q >= 0.5],
                    "probabilities": dict(zip(names, row, strict=True))} for row in p]
    found = values(task, predictions, targets)
    for average in ("macro", "micro", "weighted"):
        assert found[f"f1_{average}"] == pytest.approx(sk.f1_score(y, p >= 0.5, average=average))
    assert found["subset_accuracy"] == pytest.approx(sk.accuracy_score(y, p >= 0.5))
    assert found["hamming_loss"] == pytest.approx(sk.hamming_loss(y, p >= 0.5))
    assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(y, p))
    assert found["average_precision"] == pytest.approx(sk.average_precision_score(y, p))


def test_regression_metrics_are_scikit_learns() -> None:
    y = RNG.normal(size=40).round(1)
    guess = (y + RNG.normal(size=40)).round(1)
    task = Regress()
    task.fit([str(v) for v in y])
    found = values(task, [{"prediction": v} for v in guess.tolist()], [str(v) for v in y])
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(y, guess))
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(y, guess))
    assert found["r2"] == pytest.approx(sk.r2_score(y, guess))
    assert found["spearman"] == pytest.approx(stats.spearmanr(y, guess).statistic)


def test_intervals_hold_the_value_and_are_the_same_twice() -> None:
    task = Classify()
    targets = ["a", "b"] * 50
    task.fit(targets)
    predictions = [{"prediction": t if i % 10 else "a", "probabilities": {}} for i, t in enumerate(targets)]
    found = measure(task, predictions, targets)
    assert found["accuracy"]["low"] <= found["accuracy"]["value"] <= found["accuracy"]["high"]
    assert found == measure(task, predictions, targets)
    assert "roc_auc" not in found


@pytest.mark.parametrize(("task", "targets", "outputs"), [
    (Classify(), ["cat", "dog", "cat", "ox"], torch.tensor([[9.0, 0, 0], [0, 9, 0], [9, 0, 0], [0, 0, 9]])),
    (Tag(min_count=1), ["a|b", '["b"]', "c"], torch.tensor([[9.0, 9, -9], [-9, 9, -9], [-9, -9, 9]])),
    (Regress(), ["1", "2.5", "4"], None), (Regress(), ["1|2", "[3, 5]", "4|4"], None)])
def test_targets_survive_the_round_trip_and_so_do_assets(task: Task, targets: list[str], outputs: torch.Tensor) -> None:
    task.fit(targets)
    again = type(task)()
    again.set_assets(task.assets())
    y = torch.stack([again.encode(t) for t in targets])
    decoded = [p["prediction"] for p in again.decode(y if outputs is None else outputs)]
    assert values(task, again.decode(y if outputs is None else outputs), targets)[task.main_metric] == pytest.approx(1)
    assert len(decoded) == len(targets)
    assert list(again.labels) == list(task.labels)


def test_what_cannot_be_learned_is_refused() -> None:
    with pytest.raises(MMToolError, match="every training row has 'a'"):
        Classify().fit(["a", "a"])
    with pytest.raises(MMToolError, match="no tag occurs 3 times"):
        Tag(min_count=3).fit(["a|b", "a"])
    with pytest.raises(MMToolError, match="every training row has the number 2"):
        Regress().fit(["2", "2.0"])
    with pytest.raises(CellError, match="no number"):
        Regress().check("much")


@pytest.mark.parametrize(("targets", "task"), [
    (["a", "b", "a", "b"], "classify"), (["1", "2", "1", "3"], "classify"), ([str(i / 7) for i in range(30)], "regress"),
    (["a|b", "b|c", "a"], "tag"), (["1|2", "3|4"], "regress"), ([str(i) for i in range(40)], "regress")])
def test_auto_decides_by_the_column(targets: list[str], task: str) -> None:
    assert choose(targets)[0] == task


def test_free_text_is_no_target() -> None:
    with pytest.raises(MMToolError, match="no class to learn"):
        choose([f"text number {i}" for i in range(30)])


def test_a_target_is_a_column_and_maybe_a_task() -> None:
    assert parse("a=b", ["a=b"]) == ("a=b", "auto")
    assert parse("k=tag:min_count=50", ["k"]) == ("k", "tag:min_count=50")
    with pytest.raises(MMToolError, match="no column 'q'"):
        parse("q=classify", ["k"])
