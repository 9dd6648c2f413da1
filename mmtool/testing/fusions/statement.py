"""Checks of what a fusion states, and of building it."""

from __future__ import annotations

from mmtool.testing.compare import same_bits
from mmtool.testing.fusions.subject import ALL_DIMS, EQUAL, FusionSubject
from mmtool.testing.statement import is_a_class_of_its_kind
from mmtool.testing.verdicts import fail


def states_what_it_is(subject: FusionSubject) -> None:
    """A class that can be imported and states api, what it takes, what it returns and what it combines."""
    is_a_class_of_its_kind(subject)
    if subject.cls.returns not in ("pooled", "tokens", "towers"):
        fail(f'returns is "pooled", "tokens" or "towers", it is {subject.cls.returns!r}')
    if subject.cls.takes not in ("pooled", "tokens"):
        fail(f'takes is "pooled" or "tokens", it is {subject.cls.takes!r}')
    if subject.cls.combines not in ("scores", "outputs"):
        fail(f'combines is "scores" or "outputs", it is {subject.cls.combines!r}')


def builds_for_any_inputs(subject: FusionSubject) -> None:
    """It can be built for one input and for several, whatever their names and widths, and states `dim`."""
    for dims in ALL_DIMS:
        try:
            fusion = subject.new(dims)
        except (KeyError, ValueError, AttributeError) as error:
            if dims is not EQUAL or "module name" not in str(error):
                raise
            fail(f"an input's name, such as {sorted(dims)[1]!r}, cannot name a module ({error}); keep modules in an "
                 "nn.ModuleList in the order of sorted(dims)")
        if fusion.returns != "towers" and (type(fusion.dim) is not int or fusion.dim < 1):
            fail(f"set self.dim to the width of what comes out, for inputs {dims} it is {fusion.dim!r}")


def same_seed_gives_same_weights(subject: FusionSubject) -> None:
    """Random weights come from torch's generator, which the host seeds."""
    one, other = subject.new(seed=5).state_dict(), subject.new(seed=5).state_dict()
    for name, tensor in one.items():
        if name not in other or not same_bits(tensor, other[name]):
            fail(f"with the same seed, weight {name!r} differs; draw random numbers from torch's own generator, and go "
                 "through inputs in the order of sorted(dims), never of a set")
