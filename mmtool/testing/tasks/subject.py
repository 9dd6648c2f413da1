"""What the checks of a task look at: a task fitted on its sample targets, with heads, and outputs for each target.

Shapes: N sample targets, K outputs of a head, U values of an encoded target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from mmtool.api import Task, Tokens
from mmtool.testing.compare import same_bits
from mmtool.testing.subject import Subject
from mmtool.testing.verdicts import fail

FUSED = {"fused": 8}
TOWERS = {"title": 5, "photo.left": 3}
"""Unsorted: heads stand in the order of the sorted names."""
SPREAD = 3.0
"""The outputs that most checks use are the heads' times this, so that some are large."""


class TaskSubject(Subject):
    """One task under test."""

    kind = "task"
    base = Task
    instead = "a task is built from its options alone, and learns in `fit`"

    def new(self, *, seed: int = 0) -> Task:
        """A fresh one in eval mode, not fitted."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            task: Task = self.cls(**self.options)
        return task.eval()

    @property
    def targets(self) -> list[str]:
        """The sample targets, as written."""
        return list(self.cls.sample_targets)

    def fitted(self, targets: Sequence[str] | None = None) -> Task:
        """A fresh one, fitted, without heads."""
        task = self.new()
        task.fit(self.targets if targets is None else list(targets))
        return task

    def with_heads(self, task: Task, dims: Mapping[str, int], *, seed: int = 0) -> Task:
        """The same task, after `build`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            task.build(dict(dims))
        return task.eval()

    @cached_property
    def task(self) -> Task:
        """The one that most checks share: fitted on the sample targets, with one head."""
        return self.with_heads(self.fitted(), FUSED)

    @property
    def module(self) -> Task:
        """The shared task."""
        return self.task

    @cached_property
    def encoded(self) -> tuple[Tensor, Tensor]:
        """The sample targets, padded as the host does: `y [N, U]` and `lengths [N]`."""
        return pad([self.task.encode(target) for target in self.targets])

    @cached_property
    def outputs(self) -> Tensor:
        """Outputs `[N, K]` of the shared head for made-up tokens."""
        return SPREAD * run(self.task, self.tokens(FUSED))["fused"]

    def tokens(self, dims: Mapping[str, int], *, rows: int | None = None, missing: bool = False) -> dict[str, Tokens]:
        """Made-up tokens, one a row (three where the task needs tokens); with `missing` the first row has none."""
        generator = torch.Generator().manual_seed(0)
        count, steps = rows or len(self.targets), 3 if self.cls.needs == "tokens" else 1
        mask = torch.ones(count, steps, dtype=torch.bool)
        mask[0, :] = not missing
        return {name: Tokens(torch.randn(count, steps, dims[name], generator=generator), mask.clone()) for name in sorted(dims)}

    def use(self) -> None:
        """Fit, encode, and decode what the heads say."""
        self.task.loss(self.outputs, *self.encoded)
        self.task.decode(self.outputs)


def run(task: Task, x: dict[str, Tokens]) -> dict[str, Tensor]:
    """The heads' outputs, without gradients."""
    with torch.no_grad():
        return task.outputs(x)


def pad(encoded: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Encoded targets `[U_i]` -> `y [N, U]`, padded with zeros, and `lengths [N]`."""
    return nn.utils.rnn.pad_sequence(list(encoded), batch_first=True), torch.tensor([len(e) for e in encoded])


def check_assets(assets: Any) -> dict[str, Tensor]:
    """The assets, if they are a dict of tensors."""
    if not isinstance(assets, dict) or not all(isinstance(v, Tensor) for v in assets.values()):
        fail("assets must be a dict of tensors (text as uint8), such as {\"scale\": torch.tensor([1.5])}")
    return assets


def same_assets(a: Mapping[str, Tensor], b: Mapping[str, Tensor], tolerance: float = 0.0) -> str | None:
    """The name of an asset that differs; floating ones may by `tolerance` of their largest magnitude."""
    for name in sorted({*a, *b}):
        if name not in a or name not in b:
            return name
        x, y = a[name], b[name]
        if tolerance and x.is_floating_point() and x.shape == y.shape and x.dtype == y.dtype and x.numel():
            if float((x - y).abs().max()) > tolerance * float(x.abs().max()):
                return name
        elif not same_bits(x, y):
            return name
    return None
