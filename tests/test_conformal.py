"""The statistics of `--coverage` and of unlike inputs, where the answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import betabinom, kstest

from mmtool import conformal
from mmtool.api import Task
from mmtool.errors import MMToolError
from mmtool.reference import Reference
from mmtool.tasks.classify import Classify
from mmtool.tasks.regress import Regress
from mmtool.tasks.tag import Tag
from mmtool.training import splits
from mmtool.training.splits import Split

COVERAGE, CALIBRATION, NEW, DRAWS = 0.9, 60, 80, 400


def test_the_rank_is_exact_and_too_few_rows_leave_everything() -> None:
    assert [conformal.rank(n, 0.9) for n in (8, 9, 10, 19, 99)] == [9, 9, 10, 18, 90]
    assert [conformal.rank(n, c) for n, c in ((99, 0.07), (99, 0.29), (999, 0.57))] == [7, 29, 570]  # in floats one more
    assert [conformal.fewest(c) for c in (0.5, 0.8, 0.9, 0.95, 0.99)] == [1, 4, 9, 19, 99]
    for n in range(30):
        scores = torch.arange(n, dtype=torch.float64)
        found = conformal.threshold(scores, 0.9)
        assert math.isinf(found) if n < 9 else found == conformal.rank(n, 0.9) - 1


def covered(scores: np.ndarray, rng: np.random.Generator) -> list[int]:
    """Covered new rows of each draw, where rows calibrate or are new by chance."""
    hits = []
    for _ in range(DRAWS):
        order = rng.permutation(scores)[: CALIBRATION + NEW]
        bound = conformal.threshold(torch.tensor(np.sort(order[:CALIBRATION])), COVERAGE)
        hits.append(int((order[CALIBRATION:] <= bound).sum()))
    return hits


def test_coverage_of_new_rows_is_beta_binomial_even_of_one_finite_table() -> None:
    rng = np.random.default_rng(0)
    hits = covered(rng.normal(size=CALIBRATION + NEW), rng)
    k = conformal.rank(CALIBRATION, COVERAGE)
    law = betabinom(NEW, k, CALIBRATION + 1 - k)
    assert abs(np.mean(hits) - law.mean()) < 4 * law.std() / math.sqrt(DRAWS)
    assert abs(np.std(hits) / law.std() - 1) < 0.15
    low, high = conformal.band([(CALIBRATION, NEW)], COVERAGE)
    assert 0.92 <= np.mean([low <= h / NEW <= high for h in hits]) <= 0.99


def test_ties_only_add_to_the_coverage() -> None:
    rng = np.random.default_rng(1)
    assert np.mean(covered(rng.integers(0, 3, CALIBRATION + NEW).astype(float), rng)) / NEW > COVERAGE
    assert np.mean(covered(np.zeros(CALIBRATION + NEW), rng)) == NEW


def test_a_band_of_several_parts_is_no_narrower_than_of_one() -> None:
    one, parts = conformal.band([(100, 100)], 0.9), conformal.band([(100, 50), (100, 50)], 0.9)
    assert parts[0] <= one[0] < 0.9 < one[1] <= parts[1]
    assert conformal.band([(5, 40)], 0.9) == (1, 1)


def test_a_share_has_its_exact_interval() -> None:
    assert conformal.share(0, 10) == {"value": 0, "low": 0, "high": 0.308497}  # 1 - 0.025 ** 0.1
    assert conformal.share(10, 10) == {"value": 1, "low": 0.691503, "high": 1}


def made(task: Task, targets: list[str], rng: np.random.Generator) -> torch.Tensor:
    """Outputs that know something of the targets."""
    task.fit(targets)
    encoded = torch.stack([task.encode(t) for t in targets])
    if isinstance(task, Classify):
        encoded = torch.nn.functional.one_hot(encoded[:, 0], len(task.labels))
    return 1.5 * encoded.double() + torch.tensor(rng.normal(size=(len(targets), len(task.labels))))


@pytest.mark.parametrize("task", [Classify(), Tag(), Regress()], ids=["classify", "tag", "regress"])
@pytest.mark.parametrize("several", [False, True])
def test_regions_cover_just_what_conforms_and_as_often_as_asked(task: Task, several: bool) -> None:
    rng = np.random.default_rng(2)
    values = 1 + (several and not isinstance(task, Classify))
    if isinstance(task, Regress):
        cells = [[f"{v:.3f}" for v in rng.normal(5, 3, values)] for _ in range(1200)]
    else:
        cells = [rng.choice(list("abcde"), values).tolist() for _ in range(1200)]
    targets = ["|".join(c) for c in cells]
    outputs = made(task, targets, rng)
    scores = task.nonconformity(outputs, targets)
    rates = []
    for _ in range(30):
        order = torch.tensor(rng.permutation(len(targets)))
        bound = conformal.threshold(scores[order[:200]].sort().values, COVERAGE)
        at = order[200:300]
        regions = task.region(outputs[at], torch.full((100,), bound, dtype=torch.float64))
        hits = [task.covers(r, targets[i]) for r, i in zip(regions, at.tolist(), strict=True)]
        assert hits == (scores[at] <= bound).tolist()
        rates.append(np.mean(hits))
    k = conformal.rank(200, COVERAGE)
    spread = betabinom(100, k, 201 - k).std() / 100 / math.sqrt(30)
    assert abs(np.mean(rates) - k / 201) < 4 * spread


def test_a_label_that_training_never_saw_conforms_nowhere() -> None:
    task = Classify()
    task.fit(["a", "b"])
    outputs = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    assert task.nonconformity(outputs, ["a", "new"]).tolist() == [pytest.approx(1 - 1 / (1 + math.exp(-2))), math.inf]
    assert task.region(outputs, torch.tensor([math.inf, 0.0])) == [{"set": ["a", "b"]}, {"set": []}]


def test_intervals_are_in_the_targets_unit_and_may_have_no_end() -> None:
    task = Regress()
    task.fit(["0", "10"])
    assert task.region(torch.tensor([[0.0], [1.0]]), torch.tensor([0.5, math.inf])) == [
        {"interval": [2.5, 7.5]}, {"interval": [None, None]}]
    assert task.covers({"interval": [None, None]}, "1e9")
    pair = Regress()
    pair.fit(["0|0", "10|2"])
    assert pair.nonconformity(torch.tensor([[0.0, 0.0]]), ["10|1"]).tolist() == [1]  # of both numbers the larger
    assert pair.region(torch.zeros(1, 2), torch.ones(1)) == [{"interval": [[0, 10], [0, 2]]}]


def test_rows_kept_apart_are_drawn_by_chance_and_groups_are_whole() -> None:
    split = Split(list(range(100)), list(range(100, 140)), [], made=False)
    found = splits.apart(split, None, 0.25, 0)
    assert len(found.calib) == 35
    assert sorted(found.train + found.val + found.calib) == list(range(140))
    assert found == splits.apart(split, None, 0.25, 0) != splits.apart(split, None, 0.25, 1)
    groups = [f"g{i // 7}" for i in range(140)]
    apart = splits.apart(split, groups, 0.25, 0)
    assert not {groups[r] for r in apart.calib} & {groups[r] for r in apart.train + apart.val}
    assert len({groups[r] for r in apart.calib}) == 5
    for share in (0.001, 0.999):
        with pytest.raises(MMToolError, match="leaves nothing"):
            splits.apart(Split([0, 1, 2], [], [], made=True), None, share, 0)


def test_p_values_of_rows_like_the_training_rows_are_even_and_of_others_small() -> None:
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(40, 40, generator=generator)
    x = torch.randn(1700, 40, generator=generator) @ mix * 3 + 5
    fitted = Reference.fit(x[:300], 0)
    known = fitted.distances(x[300:700]).sort().values
    reference = Reference(**{**fitted.tensors(), "known": known})
    p = reference.p_values(x[700:])
    assert kstest(p.numpy(), "uniform").pvalue > 0.01
    assert float((p <= 0.01).double().mean()) < 0.03
    assert float(reference.p_values(x[700:] * 3).median()) == pytest.approx(1 / 401)
    assert float(reference.p_values(torch.randn(200, 40, generator=generator) * 60).median()) < 0.01  # other directions
    again = Reference.of(reference.tensors())
    assert torch.equal(again.distances(x), reference.distances(x))
    same = Reference.fit(x[:300], 0).tensors()
    assert all(torch.equal(part, same[name]) for name, part in fitted.tensors().items())


@pytest.mark.parametrize(("name", "value"), [
    ("mean", torch.zeros(3)), ("scale", torch.zeros(6)), ("rest", torch.full((1,), math.nan)),
    ("known", torch.tensor([2.0, 1.0])), ("variances", torch.zeros(2).double())])
def test_a_damaged_reference_is_refused(name: str, value: torch.Tensor) -> None:
    reference = Reference.fit(torch.randn(40, 6, generator=torch.Generator().manual_seed(0)), 0)
    with pytest.raises(ValueError, match="damaged"):
        Reference.of({**reference.tensors(), name: value})


def test_columns_that_never_vary_and_few_rows_do_no_harm() -> None:
    x = torch.zeros(3, 5)
    reference = Reference.fit(x, 0)
    assert reference.distances(x).tolist() == [0, 0, 0]
    assert bool((reference.distances(x + 1) > 100).all())
