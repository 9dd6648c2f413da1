"""How far a row's features are from those of the training rows, and how unusual that is.

Shapes: N rows, D features, R axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmtool import conformal

FIT_ROWS, HELD_ROWS, LEAST_HELD = 1024, 2000, 20
"""Rows that a reference is fitted on and compared with, at most (drawn by chance); and the fewest to compare with."""
AXES, AXES_NUMBERS = 64, 131_072
"""Axes, and the numbers of all of them together: at most 256 KiB in a model file."""


@dataclass(frozen=True)
class Reference:
    """The Mahalanobis distance of standardised features to the training rows (Lee et al., 2018), without classes.

    The covariance is that of probabilistic PCA (Tipping and Bishop, 1999): `variances [R]` along `axes [D, R]`, and one,
    `rest`, in every other direction. `known [n]`, ascending: distances of rows that it was not fitted on.
    """

    mean: Tensor
    scale: Tensor
    axes: Tensor
    variances: Tensor
    rest: Tensor
    known: Tensor

    @classmethod
    def fit(cls, x: Tensor, seed: int) -> Reference:
        """From features `[N, D]`, N at least 2; the axes by a randomised SVD (Halko et al., 2011), drawn from the seed."""
        x = x.double()
        n, dim = x.shape
        scale = x.std(0, correction=0)
        mean, scale = x.mean(0).float(), torch.where(scale > 1e-8, scale, 1.0).float()
        z = (x - mean) / scale
        count = max(1, min(AXES, n // 4, dim, AXES_NUMBERS // dim))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            axes = torch.svd_lowrank(z, min(count + 8, n, dim), niter=2)[2][:, :count].half()  # [D, R]
        along = (z @ axes.double()).square()
        rest = (z.square().sum(1) - along.sum(1)).clamp(min=0).mean() / max(dim - count, 1)
        variances = along.mean(0)
        least = 1e-6 * max(float(variances.max()), 1e-6)  # directions in which nothing varied
        return cls(mean, scale, axes, variances.clamp(min=least).float(), rest.clamp(min=least).float().reshape(1),
                   torch.zeros(0))

    def distances(self, x: Tensor) -> Tensor:
        """Features `[N, D]` -> squared distances `[N]`, float32."""
        z = (x.double() - self.mean) / self.scale
        along = (z @ self.axes.double()).square()  # [N, R]
        beside = (z.square().sum(1) - along.sum(1)).clamp(min=0)
        return ((along / self.variances).sum(1) + beside / self.rest).float()

    def p_values(self, x: Tensor) -> Tensor:
        """Features `[N, D]` -> the share of held-out rows that are as far away, `[N]`; small: unlike the training rows."""
        return conformal.p_values(self.known, self.distances(x))

    def tensors(self) -> dict[str, Tensor]:
        """As a model file holds it."""
        return dict(self.__dict__)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Reference:
        """The inverse of `tensors`. Raises ValueError for what is no reference, KeyError for a part that lacks."""
        found = cls(*(tensors[name] for name in cls.__dataclass_fields__))
        dim, count = found.axes.shape
        shapes = {"mean": (dim,), "scale": (dim,), "variances": (count,), "rest": (1,), "known": (len(found.known),)}
        for name, shape in shapes.items():
            part = getattr(found, name)
            if part.shape != shape or part.dtype != torch.float32 or not bool(part.isfinite().all()):
                raise ValueError(f"a reference's {name!r} is damaged")
        if not bool((found.scale > 0).all() and (found.variances > 0).all() and (found.rest > 0).all()) \
                or not bool((found.known.diff() >= 0).all()) or not bool(found.axes.isfinite().all()):
            raise ValueError("a reference is damaged")
        return found


def references_of(header: Mapping[str, Any], tensors: Mapping[str, Tensor], dims: Mapping[str, int]) -> dict[str, Reference]:
    """Those in a model file, by input. Raises ValueError or KeyError for what are none."""
    found = {}
    for name in sorted(header["reference"]):
        found[name] = Reference.of({part: tensors[f"reference/{name}/{part}"] for part in Reference.__dataclass_fields__})
        if len(found[name].mean) != dims[name]:
            raise ValueError(f"the reference of {name!r} has another width than the input")
    return found
