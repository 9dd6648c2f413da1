"""What can be refused before anything long begins."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mmtool import conformal, encoding
from mmtool.api import Task
from mmtool.errors import DataError, MMToolError, PluginError, UsageError
from mmtool.extract import parse_max_bad
from mmtool.inputs import Input
from mmtool.settings import Settings
from mmtool.training.recipe import OPTIMIZERS, SCHEDULES
from mmtool.training.watching import check_board

WORDS = {"schedule": tuple(SCHEDULES), "loss_weighting": ("equal", "uncertainty"), "precision": ("fp32", "bf16", "fp16")}


def check(settings: Settings, device: torch.device) -> None:
    """Raises UsageError for settings that mean nothing, or contradict each other."""
    if settings.optimizer not in ("auto", *OPTIMIZERS):
        raise UsageError(f"--optimizer {settings.optimizer!r} is not known", "use auto, " + ", ".join(OPTIMIZERS))
    for name, words in WORDS.items():
        if (said := settings.given.get(name, words[0])) not in words:
            raise UsageError(f"--{name.replace('_', '-')} {said!r} is not known", "use " + ", ".join(words))
    for name, value in settings.given.items():
        if isinstance(value, float) and not (math.isfinite(value) and (value > 0 or name not in ("lr", "encoder_lr"))):
            raise UsageError(f"--{name.replace('_', '-')} {value} means nothing", "give a number above 0")
    if settings.given.get("precision") == "fp16" and device.type == "cpu":
        raise UsageError("--precision fp16 needs a GPU", "use bf16, or fp32")
    if settings.given.get("loss_weighting") == "uncertainty" and len(settings.targets) < 2:
        raise UsageError("--loss-weighting uncertainty weighs several targets against each other", "name another --target")
    if settings.folds is not None and settings.folds < 2:
        raise UsageError(f"--folds {settings.folds} leaves nothing to hold out", "use at least 2")
    if settings.conformal is not None:
        conformal.check_coverage(settings.conformal, "--conformal")
    if not settings.targets:
        raise UsageError("nothing to predict is named", "name a column: --target COLUMN, or a model: --like MODEL")
    if any(width < 1 for width in settings.hidden):
        raise UsageError("--dense takes widths of at least 1", "such as --dense 128, or --dense 256,64")
    if settings.search and settings.fusion != "auto":
        raise UsageError("--search tries settings of the fusions that -f auto compares", "add -f auto, or leave it out")
    if settings.search:
        _check_optuna()
    parse_max_bad(settings.extraction.max_bad)
    if settings.tensorboard is not None:
        check_board()


def _check_optuna() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise PluginError("--search needs the package optuna", "pip install 'mmtool[search]'", code="E_PACKAGE") from error


def check_bundle(inputs: Sequence[Input], seed: int) -> None:
    """Raises MMToolError for an encoder whose weights are not PyTorch's, before anything is trained."""
    for item in inputs:
        built = encoding.build(item.encoder, seed=seed)
        if built.encoder.weights_sha256:
            raise DataError(f"input {item.name!r}: the weights of {built.spec} are not PyTorch's and cannot be bundled",
                            "leave --bundle out, or take another encoder")


def check_frozen(name: str, fusion: Any, trained: Sequence[str]) -> None:
    """Raises UsageError where a fusion is fitted on features that training would change under it."""
    if fusion.needs_fit() and trained:
        raise UsageError(f"fusion {name!r} learns from features before training, and the encoder of {trained[0]!r} is trained, "
                         "which changes them", "train it with another fusion, then `extract -m` that model and train on that")


def check_fit(name: str, fusion: Any, tasks: Mapping[str, Task]) -> None:
    """Raises MMToolError where a fusion does not return what a task needs."""
    for column, task in tasks.items():
        if fusion.returns == "tokens" or task.needs == "tokens" or (task.needs == "towers" and fusion.returns != "towers"):
            raise MMToolError(f"fusion {name!r} returns {fusion.returns}, the task of {column!r} needs {task.needs}",
                              "choose another fusion", code="E_TASK_NEEDS")
