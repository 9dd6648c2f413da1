"""Building networks that a file's header describes, with no more memory than the file's own tensors can ask for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmtool.strictjson import Unsound

SLACK_BYTES, SLACK_NUMBERS, OPERATION = 256 << 20, 4, 8192
"""Bytes that building may take besides, numbers for each one of the file, and what an operation counts as, in bytes."""
SQUARE = ("eye", "tril_indices", "triu_indices")
LENGTHS = ("arange", "linspace", "logspace", "range", "randperm", *SQUARE)
"""Operations that are told in plain numbers how much to make."""


class TooLarge(MemoryError):
    """What a header asks for. No ValueError: plugins take those for their own."""


class _Budget(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what every operation is about to make, and refuses before it is made."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler, which takes seconds; nothing is compiled here

    def __init__(self, limit: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.limit, self.spent = limit, 0

    def _spend(self, number: int) -> None:
        self.spent += number
        if self.spent > self.limit:
            raise TooLarge("its header describes a network that is far larger than the file")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        for size in args[:2]:
            if isinstance(size, list | tuple) and all(type(n) is int for n in size):  # of empty, zeros, repeat and the like
                self._spend(4 * math.prod(max(n, 1) for n in size))
        if name in LENGTHS or name.endswith("_window"):  # other numbers, such as randint's, are no sizes
            longest = max([0, *(abs(a) for a in args if isinstance(a, int | float))])
            self._spend(int(4 * longest ** (1 if name not in SQUARE else 2)))
        self._spend(OPERATION)
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and not any(made is a for a in args):
            self._spend(made.numel() * made.element_size() if made.untyped_storage().nbytes() else 0)
        return made


@contextmanager
def bounded(tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """What is built inside may make a few times as many numbers as the file's tensors have.

    Raises Unsound where a header asks for more, as a width of a million for a file of a few bytes.
    """
    numbers = sum(t.numel() for t in tensors.values())
    try:
        with _Budget(SLACK_BYTES + 4 * SLACK_NUMBERS * numbers):
            yield
    except TooLarge as error:
        raise Unsound(str(error)) from None


def fill(module: nn.Module, state: Mapping[str, Tensor], what: str = "") -> None:
    """Load a state, all of it and nothing else. Raises Unsound, with its name, for a tensor that lacks, is unknown, has
    another shape, or holds a number that is not finite (in a buffer -inf may be a mask).
    """
    own = module.state_dict()
    for name in sorted(own.keys() | state.keys()):
        if name not in state:
            raise Unsound(f"it has no tensor {what + name!r}")
        if name not in own:
            raise Unsound(f"it has a tensor {what + name!r} that the network does not know")
        if own[name].shape != state[name].shape:
            raise Unsound(f"its tensor {what + name!r} is {list(state[name].shape)} instead of {list(own[name].shape)}")
        if own[name].is_floating_point() != state[name].is_floating_point():
            raise Unsound(f"its tensor {what + name!r} is of {state[name].dtype} instead of {own[name].dtype}")
    check_state(module, state, what)
    module.load_state_dict(dict(state))


def check_state(module: nn.Module, state: Mapping[str, Tensor], what: str = "") -> None:
    """Raises Unsound, with its name, for a tensor of a module's state that is not finite; in a buffer -inf may be a mask."""
    weights = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    check_finite({name: tensor for name, tensor in state.items() if name in weights}, what)
    check_finite({name: tensor for name, tensor in state.items() if name not in weights}, what, masks=True)


def check_finite(tensors: Mapping[str, Tensor], what: str = "", *, masks: bool = False) -> None:
    """Raises Unsound, with its name, for a tensor with NaN or an infinite number; -inf is let pass among `masks`."""
    for name, tensor in tensors.items():
        if (tensor.is_floating_point() or tensor.is_complex()) and not bool(tensor.isfinite().all()) \
                and not (masks and not bool((tensor.isnan() | tensor.isposinf()).any())):
            raise Unsound(f"its tensor {what + name!r} holds a number that is not finite")
