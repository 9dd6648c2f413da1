"""`table`: numbers by their deviations, words by their slots, and a slot of its own for what is missing."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from mmtool import encoding
from mmtool.api import CellError, MMToolError, UsageError
from mmtool.encoders import table_columns
from mmtool.encoders.table import Table
from mmtool.encoders.table_columns import Tally


def fitted(*cells: dict[str, Any], max_categories: int = 32) -> Table:
    encoder = Table(max_categories=max_categories)
    encoder.fit(iter(cells))
    return encoder


def row(encoder: Table, **cell: Any) -> list[float]:
    prepared = encoder.prepare(cell)
    assert prepared.shape == (1, encoder.dim) and prepared.dtype == torch.float32
    return [round(x, 5) for x in prepared[0].tolist()]


def column(*values: Any, **options: Any) -> Table:
    return fitted(*({"x": value, "always": "a"} for value in values), **options)


def of_x(encoder: Table, value: Any) -> list[float]:
    return row(encoder, x=value, always="a")[:-3]  # "always" is a, other, missing


@pytest.mark.parametrize("values", [(1, 2, 3), (1.0, 2.0, 3.0), ("1", " 2 ", "3e0"), ("1.0", 2, 3.0), (1, None, 2, "", 3),
                                    (1, math.nan, 2, "nan", 3)])
def test_a_column_of_numbers_becomes_deviations_and_whether_it_is_missing(values: tuple[Any, ...]) -> None:
    encoder = column(*values)
    assert encoder.columns[0].numeric
    assert of_x(encoder, 2) == [0, 0] and of_x(encoder, "3") == [round(1 / math.sqrt(2 / 3), 5), 0]
    assert of_x(encoder, None) == of_x(encoder, " ") == of_x(encoder, math.nan) == of_x(encoder, "NaN") == [0, 1]


@pytest.mark.parametrize("values", [("a", "b"), (1, "b"), (True, False), ("true", "false"), (1, math.inf), ("1_000", 2),
                                    ("1", "inf"), (None, None)])
def test_a_column_with_anything_else_is_categorical(values: tuple[Any, ...]) -> None:
    assert not column(*values).columns[0].numeric


def test_words_have_a_slot_each_the_most_frequent_first() -> None:
    encoder = column("red", "blue", "blue", "green", "green", None, max_categories=2)
    assert encoder.columns[0].categories == ("blue", "green")
    assert of_x(encoder, "blue") == [1, 0, 0, 0] and of_x(encoder, " green ") == [0, 1, 0, 0]
    assert of_x(encoder, "red") == of_x(encoder, "never seen") == of_x(encoder, 7) == [0, 0, 1, 0]
    assert of_x(encoder, None) == of_x(encoder, "") == [0, 0, 0, 1]


def test_one_value_written_in_several_ways_is_one_category() -> None:
    encoder = column("a", 1, True)
    for same in ((1, 1.0, "1"), (True, "true", "True")):
        assert len({tuple(of_x(encoder, value)) for value in same}) == 1
    assert of_x(encoder, 1) != of_x(encoder, True)


def test_a_constant_column_gives_nothing() -> None:
    encoder = column(0.1, 0.1, 0.1)
    assert of_x(encoder, 0.1) == of_x(encoder, 1e6) == [0, 0]


def test_a_column_that_was_always_missing_takes_whatever_comes() -> None:
    encoder = column(None, None)
    assert of_x(encoder, None) == [0, 1] and of_x(encoder, "late") == of_x(encoder, 3) == [1, 0]


def test_deviations_are_held_within_ten() -> None:
    encoder = column(*range(100))
    assert of_x(encoder, 1e9) == [10, 0] and of_x(encoder, -1e300) == [-10, 0]
    wild = column(1, 2, 3, 1e308, -1e308, 10**400)
    assert all(math.isfinite(x) for x in of_x(wild, 1e308) + of_x(wild, 1))


def test_mean_and_deviation_are_exact_far_from_zero() -> None:
    learned = column(*(1e9 + i for i in range(1_000))).columns[0]
    assert learned.mean == pytest.approx(1e9 + 499.5, abs=1e-6)
    assert learned.std == pytest.approx(math.sqrt((1_000**2 - 1) / 12), rel=1e-9)


@pytest.mark.parametrize("value", ["cheap", True, "1_000", math.inf, "-inf"])
def test_a_text_among_numbers_is_a_bad_cell_that_names_column_and_value(value: Any) -> None:
    encoder = fitted({"price": 1}, {"price": 2})
    with pytest.raises(CellError, match="column 'price' has " + repr(value).replace("(", r"\(")):
        encoder.prepare({"price": value})


def test_columns_keep_the_order_in_which_they_came() -> None:
    encoder = fitted({"b": 1, "a": "x"}, {"c": 2, "a": "y", "b": 3})
    assert [c.name for c in encoder.columns] == ["b", "a", "c"]
    assert row(encoder, a="x", c=2, b=2) == row(encoder, b=2, c=2, a="x") == [0, 0, 1, 0, 0, 0, 0, 0]


def test_a_further_column_is_ignored_and_an_absent_one_missing() -> None:
    encoder = fitted({"a": 1, "b": "x"}, {"a": 3, "b": "y"})
    assert row(encoder, a=2, b="x", c="more") == row(encoder, a=2, b="x")
    assert row(encoder, b="x") == row(encoder, a=None, b="x")


@pytest.mark.parametrize("cell", [{}, {"a": None, "b": ""}, {"c": 3}])
def test_a_row_without_any_value_is_a_bad_cell(cell: dict[str, Any]) -> None:
    with pytest.raises(CellError, match="no column has a value"):
        fitted({"a": 1, "b": "x"}).prepare(cell)


def test_assets_carry_everything_that_was_learned() -> None:
    encoder = fitted({"größe": 0.1, "b": "ü\n"}, {"größe": 0.7, "b": "y"})
    other = Table()
    other.set_assets(encoder.assets())
    assert other.columns == encoder.columns and other.dim == encoder.dim == 6
    assert json.loads(encoder.assets()["columns"].numpy().tobytes())[0]["name"] == "größe"
    assert encoding.sha256_of(other.assets()) == encoding.sha256_of(encoder.assets())


def test_a_row_is_one_token() -> None:
    encoder = fitted({"a": 1}, {"a": 3})
    tokens = encoder(torch.stack([encoder.prepare({"a": 1}), encoder.prepare({"a": 3})]), torch.tensor([1, 1]))
    assert tokens.values.shape == (2, 1, 2) and bool(tokens.mask.all())
    assert encoder.pool(tokens).tolist() == [[-1, 0], [1, 0]]


def test_before_fit_and_without_rows_it_says_so() -> None:
    with pytest.raises(MMToolError, match="not learned yet"):
        Table().prepare({"a": 1})
    with pytest.raises(MMToolError, match="no row to learn"):
        Table().fit(iter([]))
    with pytest.raises(UsageError, match="max_categories=0"):
        encoding.build("table:0")


def test_counting_the_values_of_an_id_column_needs_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_columns, "MOST_COUNTED", 50)
    tally = Tally()
    for i in range(5_000):
        tally.add(f"id-{i}")
        tally.add("frequent" if i % 3 else "also frequent")
        assert len(tally.words) <= 101
    assert [w for w, _ in tally.frequent(2)] == ["frequent", "also frequent"]
    tally.add("prose " * 100)
    assert tally.others == 10_001 and not any(w.startswith("prose") for w in tally.words)
