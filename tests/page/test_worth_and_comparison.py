"""What inputs are worth and how candidates compare, on the page: words, tables, pictures, and what is left out."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import page_made as made
import pytest
from test_write import HOSTILE, Elements, plots, written

from mmtool.page import comparison, worth
from mmtool.page.figures_comparison import _limits
from mmtool.report import show_comparison, write_comparison


def entry(value: float, half: float = 0.02, **cost: Any) -> dict[str, Any]:
    m = {"value": value, "low": value - half, "high": value + half}
    return {"shapley": m, "alone": m, "left_out": m, "verdict": "as judged", "cost": cost}


def game(inputs: dict[str, dict[str, Any]], **changes: Any) -> dict[str, Any]:
    total = sum(e["shapley"]["value"] for e in inputs.values())
    return {"metric": "accuracy", "greater_is_better": True, "rows": 200, "resamples": 1000, "pairs": [], "subsets": [],
            "all": {"value": 0.3 + total, "low": 0.0, "high": 1.0}, "none": {"value": 0.3, "low": 0.2, "high": 0.4},
            "inputs": inputs, "inputs_never_hidden": False, **changes}


def pair(a: str, b: str, value: float) -> dict[str, Any]:
    m = {"value": value, "low": value - 0.01, "high": value + 0.01}
    return {"inputs": [a, b], "interaction": m, "together": m, "apart": m,
            "word": "redundant" if value < 0 else "synergistic"}


def candidate(name: str, value: float, gap: float | None, **more: Any) -> dict[str, Any]:
    paired = None if gap is None else {"value": gap, "low": gap - 0.02, "high": gap + 0.02}
    return {"name": name, "kind": "fusion", "inputs": ["a", "b"], "fusion": name, "value": value, "low": value - 0.03,
            "high": value + 0.03, "gap": paired, "p_best": None, "loss": None, "parameters": None, "train_seconds": None,
            "predict_ms_per_row": None, "chosen": gap is None, **more}


def compared(*candidates: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"metric": "accuracy", "greater_is_better": True, "rows": 100, "folds": 5, "how": "out of fold, 5 folds",
            "without_inputs": 0.5, "candidates": list(candidates), "skipped": [], "ensemble": None, **changes}


def test_the_first_input_is_named_only_where_it_leads_clearly() -> None:
    assert "a is worth most: +0.300, 75 % of the gain." in worth.sentences(game({"a": entry(0.3), "b": entry(0.1)}))
    said = worth.sentences(game({"a": entry(0.3), "b": entry(0.29)}))
    assert "a (+0.300) and b (+0.290) lead; their intervals overlap." in said


def test_no_worth_and_harm_are_told_apart() -> None:
    said = worth.sentences(game({"a": entry(0.3), "b": entry(0.01), "c": entry(-0.1)}))
    assert "b has no clear worth on these 200 rows: its interval contains zero." in said
    assert "c does harm: on average the model is better without." in said


def test_of_many_clear_pairs_the_strongest_are_told() -> None:
    found = [pair("a", "b", 0.1), pair("a", "c", -0.5), *(pair("b", f"d{i}", 0.05) for i in range(4))]
    said = worth.sentences(game({"a": entry(0.3)}, pairs=found))
    assert said[1].startswith("a and c are redundant: together they gain −0.500, less than")
    assert said[2].startswith("a and b are synergistic: together they gain +0.100, more than")
    assert said[-1] == "2 more pairs are clearly one or the other."
    table = worth.pairs(game({}, pairs=found * 2))
    assert table is not None
    assert "Of 12 intervals, about one in twenty misses zero by chance alone." in table.note


def test_a_ceiling_is_named_where_it_makes_inputs_look_redundant() -> None:
    found = {**pair("a", "b", -0.5), "apart": {"value": 0.8, "low": 0.79, "high": 0.81}}
    said = ("No model can gain more than +0.700 here, and some of these sums are above that: in part, what looks redundant "
            "is the ceiling of Accuracy.")
    assert said in worth.sentences(game({"a": entry(0.3)}, pairs=[found]))
    assert said not in worth.sentences(game({"a": entry(0.3)}, pairs=[pair("a", "b", -0.5)]))
    assert not any("ceiling" in s for s in worth.sentences(game({"a": entry(0.3)}, pairs=[found], metric="their own")))


def test_what_can_be_saved_is_said_of_what_is_not_missed() -> None:
    inputs = {"photo": entry(0.01, seconds_per_row=0.02, encoder_bytes=45_000_000), "text": entry(0.3, seconds_per_row=0.001)}
    said = worth.sentences(game(inputs))
    assert "One row takes 21 ms to extract on one thread: photo 20 ms, text 1 ms." in said
    assert "Nothing is clearly lost without photo. Without it a row takes 1 ms and 45.0 MB of weights are not needed." in said
    inputs["sound"] = entry(0.0, seconds_per_row=0.03)
    assert ("Nothing is clearly lost without sound or photo, each by itself: that several can go is not shown. sound takes "
            "longest; without it a row takes 21 ms.") in worth.sentences(game(inputs))
    del inputs["text"]["cost"]["seconds_per_row"]
    assert not any("One row takes" in s for s in worth.sentences(game(inputs)))


@pytest.mark.parametrize(("seconds", "text"), [(None, "not measured"), (0.0000123, "12.3 µs"), (0.0123, "12.3 ms"),
                                               (2.0, "2 s"), (7200.0, "7,200 s")])
def test_times_have_units(seconds: float | None, text: str) -> None:
    assert worth.seconds(seconds) == text


def test_a_thousand_subsets_have_no_table(tmp_path: Path) -> None:
    ten = made.worth([f"input {i}" for i in range(10)])
    assert (len(ten["subsets"]), worth.subsets(ten)) == (1024, None)
    text = written(tmp_path, made.page(replace(made.classify(rows=60), worth=ten)))
    assert "Pairs of inputs" in text
    assert "Every subset of inputs" not in text


def test_equals_are_no_winners_and_the_simplest_is_named() -> None:
    found = compared(candidate("gated", 0.9, None, parameters=500, p_best=0.23), candidate("sum", 0.89, -0.01, parameters=50),
                     candidate("image", 0.88, -0.019, inputs=["a"], parameters=900), candidate("poe", 0.7, -0.2, inputs=[]))
    said = comparison.sentences(found)
    assert said[0] == "Of 4 candidates, gated has the best Accuracy: 0.900 [0.870 to 0.930] on 100 rows (out of fold, 5 folds)."
    assert said[1] == ("No clear winner: 2 of the other 3 are within the noise of the best. The simplest of these 3 (fewest "
                       "inputs, then fewest parameters) is image, with 1 input and 900 parameters.")
    assert said[2] == "Had other rows been drawn, gated would come first again in about 23 % of cases."
    assert said[3] == "Chosen: gated, the best."


def test_a_winner_is_called_one() -> None:
    assert comparison.sentences(compared(candidate("a", 0.9, None), candidate("b", 0.7, -0.2)))[1] == \
        "a is clearly better than the other one: no paired interval of the difference contains zero."
    assert "The simplest of these 2 (fewest inputs, then fewest parameters) is the best itself, with 2 inputs." in \
        comparison.sentences(compared(candidate("a", 0.9, None), candidate("b", 0.9, 0.0)))[1]


@pytest.mark.parametrize(("nothing", "up", "says"), [
    (0.5, True, "0.500: every candidate is clearly better."),
    (0.95, True, "0.950: no candidate is clearly better than that."),
    (0.8, True, "0.800: 1 of 2 candidates is not clearly better than that."),
    (0.5, False, "0.500: no candidate is clearly better than that."),
    (2.0, False, "2.000: every candidate is clearly better.")])
def test_no_input_is_beaten_or_not(nothing: float, up: bool, says: str) -> None:
    found = compared(candidate("a", 0.9, None), candidate("b", 0.7, -0.2), without_inputs=nothing, greater_is_better=up)
    assert comparison.sentences(found)[-1] == f"An answer that sees no input gets {says}"


def test_what_is_not_known_has_no_column() -> None:
    heads = [head for head, _ in comparison.table(compared(candidate("a", 0.9, None), candidate("b", 0.7, -0.2))).heads]
    assert heads == ["candidate", "Accuracy", "to the best"]
    known = comparison.table(made.comparison(3))
    assert [head for head, _ in known.heads][3:] == ["loss", "chance to be best", "parameters", "training", "a prediction"]
    assert known.rows[0][2] == ("best", "")
    assert "chosen" in known.rows[2][0][1]


def test_the_table_of_a_terminal_is_narrow_and_tells_names_apart(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{what} of goods + a picture of them + a spoken title" for what in ("price", "title", "weight")]
    found = made.comparison(3, names=names, skipped=[{"name": n, "why": "it needs tokens"} for n in ("mult", "perceiver")])
    found["candidates"][1] |= {"parameters": 12_345_678, "train_seconds": 12_345.0}
    show_comparison({"kind": found}, to_stdout=True)
    table, told = (lines := capsys.readouterr().out.splitlines())[:4], lines[4:]
    assert table[0].split() == ["candidate", "Accuracy", "to", "the", "best", "loss", "wins", "parameters", "training"]
    assert max(map(len, table)) <= 112
    assert [row.split("  ")[0] for row in table[1:]] == [f"{n[:13]}…spoken title" for n in names]
    assert "In brackets: 95 % intervals" in told[-2]
    assert told[-1] == "not tried: mult, perceiver: it needs tokens"


def test_names_that_a_cut_would_make_equal_are_whole() -> None:
    names = [f"a picture of goods + {what} + a spoken title" for what in ("price", "title")]
    assert [line[0] for line in comparison.terminal(made.comparison(2, names=names))[1]] == names


def test_why_a_worse_one_was_chosen_and_what_a_search_found() -> None:
    searched = candidate("concat, searched", 0.7, -0.2, fusion="concat", hidden=[64], kind="search",
                         settings={"modality_dropout": 0.1, "given": {"lr": 0.002}}) | {"chosen": True}
    said = comparison.sentences(compared(candidate("a alone", 0.9, None, kind="input", chosen=False), searched))
    assert "Chosen: concat, searched, not the best on these rows (of single models that take every input, it leads)." in said
    assert "Settings of concat, searched: train -f concat --dense 64 --lr 0.002 --modality-dropout 0.1." in said


def test_of_several_targets_the_mean_rank_decides() -> None:
    found = compared(candidate("late", 0.9, None, chosen=False), candidate("concat", 0.7, -0.2, chosen=True))
    assert "Chosen: concat, not the best on these rows (of all targets together, its mean rank is the best)." in \
        comparison.sentences(found)


def test_a_comparison_and_scores_replace_each_other_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {"kind": made.comparison(2)}
    for _ in range(2):
        write_comparison(tmp_path, found, [], {"kind": "classify"}, "one")
    assert capsys.readouterr().err == ""
    (tmp_path / "metrics.json").touch()
    write_comparison(tmp_path, found, [], {"kind": "classify"}, "one")
    assert capsys.readouterr().err == f"warning: the report of scores that was in {tmp_path} is replaced\n"
    assert not (tmp_path / "metrics.json").exists()


def test_one_that_went_astray_does_not_squeeze_the_others() -> None:
    each = [candidate("a", 0.9, None), candidate("b", 0.85, -0.05), candidate("c", -1e9, -1e9)]
    low, high = _limits(each, 0.5)
    assert 0 < low < 0.5
    assert high < 1
    assert "An arrow at the edge" in made_caption(each)


def made_caption(each: list[dict[str, Any]]) -> str:
    from mmtool.page.figures_comparison import dots

    plot = dots(made.compared(compared(*each)))
    assert plot is not None
    return plot.caption


def test_a_comparison_alone_makes_a_page(tmp_path: Path) -> None:
    several = made.page(made.compared(made.comparison(12)), made.compared(made.comparison(2), "price"))
    text = Elements(written(tmp_path, several))
    assert plots(tmp_path) == ["kind-comparison.svg", "price-comparison.svg"]
    assert "No clear winner" in text.text
    assert "mult" in text.text
    assert "553 rows" in text.text
    for absent in ("Numbers", "Plots", "gets most wrong", "No metric means", "What each input is worth", "predictions.jsonl"):
        assert absent not in text.text
    contents = re.findall(r"#target-\d", "".join(str(given.get("href")) for tag, given in text.tags if tag == "a"))
    assert contents == ["#target-1", "#target-2"]


def test_nothing_compared_and_nothing_skipped_break_nothing(tmp_path: Path) -> None:
    none, one = compared(without_inputs=None), compared(candidate("one", 1.0, None))
    text = Elements(written(tmp_path, made.page(made.compared(none), made.compared(one)))).text
    assert "Nothing could be compared." in text
    assert "Comparison 1 candidate\n" in text
    assert "one is the only candidate. Accuracy: 1.000" in text
    assert "Chosen: one" not in text


def test_names_of_candidates_and_inputs_are_text(tmp_path: Path) -> None:
    found = made.comparison(3, names=[HOSTILE, HOSTILE * 20, "_x"])
    found |= {"how": HOSTILE, "metric": HOSTILE, "skipped": [{"name": HOSTILE, "why": HOSTILE}]}
    found["candidates"][0] |= {"kind": HOSTILE, "fusion": HOSTILE, "inputs": [HOSTILE]}
    page = made.page(replace(made.classify(rows=60), worth=made.worth([HOSTILE, "b", "c"]), comparison=found))
    text = written(tmp_path, page)
    elements = Elements(text)
    assert "script" not in {tag for tag, _ in elements.tags}
    assert not re.search("[\x00\u202e]", text)
    assert all(not name.startswith("on") for _, given in elements.tags for name in given)
    assert "{{ 7*7 }}" in elements.text


def test_equal_worths_give_equal_bytes(tmp_path: Path) -> None:
    page = made.page(replace(made.classify(rows=60), worth=made.worth(), comparison=made.comparison(12)))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        written(tmp_path / name, page)
    first, second = ({p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*") if p.is_file()}
                     for n in ("a", "b"))
    assert first == second
    assert {"kind-worth.svg", "kind-comparison.svg"} <= {p.name for p in first}
