"""The contracts of encoders, fusions and tasks as small named checks: here, in `mmtool plugins check`, in a plugin's tests."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmtool.testing.contract import Check, Outcome, encoder_checks, fusion_checks, task_checks

__all__ = ["Check", "Outcome", "encoder_checks", "fusion_checks", "task_checks"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from mmtool.testing import contract

        return getattr(contract, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
