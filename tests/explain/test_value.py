"""The number that is explained: the log-odds of a label, told from outputs where they are logits, or a number."""

from __future__ import annotations

import math

import pytest
import torch

from mmtool.explain.value import Explained
from mmtool.tasks.classify import Classify
from mmtool.tasks.regress import Regress
from mmtool.tasks.tag import Tag

USED = [["a"]] * 3


def fitted(task: Classify | Tag | Regress, targets: list[str]) -> Classify | Tag | Regress:
    task.fit(targets)
    return task


@pytest.mark.parametrize("task", [fitted(Classify(), ["x", "y", "z", "x"]), fitted(Tag(min_count=1), ["x|y", "z", "x", "y"])])
def test_log_odds_are_those_of_the_decoded_probability(task: Classify | Tag) -> None:
    outputs = torch.tensor([[1.0, 2.0, -1.0], [0.5, 0.1, 0.2], [-2.0, 1.0, 3.0]], dtype=torch.float64)
    explained = Explained.choose(task, task.decode(outputs)[0])
    assert explained.of == "y"
    decoded = [p["probabilities"]["y"] for p in task.decode(outputs)]
    assert explained.margins(outputs, USED).sigmoid().tolist() == pytest.approx(decoded, abs=1e-6)


def test_a_sure_prediction_still_has_more_and_less_sure_variants() -> None:
    task = fitted(Classify(), ["x", "y"])
    outputs = torch.tensor([[90.0, 0.0], [80.0, 0.0], [70.0, 0.0]])
    assert Explained(task, "x").margins(outputs, USED).tolist() == [90, 80, 70]


def test_outputs_that_are_no_logits_are_read_through_decode() -> None:
    class Squared(Classify):
        def decode(self, outputs: torch.Tensor) -> list[dict]:
            return [self._prediction(p) for p in (outputs.square() / outputs.square().sum(1, keepdim=True)).tolist()]

    task = fitted(Squared(), ["x", "y"])
    found = Explained(task, "x").margins(torch.tensor([[1.0, 1.0], [2.0, 1.0], [0.0, 1.0]]), USED)
    assert found.tolist() == pytest.approx([0, math.log(4), math.log(1e-6)], abs=1e-4)


def test_without_an_input_it_is_the_baseline_s() -> None:
    task = fitted(Classify(), ["x", "y", "y", "y"])
    found = Explained(task, "x").margins(torch.zeros(2, 2), [["a"], []])
    assert found.tolist() == pytest.approx([0, math.log(1 / 3)])


def test_of_several_numbers_the_first() -> None:
    task = fitted(Regress(), ["1|10", "3|30"])
    outputs = torch.tensor([[1.0, -1.0], [0.0, 0.0], [-1.0, 1.0]])
    explained = Explained.choose(task, task.decode(outputs)[0])
    assert (explained.of, explained.which, explained.baseline) == (None, 0, 2)
    assert explained.margins(outputs, USED).tolist() == [3, 2, 1]
