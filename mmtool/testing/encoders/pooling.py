"""Checks of what is made of tokens: the pooled vector, and the vector in a stated space."""

from __future__ import annotations

import torch
from torch import Tensor

from mmtool.api import Tokens
from mmtool.testing.compare import FLOAT32_TOLERANCE, difference
from mmtool.testing.encoders.subject import EncoderSubject
from mmtool.testing.verdicts import fail, skip


def pools_to_one_width(subject: EncoderSubject) -> None:
    """`pool` gives finite `[B, pooled_dim]`, of one width for every batch."""
    widths = set()
    for tokens in [*subject.outputs, subject.run([0])]:
        pooled = _pool(subject, tokens)
        _check_vectors("pool", pooled, len(tokens.mask))
        widths.add(pooled.shape[1])
    if len(widths) > 1:
        fail(f"pool must give one width for every batch, it gave {sorted(widths)}")


def ignores_masked_values(subject: EncoderSubject) -> None:
    """What stands in `values` where `mask` is False does not change the pooled vector, nor do more such tokens."""
    for tokens in subject.outputs:
        worst = _worst(_pool(subject, tokens), _pool(subject, _with_garbage(tokens)))
        if worst > FLOAT32_TOLERANCE:
            fail(f"masked values change the pooled vector by {worst:.1e} of its magnitude; use tokens.mask in `pool`, "
                 "or leave the default, the masked mean")


def stays_finite_where_missing(subject: EncoderSubject) -> None:
    """A missing cell (an all-False row) pools to finite numbers, and leaves the other rows alone."""
    tokens = subject.outputs[0]
    values = torch.cat([tokens.values, torch.zeros_like(tokens.values[:1])])  # [B + 1, T, D]
    mask = torch.cat([tokens.mask, torch.zeros_like(tokens.mask[:1])])  # [B + 1, T]
    pooled = _pool(subject, Tokens(values, mask))
    if not bool(pooled.isfinite().all()):
        fail("pool gives NaN or infinity for a missing cell (an all-False mask row); clamp the count of tokens to 1, "
             "and let no softmax run over nothing")
    if _worst(_pool(subject, tokens), pooled[:-1]) > FLOAT32_TOLERANCE:
        fail("a missing cell changes the pooled vectors of other rows; take no statistic over the batch in `pool`")


def fills_its_space(subject: EncoderSubject) -> None:
    """`to_space` gives finite, non-zero `[B, space_dim]`, where a space is stated."""
    encoder = subject.encoder
    if encoder.space is None:
        skip("it states no space")
    if not encoder.space_temperature > 0:
        fail(f"space_temperature must be above 0, it is {encoder.space_temperature}")
    widths = set()
    for tokens in subject.outputs:
        with torch.inference_mode():
            vectors = encoder.to_space(tokens)
        _check_vectors("to_space", vectors, len(tokens.mask))
        if subject.has_weights and not bool(vectors.any(1).all()):
            fail("to_space gave a vector of zeros, which has no direction")
        widths.add(vectors.shape[1])
    if len(widths) > 1:
        fail(f"to_space must give one width for every batch, it gave {sorted(widths)}")


def _pool(subject: EncoderSubject, tokens: Tokens) -> Tensor:
    with torch.inference_mode():
        return subject.encoder.pool(tokens)


def _worst(a: Tensor, b: Tensor) -> float:
    return max(difference(x.unsqueeze(0), y.unsqueeze(0)) for x, y in zip(a, b, strict=True))


def _with_garbage(tokens: Tokens, steps: int = 2) -> Tokens:
    values, mask = tokens.values.clone(), tokens.mask
    values[~mask] = 777.0
    more = torch.full_like(values[:, :1], -777.0).expand(-1, steps, -1)  # [B, steps, D]
    return Tokens(torch.cat([values, more], 1), torch.cat([mask, mask.new_zeros(len(mask), steps)], 1))


def _check_vectors(method: str, vectors: object, rows: int) -> None:
    if not isinstance(vectors, Tensor) or vectors.ndim != 2 or len(vectors) != rows:
        given = list(vectors.shape) if isinstance(vectors, Tensor) else type(vectors).__name__
        fail(f"{method} must return a tensor [B, D], here [{rows}, D], it returned {given}")
    if not vectors.is_floating_point():
        fail(f"{method} must return floating point, it returned {vectors.dtype}")
    if not bool(vectors.isfinite().all()):
        fail(f"{method} gave NaN or infinity")
