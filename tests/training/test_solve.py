"""The exact solver against scikit-learn's logistic regression and ridge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from mmtool.errors import MMToolError
from mmtool.training import lbfgs
from mmtool.training.solve import Problem, choose, together
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


def some_folds(count: int, **options: bool) -> list[Problem]:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(90, 30, generator=g, dtype=torch.float64) * torch.logspace(-1, 1, 30)
    y = (x[:, :3] + torch.randn(90, 3, generator=g)).argmax(1)
    kept = [[i for i in range(90) if i % (k + 2)] for k in range(count)]
    return [Problem(x[rows], lambda o, rows=rows: CE(o, y[rows], reduction="none"), 3, **options) for rows in kept]


def test_problems_solved_together_end_where_each_ends_alone() -> None:
    alone = [problem.solve(1e-3, 1e-9) for problem in some_folds(4)]
    for one, other in zip(together(some_folds(4), 1e-3, 1e-9), alone, strict=True):
        assert one.gradient <= 1e-9
        torch.testing.assert_close(one.weight, other.weight, atol=1e-6, rtol=0)


def test_a_problem_that_rounding_stops_stops_no_other() -> None:
    def value(points: torch.Tensor, numbers: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """A wall of a loss where the slope leads down, and a valley that takes many steps (Rosenbrock's)."""
        x, y = points[:, 0], points[:, 1]
        loss = 100 * (y - x**2) ** 2 + (1 - x) ** 2
        slope = torch.stack([-400 * x * (y - x**2) - 2 * (1 - x), 200 * (y - x**2)], 1)
        wall = torch.tensor([number == 1 for number in numbers])
        up, down = 1 + 1000 * points.abs().sum(1), -torch.ones_like(slope)
        return torch.where(wall, up, loss), torch.where(wall.unsqueeze(1), down, slope)

    start = torch.tensor([[-1.2, 1.0], [0.0, 0.0], [2.0, 2.0]], dtype=torch.float64)
    ended, largest = lbfgs.minimise(value, start, 1e-9, 500)
    torch.testing.assert_close(ended[[0, 2]], torch.ones(2, 2, dtype=torch.float64))
    assert ended[1].tolist() == [0, 0]
    assert (largest[[0, 2]] <= 1e-9).all() and largest[1] == 1


def test_a_problem_that_begins_with_the_folds_mean_ends_at_its_own_optimum() -> None:
    problem, same = some_folds(2)[1], some_folds(2)[1]
    problem.begin(together(some_folds(4), 1e-3, 1e-4))
    torch.testing.assert_close(problem.solve(1e-3, 1e-9).weight, same.solve(1e-3, 1e-9).weight, atol=1e-6, rtol=0)


def test_narrow_rows_lead_near_the_optimum_along_the_whole_path() -> None:
    strengths = (1e-1, 1e-2, 1e-3, 1e-4)
    _, found, path = choose(some_folds(2, narrow=True), [lambda s: torch.ones(1) * (2 - s.strength)] * 2, strengths[::-1])
    assert [s for s, _ in path] == list(strengths[::-1])
    for one, problem in zip(found, some_folds(2), strict=True):
        best = problem.solve(strengths[0], 1e-9)
        torch.testing.assert_close(one.weight, best.weight, atol=1e-3, rtol=0)


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
