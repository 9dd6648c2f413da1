"""Split conformal prediction: from the scores of rows kept apart to regions that hold the truth as often as asked.

A task gives each row a nonconformity score: how badly a target fits the row. The region of a new row is all targets whose
score is at most the k-th smallest of n calibration scores, k = ceil((n + 1) coverage) (Papadopoulos et al., 2002; Vovk et
al., 2005). Where the new row and the calibration rows are exchangeable, and none of them took part in fitting or choosing
the model, the truth is in it with a chance of at least `coverage`, whatever the model; ties only add to it.

Over many new rows the share is not `coverage` itself: given the calibration rows it is Beta(k, n + 1 - k) distributed
(Vovk, 2012), so that the number of m new rows that are covered is beta-binomial. Of finite data, where m rows are drawn by
chance from the n + m that are left, it is the same law, exactly: then it goes by the name of negative hypergeometric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import ceil, inf
from typing import Any

import torch
from torch import Tensor

from mmtool.errors import UsageError


def check_coverage(coverage: float, option: str = "--coverage") -> None:
    """Raises UsageError for what is no share of the rows."""
    if not 0 < coverage < 1:  # NaN neither
        raise UsageError(f"{option} {coverage} is no share between 0 and 1", "write --coverage 0.9 for 90 % of the rows"
                         if option == "--coverage" else f"write {option} 0.2 for a fifth of the rows")


def rank(rows: int, coverage: float) -> int:
    """k: which of n sorted calibration scores bounds the region; n + 1 where none is large enough."""
    return ceil((rows + 1) * Fraction(str(coverage)))  # in floats, 0.9 of 10 rows may be 9.000000000000002


def fewest(coverage: float) -> int:
    """Calibration rows below which only the region of everything has this coverage."""
    share = Fraction(str(coverage))
    return ceil(share / (1 - share))


def threshold(scores: Tensor, coverage: float) -> float:
    """The largest score `[n]`, ascending, that a region allows; inf where there are too few."""
    k = rank(len(scores), coverage)
    return float(scores[k - 1]) if k <= len(scores) else inf


def band(sizes: Sequence[tuple[int, int]], coverage: float, level: float = 0.95) -> tuple[float, float]:
    """The share of rows that a valid method covers, in `level` of all draws, for pairs of (calibration rows, new rows).

    Parts with calibration rows of their own share most of those, so their bounds are added up as if they rose and fell
    together: with several parts the band is too wide rather than too narrow.
    """
    from scipy.stats import betabinom

    low = high = total = 0.0
    for rows, new in sizes:
        k = rank(rows, coverage)
        ends = (new, new) if k > rows else betabinom(new, k, rows + 1 - k).ppf([(1 - level) / 2, (1 + level) / 2])
        low, high, total = low + float(ends[0]), high + float(ends[1]), total + new
    return low / total, high / total


def share(hits: int, rows: int, level: float = 0.95) -> dict[str, float]:
    """A share with its exact interval (Clopper and Pearson, 1934), as in a metrics.json."""
    from scipy.stats import beta

    rest = (1 - level) / 2
    low = float(beta(hits, rows - hits + 1).ppf(rest)) if hits else 0.0
    high = float(beta(hits + 1, rows - hits).ppf(1 - rest)) if hits < rows else 1.0
    return {"value": round(hits / rows, 6), "low": round(low, 6), "high": round(high, 6)}


def p_values(known: Tensor, new: Tensor) -> Tensor:
    """How many of n scores `[n]`, ascending, and the new one itself are as large as each new one `[m]`: `[m]` in (0, 1].

    Of exchangeable rows it is at most p with a chance of at most p (Bates et al., 2023).
    """
    larger = len(known) - torch.searchsorted(known, new.to(known.dtype).contiguous())
    return (1 + larger).double() / (len(known) + 1)


def scores_of(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The calibration scores in a model file, by target column and subset of inputs. Raises ValueError for what are none."""
    out: dict[str, dict[str, Tensor]] = {}
    for number, (column, rows) in enumerate(sorted(header["conformal"].get("rows", {}).items())):
        out[column] = {key: tensors[f"conformal/{number}/{key}"] for key in sorted(rows)}
        for key, scores in out[column].items():
            if scores.dtype != torch.float64 or scores.shape != (rows[key],) or not bool((scores[1:] >= scores[:-1]).all()):
                raise ValueError(f"the calibration scores of {column!r} are damaged")
    return out
