"""The contract of fusions; plugins import it from `mmtool.api`.

Shapes: B rows, T_i tokens of width D_i for input i, K outputs of a head.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from mmtool.tokens import Tokens


class Fusion(nn.Module):
    """Tokens of several inputs -> one vector, or tokens, a row. Options are the keyword-only arguments of `__init__`.

    A missing input (an all-False mask row) changes the result by its absence alone, and never gives NaN.
    """

    api: ClassVar[int] = 0
    """Version of this contract that the plugin was written for; it must state one."""
    returns: ClassVar[Literal["pooled", "tokens", "towers"]] = "pooled"
    """pooled: T = 1; tokens: several; towers: a dict with one output an input, whose predictions `combine` makes one."""
    takes: ClassVar[Literal["pooled", "tokens"]] = "pooled"
    """pooled: one vector an input, of several tokens the mean; tokens: each of them, where they were kept."""
    combines: ClassVar[Literal["scores", "outputs"]] = "scores"
    """Towers only, what `combine` gets: scores (`Task.to_scores`: probabilities, numbers), or the heads' raw outputs."""
    example: ClassVar[str] = ""
    """Options, as the command line writes them, with which the contract checks build it; of use where one is required."""

    dim: int = 0
    """D of what comes out (pooled and tokens)."""

    def __init__(self, dims: dict[str, int]) -> None:
        """`dims`: the width of each input's tokens, at least one; layouts follow sorted names."""
        super().__init__()
        self.dims = {name: dims[name] for name in sorted(dims)}

    def fit(self, inputs: dict[str, Tokens]) -> None:
        """Learn, without labels and by no gradient, from the standardised tokens of the training rows, once. Optional.

        What is learned belongs in buffers that `__init__` registers in their final shapes, so that files keep it.
        """

    def forward(self, inputs: dict[str, Tokens]) -> Tokens | dict[str, Tokens]:
        """`inputs`: tokens `[B, T_i, D_i]` of every input in `dims`."""
        raise NotImplementedError

    def combine(self, scores: dict[str, Tensor], present: dict[str, Tensor]) -> Tensor:
        """Towers only: each tower's scores `[B, K]` and whether its input is there `[B]` -> `[B, K]`, of the same kind."""
        raise NotImplementedError

    @classmethod
    def needs_fit(cls) -> bool:
        """Does this fusion learn something in `fit`?"""
        return cls.fit is not Fusion.fit
