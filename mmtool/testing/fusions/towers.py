"""The check of `combine`, which makes the scores of towers one."""

from __future__ import annotations

import torch
from torch import Tensor

from mmtool.testing.compare import FLOAT32_TOLERANCE, difference
from mmtool.testing.fusions.subject import Case, FusionSubject, sample
from mmtool.testing.verdicts import fail, skip

SCORES = 5


def combines_scores(subject: FusionSubject) -> None:
    """Scores `[B, K]` a tower -> finite `[B, K]`; one tower alone is heard as it is, and a missing one not at all."""
    if subject.cls.returns != "towers":
        skip(f'returns = "{subject.cls.returns}": there are no towers')
    for case in subject.cases:
        present = {name: t.present for name, t in sample(case.dims).items()}
        generator = torch.Generator().manual_seed(0)
        scores = {name: torch.randn(len(present[name]), SCORES, generator=generator).softmax(-1) for name in case.dims}
        combined = _combine(case, scores, present)
        if not isinstance(combined, Tensor) or combined.shape != (len(present[next(iter(present))]), SCORES):
            given = list(combined.shape) if isinstance(combined, Tensor) else type(combined).__name__
            fail(f"combine must return scores [B, K], it returned {given}")
        if not bool(combined.isfinite().all()):
            fail("combine gave NaN or infinity; mind rows without some or all towers: clamp their count to 1")
        for name in case.dims:
            alone = present[name] & (torch.stack(list(present.values())).sum(0) == 1)  # [B]
            if (far := difference(scores[name][alone], combined[alone])) > FLOAT32_TOLERANCE:
                fail(f"where {name!r} alone is there, combine must return its scores, they differ by {far:.1e}; share "
                     "weights out among the towers that are there")
        for garbage in (1e30, float("nan")):
            dirty = {name: s.masked_fill(~present[name].unsqueeze(1), garbage) for name, s in scores.items()}
            if difference(combined, _combine(case, dirty, present)) > FLOAT32_TOLERANCE:
                fail(f"a missing tower speaks: {garbage} in its scores changes the result; masked_fill them first")
        turned = _combine(case, dict(reversed(scores.items())), dict(reversed(present.items())))
        if difference(combined, turned) > FLOAT32_TOLERANCE:
            fail("with the towers in another order, combine gives another result; go through them in the order of self.dims")


def _combine(case: Case, scores: dict[str, Tensor], present: dict[str, Tensor]) -> Tensor:
    with torch.inference_mode():
        return case.fusion.combine(scores, present)
