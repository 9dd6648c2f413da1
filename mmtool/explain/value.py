"""The number that is explained: of a prediction, and of the same prediction with an input changed or missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmtool.api import Task, Tokens
from mmtool.model import Model
from mmtool.network import take


@dataclass(frozen=True)
class Explained:
    """What is explained of one target: the probability of the label `of`, or, where that is None, a number.

    `which` of several numbers; None where there is one.
    """

    task: Task
    of: str | None
    which: int | None = None

    @classmethod
    def choose(cls, task: Task, prediction: Mapping[str, Any]) -> Explained | None:
        """The label that is predicted; of tags the likeliest; of several numbers the first. None where there is neither."""
        probabilities, answer = prediction.get("probabilities"), prediction["prediction"]
        if probabilities:
            known = isinstance(answer, str) and answer in probabilities
            return cls(task, answer if known else max(probabilities, key=lambda label: probabilities[label]))
        several = isinstance(answer, list) and bool(answer)
        number = answer[0] if several else answer
        return cls(task, None, 0 if several else None) if isinstance(number, int | float) else None

    @property
    def baseline(self) -> float:
        """The value without any input."""
        return self._read(self.task.baseline())

    def value(self, prediction: Mapping[str, Any]) -> float:
        """Of one of `Model.predictions`."""
        return self._read(prediction) if prediction["inputs"] else self.baseline

    def _read(self, prediction: Mapping[str, Any]) -> float:
        if self.of is not None:
            return float(prediction["probabilities"].get(self.of, 0.0))
        answer = prediction["prediction"]
        return float(answer if self.which is None else answer[self.which])


def values(model: Model, tokens: Mapping[str, Tokens], explained: Mapping[str, Explained]) -> Tensor:
    """Tokens of N rows -> the values of C targets, `[N, C]`, float64."""
    found = model.predictions(tokens)
    columns = [[e.value(prediction) for prediction in found[column]] for column, e in explained.items()]
    return torch.tensor(columns, dtype=torch.float64).T


def coalition_rows(tokens: Mapping[str, Tokens], coalitions: Sequence[Sequence[str]]) -> dict[str, Tokens]:
    """One row's tokens, once for each coalition of inputs, the others missing."""
    out = {}
    for name, given in take(tokens, [0] * len(coalitions)).items():
        there = torch.tensor([name in coalition for coalition in coalitions]).unsqueeze(1)  # [N, 1]
        out[name] = Tokens(given.values, given.mask & there)
    return out


def variant_rows(tokens: Mapping[str, Tokens], name: str, variants: Tokens) -> dict[str, Tokens]:
    """One row's tokens, once for each variant of one of its inputs."""
    return {**take(tokens, [0] * len(variants.mask)), name: variants}
