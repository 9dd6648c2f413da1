"""The exact solver against scikit-learn's logistic regression and ridge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from mmtool.errors import MMToolError
from mmtool.training.solve import Problem
from mmtool.training.splits import folds

CE = torch.nn.functional.cross_entropy


@pytest.mark.parametrize(("rows", "columns"), [(120, 6), (40, 90)])
@pytest.mark.parametrize("strength", [1e-1, 1e-3])
def test_it_finds_the_optimum_of_logistic_regression(rows: int, columns: int, strength: float) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(rows, columns, generator=g, dtype=torch.float64) * torch.logspace(-1, 1, columns)
    y = (x[:, :3] + torch.randn(rows, 3, generator=g)).argmax(1)
    problem = Problem(x, lambda o: CE(o, y, reduction="none"), 3)
    found = problem.solve(strength, 1e-9)
    theirs = LogisticRegression(C=1 / (rows * strength * problem.scale), tol=1e-10, max_iter=100_000).fit(x.numpy(), y.numpy())
    ours = found.outputs(x).softmax(1).numpy()
    np.testing.assert_allclose(ours, theirs.predict_proba(x.numpy()), atol=2e-5)


def test_it_finds_the_optimum_of_ridge_regression() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(50, 8, generator=g, dtype=torch.float64)
    y = x[:, :2] * 3 + torch.randn(50, 2, generator=g)
    problem = Problem(x, lambda o: (o - y).square().mean(1) / 2, 2)
    found = problem.solve(1e-2, 1e-10)
    theirs = Ridge(alpha=2 * 50 * 1e-2 * problem.scale).fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(found.weight.numpy(), theirs.coef_, atol=1e-6)
    np.testing.assert_allclose(found.bias.numpy(), theirs.intercept_, atol=1e-6)


def test_folds_are_stratified_whole_and_seeded() -> None:
    strata = ["a"] * 50 + ["b"] * 10
    parts = folds(range(60), strata, None, 5, 0)
    assert sorted(r for p in parts for r in p) == list(range(60))
    assert [sum(strata[r] == "b" for r in p) for p in parts] == [2] * 5
    assert parts == folds(range(60), strata, None, 5, 0) != folds(range(60), strata, None, 5, 1)


def test_folds_never_tear_a_group() -> None:
    groups = [str(i // 4) for i in range(60)]
    parts = folds(range(60), ["x"] * 60, groups, 5, 0)
    assert [len({groups[r] for r in p}) for p in parts] == [3] * 5
    assert [len(p) for p in parts] == [12] * 5


def test_fewer_rows_than_folds_are_refused() -> None:
    with pytest.raises(MMToolError, match="3 rows cannot be parted in 5"):
        folds(range(3), ["a"] * 3, None, 5, 0)
