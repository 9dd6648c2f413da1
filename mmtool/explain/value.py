"""The numbers that are explained: of a prediction, and of the same prediction with an input changed or missing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmtool.api import Task, Tokens
from mmtool.model import Model
from mmtool.network import take

SMALLEST = 1e-6
"""Of a probability whose log-odds are taken; what `decode` rounds to."""
SUREST = 4.0
"""Log-odds of 98 %."""


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

    def margins(self, outputs: Tensor, used: Sequence[Sequence[str]]) -> Tensor:
        """Outputs `[N, K]` -> the log-odds of `of`, or the number, `[N]`, float64; the baseline's where no input was `used`.

        Log-odds come from the outputs where these prove to be logits: a probability near 1 hides what made it so sure.
        """
        found = self.task.decode(outputs)
        values = torch.tensor([self._read(f) for f in found], dtype=torch.float64)
        empty = self.baseline
        if self.of is not None:
            empty = math.log(max(empty, SMALLEST)) - math.log(max(1 - empty, SMALLEST))
            logits = [m for m in _log_odds(outputs.double(), self._number()) if m.sigmoid().sub(values).abs().max() < 1e-5]
            values = logits[0] if logits else values.clamp(SMALLEST, 1 - SMALLEST).logit()
        return torch.where(torch.tensor([bool(u) for u in used]), values, empty)

    def _number(self) -> int:
        labels = list(self.task.labels)
        return labels.index(self.of) if self.of in labels else -1

    def _read(self, prediction: Mapping[str, Any]) -> float:
        if self.of is not None:
            return float(prediction["probabilities"].get(self.of, 0.0))
        answer = prediction["prediction"]
        return float(answer if self.which is None else answer[self.which])


def _log_odds(outputs: Tensor, number: int) -> list[Tensor]:
    """What they may be, `[N]` each: of one label among others (softmax), and of one by itself (sigmoid)."""
    if not 0 <= number < outputs.shape[1]:
        return []
    others = torch.cat([outputs[:, :number], outputs[:, number + 1 :]], 1)  # [N, K - 1]
    alone = outputs[:, number]
    return [alone - others.logsumexp(1), alone] if others.shape[1] else [alone]


def values(model: Model, tokens: Mapping[str, Tokens], explained: Mapping[str, Explained]) -> Tensor:
    """Tokens of N rows -> the probabilities or numbers of C targets, `[N, C]`, float64."""
    found = model.predictions(tokens)
    columns = [[e.value(prediction) for prediction in found[column]] for column, e in explained.items()]
    return torch.tensor(columns, dtype=torch.float64).T


def margins(model: Model, tokens: Mapping[str, Tokens], explained: Mapping[str, Explained]) -> Tensor:
    """Tokens of N rows -> the log-odds or numbers of C targets, `[N, C]`, float64."""
    outputs, used = model.outputs(tokens)
    return torch.stack([e.margins(outputs[column], used) for column, e in explained.items()], 1)


def shown(found: Tensor, whole: Tensor, explained: Mapping[str, Explained]) -> Tensor:
    """Margins of variants `[N, C]` and of the row as it is `[1, C]` -> what parts are scored by: probabilities or numbers.

    Of a prediction surer than `SUREST` in log-odds all log-odds are divided so that it is as sure: else nothing would be seen.
    """
    tempered = (found / (whole.abs() / SUREST).clamp(min=1)).sigmoid()
    return torch.where(torch.tensor([e.of is not None for e in explained.values()]), tempered, found)


def variant_rows(tokens: Mapping[str, Tokens], name: str, variants: Tokens) -> dict[str, Tokens]:
    """One row's tokens, once for each variant of one of its inputs, the others as they are."""
    return {**take(tokens, [0] * len(variants.mask)), name: variants}


def coalition_rows(tokens: Mapping[str, Tokens], coalitions: Sequence[Sequence[str]]) -> dict[str, Tokens]:
    """One row's tokens, once for each coalition of inputs, the others missing."""
    out = {}
    for name, given in take(tokens, [0] * len(coalitions)).items():
        there = torch.tensor([name in coalition for coalition in coalitions]).unsqueeze(1)  # [N, 1]
        out[name] = Tokens(given.values, given.mask & there)
    return out
