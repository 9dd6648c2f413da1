"""The contract of encoders as small named checks: here, in `mmtool plugins check`, and in a plugin's own tests."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmtool.testing.contract import Check, Outcome, encoder_checks

__all__ = ["Check", "Outcome", "encoder_checks"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from mmtool.testing import contract

        return getattr(contract, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
