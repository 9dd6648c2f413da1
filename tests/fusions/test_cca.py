"""`cca` against known answers: canonical correlations, a shared latent, missing inputs, and what has no answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf_shrinkage
from torch import Tensor

from mmtool.api import Tokens
from mmtool.fusions.cca import Cca, _ledoit_wolf
from mmtool.network import only

WIDTHS = {"a": 8, "b": 6, "c": 5}


def views(rows: int, noise: float, seed: int, names: str = "ab") -> tuple[dict[str, Tokens], Tensor]:
    """Inputs that share three dimensions `h [rows, 3]`, each with noise of its own."""
    g = torch.Generator().manual_seed(99)
    mix = {n: torch.randn(3, WIDTHS[n], generator=g) for n in names}
    g = torch.Generator().manual_seed(seed)
    h = torch.randn(rows, 3, generator=g)
    return {n: Tokens.pooled(h @ mix[n] + noise * torch.randn(rows, WIDTHS[n], generator=g)) for n in names}, h


def fitted(inputs: dict[str, Tokens], dim: int = 5, shrinkage: float | None = None) -> Cca:
    fusion = Cca({n: t.values.shape[2] for n, t in inputs.items()}, dim=dim, shrinkage=shrinkage)
    fusion.fit(inputs)
    return fusion


def alone(fusion: Cca, inputs: dict[str, Tokens], name: str) -> Tensor:
    return fusion(only(inputs, [name])).mean()


def correlations(x: Tensor, y: Tensor) -> list[float]:
    return [float(np.corrcoef(x[:, i], y[:, i])[0, 1]) for i in range(x.shape[1])]


def explained(x: Tensor, y: Tensor) -> float:
    """Share of the variance of `y` that a linear function of `x` explains."""
    x = torch.cat([x, torch.ones(len(x), 1)], 1).double()
    rest = y.double() - x @ torch.linalg.lstsq(x, y.double()).solution
    return 1 - float(rest.var() / y.double().var())


def test_two_inputs_have_the_canonical_correlations_of_the_textbook() -> None:
    inputs, _ = views(2000, 1.0, 0)
    fusion = fitted(inputs, shrinkage=0.0)
    a, b = (t.mean().double() - t.mean().double().mean(0) for t in inputs.values())
    whitened = [torch.linalg.inv(torch.linalg.cholesky(x.T @ x)) @ x.T for x in (a, b)]
    known = torch.linalg.svdvals(whitened[0] @ whitened[1].T)[:5]
    found = correlations(alone(fusion, inputs, "a"), alone(fusion, inputs, "b"))
    np.testing.assert_allclose(found, known.numpy(), atol=1e-4)
    assert known[2] > 0.5 > 0.1 > known[3]  # three are shared, the rest is chance


def test_what_is_fused_says_more_of_the_shared_than_either_input() -> None:
    fusion = fitted(views(2000, 2.0, 0)[0], dim=3)
    inputs, h = views(2000, 2.0, 1)
    both, a, b = explained(fusion(inputs).mean(), h), *(explained(alone(fusion, inputs, n), h) for n in "ab")
    assert both > max(a, b) + 0.05
    assert min(a, b) > 0.3


def test_three_inputs_meet_in_one_space_though_no_row_has_all() -> None:
    inputs, _ = views(3000, 0.5, 0, "abc")
    missing = torch.arange(3000) % 3
    given = {n: Tokens(t.values, t.mask & (missing != i).unsqueeze(1)) for i, (n, t) in enumerate(inputs.items())}
    fusion, (new, h) = fitted(given, dim=3), views(1000, 0.5, 1, "abc")
    for one, other in ("ab", "bc", "ac"):
        assert min(correlations(alone(fusion, new, one), alone(fusion, new, other))) > 0.9
    assert explained(fusion(new).mean(), h) > 0.95


def closed_form(inputs: dict[str, Tokens], dim: int, s: float) -> list[Tensor]:
    """Each input's map by the masked normal equations over all rows, as the literature writes them."""
    rows = len(next(iter(inputs.values())).mask)
    total, counts, solved = torch.zeros(rows, rows).double(), torch.zeros(rows).double(), []
    for t in inputs.values():
        k = t.present.double()
        x = (t.mean().double() - t.mean().double().sum(0) / k.sum()) * k.unsqueeze(1)
        c = x.T @ x
        solved.append(torch.linalg.solve((1 - s) * c + s * c.trace() / len(c) * torch.eye(len(c)), x.T))
        total, counts = total + x @ solved[-1], counts + k
    half = torch.diag(counts.rsqrt())
    vectors = torch.linalg.eigh(half @ total @ half)[1].flip(1)[:, :dim]
    return [one @ half @ vectors * counts.sum().sqrt() for one in solved]


@pytest.mark.parametrize(("rows", "widths"), [(60, (8, 6, 5)), (24, (50, 6, 30))])
def test_a_row_weighs_by_what_it_has_also_where_there_are_more_dimensions_than_rows(rows: int, widths: tuple[int, ...]) -> None:
    g = torch.Generator().manual_seed(0)
    gone = torch.arange(rows) % 4
    inputs = {n: Tokens.pooled(torch.randn(rows, w, generator=g), gone != i)
              for i, (n, w) in enumerate(zip("abc", widths, strict=True))}
    fusion = fitted(inputs, dim=4, shrinkage=0.3)
    for number, known in enumerate(closed_form(inputs, 4, 0.3)):
        torch.testing.assert_close(fusion.get_buffer(f"map{number}").double().abs(), known.abs(), atol=1e-5, rtol=1e-3)


def test_shrinkage_is_ledoit_and_wolf_s_estimate() -> None:
    for rows in (10, 400):
        x = views(rows, 1.0, 0)[0]["a"].mean().double()
        x = x - x.mean(0)
        values = torch.linalg.eigvalsh(x.T @ x / rows)
        assert _ledoit_wolf(x, values) == pytest.approx(ledoit_wolf_shrinkage(x.numpy()))


def test_equal_columns_and_opposite_signs_leave_nothing_to_rounding() -> None:
    x = torch.randn(30, 1, generator=torch.Generator().manual_seed(0))
    inputs = {"a": Tokens.pooled(torch.cat([x, x, torch.ones(30, 1)], 1)), "b": Tokens.pooled(-x)}
    fusion = fitted(inputs)
    turned = fitted({n: Tokens(t.values.flip(0), t.mask) for n, t in inputs.items()})
    torch.testing.assert_close(fusion(inputs).values, turned(inputs).values, atol=1e-4, rtol=0)
    assert abs(float(np.corrcoef(fusion(inputs).mean()[:, 0], x[:, 0])[0, 1])) > 0.999


def test_one_input_gives_its_widest_directions() -> None:
    x = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0, 2.0, 0.1])
    out = fitted({"a": Tokens.pooled(x)}, dim=2, shrinkage=0.2)({"a": Tokens.pooled(x)}).mean()
    assert [int(np.abs(np.corrcoef(torch.cat([out[:, i : i + 1], x], 1).T)[0, 1:]).argmax()) for i in (0, 1)] == [1, 2]
