"""What every built-in fusion promises: masks, order, finiteness and gradients."""

from __future__ import annotations

import pytest
import torch

from mmtool import plugins
from mmtool.api import Fusion, Tokens
from mmtool.testing import fusion_checks

NAMES = [p.name for p in plugins.found() if p.kind == "fusion" and p.distribution == "mmtool"]
LEARNED = {"weighted", "attention", "gated"}


def make(name: str, dims: dict[str, int]) -> Fusion:
    torch.manual_seed(0)
    return plugins.load(plugins.find(name, "fusion"))(dims)


def tokens(dims: dict[str, int], missing: dict[str, list[int]] | None = None) -> dict[str, Tokens]:
    g = torch.Generator().manual_seed(1)
    out = {}
    for name, dim in sorted(dims.items()):
        present = torch.ones(4, dtype=torch.bool)
        present[(missing or {}).get(name, [])] = False
        out[name] = Tokens.pooled(torch.randn(4, dim, generator=g), present)
    return out


def result(fusion: Fusion, inputs: dict[str, Tokens]) -> torch.Tensor:
    out = fusion(inputs)
    if isinstance(out, Tokens):
        return out.mean()
    return fusion.combine({n: t.mean()[:, :2].sigmoid() for n, t in out.items()}, {n: t.present for n, t in out.items()})


@pytest.mark.parametrize("spec", [*NAMES, "concat:flags=false", "sum:4", "product:dim=3", "weighted:7", "gated:5",
                                  "attention:6,hidden=4"])
def test_a_fusion_keeps_the_contract(spec: str) -> None:
    outcomes = {str(check): check.run() for check in fusion_checks(spec)}
    assert [f"{o.check}: {o.reason}" for o in outcomes.values() if o.status == "failed"] == []
    skipped = {name for name, o in outcomes.items() if o.status == "skipped"} - {"agrees-on-cuda"}
    assert skipped == (set() if spec == "late" else {"combines-scores"})


WIDTHS = [{"b": 3, "a": 3}, {"b": 5, "a": 3, "c": 4}]


def test_every_fusion_of_the_issue_is_there() -> None:
    assert set(NAMES) == {"concat", "sum", "mean", "max", "product", "weighted", "attention", "gated", "late"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dims", WIDTHS)
def test_what_a_missing_cell_holds_changes_nothing(name: str, dims: dict[str, int]) -> None:
    fusion = make(name, dims)
    inputs = tokens(dims, {"a": [1], "b": [1, 2]})
    before = result(fusion, inputs)
    for t in inputs.values():
        t.values[~t.mask] = float("nan")
    assert torch.equal(result(fusion, inputs), before)
    assert bool(before.isfinite().all())


@pytest.mark.parametrize("name", NAMES)
def test_a_row_without_any_input_stays_finite_also_in_gradients(name: str) -> None:
    dims = {"a": 3, "b": 4}
    fusion, inputs = make(name, dims), tokens(dims, {"a": [0, 1], "b": [0]})
    for t in inputs.values():
        t.values.requires_grad_()
    out = result(fusion, inputs)
    out.square().sum().backward()
    assert bool(out.isfinite().all())
    grads = [*(t.values.grad for t in inputs.values()), *(p.grad for p in fusion.parameters())]
    assert all(bool(g.isfinite().all()) for g in grads if g is not None)
    assert all(bool((t.values.grad[~t.mask] == 0).all()) for t in inputs.values())
    if name in LEARNED:
        assert all(g is not None for g in grads)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_names_changes_nothing(name: str) -> None:
    dims = {"b": 5, "a": 3, "c": 4}
    turned = dict(reversed(dims.items()))
    one, other = make(name, dims), make(name, turned)
    inputs = tokens(dims, {"b": [2]})
    assert torch.equal(result(one, inputs), result(other, dict(reversed(inputs.items()))))


@pytest.mark.parametrize("name", NAMES)
def test_rows_do_not_see_each_other(name: str) -> None:
    dims = {"a": 3, "b": 4}
    fusion, inputs = make(name, dims), tokens(dims, {"a": [1]})
    alone = [result(fusion, {n: Tokens(t.values[i : i + 1], t.mask[i : i + 1]) for n, t in inputs.items()}) for i in range(4)]
    torch.testing.assert_close(torch.cat(alone), result(fusion, inputs))


@pytest.mark.parametrize("name", sorted(set(NAMES) - LEARNED))
def test_equal_widths_need_no_parameter(name: str) -> None:
    assert not list(make(name, {"a": 3, "b": 3}).parameters())


@pytest.mark.parametrize(("name", "expected"), [("sum", [5.0, 8.0]), ("mean", [2.5, 4.0]), ("max", [3.0, 6.0]),
                                                ("product", [6.0, 12.0])])
def test_elementwise_values(name: str, expected: list[float]) -> None:
    a, b = torch.tensor([[2.0, 2.0], [2.0, 2.0]]), torch.tensor([[3.0, 6.0], [3.0, 6.0]])
    out = result(make(name, {"a": 2, "b": 2}), {"a": Tokens.pooled(a), "b": Tokens.pooled(b, torch.tensor([True, False]))})
    assert out.tolist() == [expected, [2.0, 2.0]]


def test_concat_flags_what_is_there() -> None:
    inputs = {"a": Tokens.pooled(torch.tensor([[2.0]])), "b": Tokens.pooled(torch.tensor([[7.0]]), torch.tensor([False]))}
    assert result(make("concat", {"a": 1, "b": 1}), inputs).tolist() == [[2.0, 0.0, 1.0, 0.0]]


def test_late_averages_the_towers_that_are_there() -> None:
    fusion = make("late", {"a": 1, "b": 1})
    scores = {"a": torch.tensor([[0.2, 0.8], [0.2, 0.8]]), "b": torch.tensor([[0.6, 0.4], [float("nan"), 0.0]])}
    present = {"a": torch.tensor([True, True]), "b": torch.tensor([True, False])}
    torch.testing.assert_close(fusion.combine(scores, present), torch.tensor([[0.4, 0.6], [0.2, 0.8]]))
