"""Checks of what an encoder states, and of loading and fitting it."""

from __future__ import annotations

from mmtool.errors import MMToolError
from mmtool.testing.compare import same_bits
from mmtool.testing.encoders.subject import EncoderSubject
from mmtool.testing.statement import is_a_class_of_its_kind
from mmtool.testing.verdicts import fail, skip


def states_what_it_is(subject: EncoderSubject) -> None:
    """A class that can be imported and states api, modality, revision and padding."""
    is_a_class_of_its_kind(subject)
    cls = subject.cls
    if not isinstance(cls.modality, str) or not cls.modality:
        fail('state what `prepare` reads, such as `modality = "image"` (or audio, text, table, any other word)')
    if not isinstance(cls.revision, int) or cls.revision < 1:
        fail(f"revision counts from 1, it is {cls.revision!r}")
    if cls.padding not in ("masked", "none"):
        fail(f'padding is "masked" or "none", it is {cls.padding!r}')


def loads(subject: EncoderSubject) -> None:
    """`load` fills the pretrained weights, where they are at hand."""
    encoder = subject.encoder
    if not isinstance(encoder.pretrained, bool):
        fail(f"pretrained is True or False, it is {encoder.pretrained!r}")
    if not subject.asks_for_weights:
        skip("loading was not asked for")
    error = subject.load_error
    if isinstance(error, (MMToolError, ImportError)):
        skip(f"no weights are at hand ({error}); the other checks ran on random ones")
    if error is not None:
        fail(f"load raised {type(error).__name__}: {error}; raise MMToolError where the user can mend it")


def fits_the_same_twice(subject: EncoderSubject) -> None:
    """`fit` takes any iterable of cells, once; the same cells give the same assets."""
    if not subject.cls.needs_fit():
        skip("it needs no fit")
    first, second = subject.encoder.assets(), subject.new()
    second.fit(iter(subject.cells))
    assets = second.assets()
    if sorted(first) != sorted(assets):
        fail(f"fitted twice on the same cells, assets gave {sorted(first)}, then {sorted(assets)}")
    for name, tensor in assets.items():
        if not same_bits(first[name], tensor):
            fail(f"fitted twice on the same cells, asset {name!r} differs; sort what comes out of a set, and seed "
                 "what is random")
