"""The contract of tasks; plugins import it from `mmtool.api`.

Shapes: B rows, K outputs of a head, U values of an encoded target, R resamples of N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from torch import Tensor, nn

from mmtool.tokens import Tokens

Counts = np.ndarray[Any, np.dtype[np.float64]]
"""How often each of N rows occurs in each of R resamples, `[R, N]`; metrics come back as `[R]`."""


class Task(nn.Module):
    """What is predicted: target codec, head, loss, decoding and metrics. Options are keyword-only, as an encoder's.

    The contract checks fit it on `sample_targets`; the default, small whole numbers, suits classes and numbers alike, and
    a task that reads anything else states its own.
    """

    api: ClassVar[int] = 0
    """Version of this contract that the plugin was written for; it must state one."""
    needs: ClassVar[Literal["pooled", "tokens", "towers"]] = "pooled"
    """What the fusion must return; a task that needs pooled also takes towers."""
    linear: ClassVar[bool] = False
    """Is every head in `heads` one nn.Linear, and the loss convex in the outputs? Then `train` can solve for the optimum."""
    calibrated: ClassVar[bool] = False
    """Are the outputs logits, which a temperature fitted on held-out rows may divide?"""
    conformal: ClassVar[bool] = False
    """Does it have `nonconformity`, `region` and `covers`, so that its models can be asked for a coverage?"""
    main_metric: ClassVar[str] = ""
    """The metric that one line has room for."""
    greater_is_better: ClassVar[bool] = True
    """Of the main metric."""
    sample_targets: ClassVar[Sequence[str]] = ("1", "2", "2", "3", "1", "4", "2", "3", "1", "2")
    """Targets as a column holds them, on which the contract checks try it; ten or so, of several kinds."""
    example: ClassVar[str] = ""
    """Options, as the command line writes them, with which the contract checks build it; of use where one is required."""

    labels: Sequence[str] = ()
    """Classes, tags or names of the outputs, set by `fit` and `set_assets`."""
    heads: nn.ModuleList
    """The heads that `build` makes, in the order of the sorted names of its `dims`."""

    def fit(self, targets: Sequence[str]) -> None:
        """Learn classes, scales or a vocabulary from the training rows' targets, as written. Raises MMToolError."""

    def check(self, target: str) -> None:
        """Raises CellError for a target that says nothing to this task, whatever the other rows hold."""

    def assets(self) -> dict[str, Tensor]:
        """All that was fitted and is no weight, as tensors (text as uint8)."""
        return {}

    def set_assets(self, assets: dict[str, Tensor]) -> None:
        """Take what `assets` gave; called before `build`."""

    def build(self, dims: dict[str, int]) -> None:
        """Make the heads for `{"fused": D}`, or for an entry a tower; called after `fit` or `set_assets`."""
        raise NotImplementedError

    def encode(self, target: str) -> Tensor:
        """One target -> `[U]`; the host pads to `[B, U]`. Raises CellError for one that cannot be read."""
        raise NotImplementedError

    def outputs(self, x: dict[str, Tokens]) -> dict[str, Tensor]:
        """The heads' raw outputs `[B, K]` for each entry of `x`; the default applies `heads` to the pooled tokens."""
        return {name: head(x[name].mean()) for name, head in zip(sorted(x), self.heads, strict=True)}

    def loss(self, outputs: Tensor, y: Tensor, lengths: Tensor) -> Tensor:
        """Outputs `[B, K]`, targets `[B, U]` and their `lengths [B]` -> loss of each row, `[B]`."""
        raise NotImplementedError

    def to_scores(self, outputs: Tensor) -> Tensor:
        """Outputs -> what may be averaged over towers (probabilities, numbers), `[B, K]`."""
        return outputs

    def from_scores(self, scores: Tensor) -> Tensor:
        """The inverse of `to_scores`."""
        return scores

    def settle(self, outputs: Tensor, y: Tensor) -> None:
        """Choose what decoding needs and no weight holds, such as a threshold, by held-out rows: `[N, K]`, `[N, U]`.

        The outputs are calibrated; the default chooses nothing. What was chosen belongs to `assets`.
        """

    def decode(self, outputs: Tensor) -> list[dict[str, Any]]:
        """Outputs `[B, K]` -> each row's `prediction`, and `probability` and `probabilities` where there are any."""
        raise NotImplementedError

    def nonconformity(self, outputs: Tensor, targets: Sequence[str]) -> Tensor:
        """Outputs `[N, K]` as `decode` gets them, targets as written -> how badly each target fits its row, `[N]`, float64.

        inf stands for a target that no prediction can be, such as a class that training never saw.
        """
        raise NotImplementedError

    def region(self, outputs: Tensor, thresholds: Tensor) -> list[dict[str, Any]]:
        """For each row all targets whose nonconformity is at most its threshold, `[N]`; with inf every one there is.

        `{"set": [label, ...]}`, likeliest first, or `{"interval": [low, high]}`, None where it has no end; of several numbers
        a list of such pairs.
        """
        raise NotImplementedError

    def covers(self, region: dict[str, Any], target: str) -> bool:
        """Does a region hold this target, as written?"""
        raise NotImplementedError

    def baseline(self) -> dict[str, Any]:
        """The prediction of one who sees no input: keys as of `decode`."""
        raise NotImplementedError

    def stratum(self, target: str) -> str:
        """Targets of one stratum are spread evenly over splits; the default knows only one."""
        return ""

    def metrics(self, predictions: Sequence[dict[str, Any]], targets: Sequence[str], counts: Counts) -> dict[str, Counts]:
        """N predictions as in a predictions file, N targets as written, `counts [R, N]` -> each metric's values `[R]`.

        NaN stands where a metric means nothing, such as an area under a curve with one class.
        """
        raise NotImplementedError
