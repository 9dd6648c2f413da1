"""Sentences say what the intervals allow, no more."""

from __future__ import annotations

import page_made as made
import pytest

from mmtool.page import words
from mmtool.page.contents import TargetPart
from mmtool.page.worst import worst_rows


def metric(value: float, half: float = 0.02) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def target(name: str = "accuracy", **found: dict[str, float]) -> TargetPart:
    overall = found.pop("overall")
    nothing = found.pop("nothing", None)
    baselines = {words.WITHOUT: {name: nothing}} if nothing else {}
    by_inputs = {key.replace("_and_", "+"): {name: m} for key, m in found.items()}
    rows = [{"id": "1", "prediction": 0}] * 2000
    return TargetPart("y", "classify", [], name, name not in words.LESS_IS_BETTER,
                      {"overall": {name: overall}, "by_inputs": by_inputs, "baselines": baselines}, rows, ["0"] * 2000, [])


def test_a_clear_gain_is_called_clear() -> None:
    said = words.sentences(target(overall=metric(0.9), nothing=metric(0.3), image_and_text=metric(0.9), image=metric(0.7),
                                  text=metric(0.8)))
    assert said == ["Accuracy is 0.900 on 2,000 rows (95 % interval: 0.880 to 0.920): share of rows with the right answer.",
                    "An answer that sees no input at all gets 0.300 [0.280 to 0.320]; the model is clearly better.",
                    "The best single input, text, reaches 0.800 [0.780 to 0.820]. Adding image clearly improves it "
                    "(Accuracy +0.100)."]


def test_overlapping_intervals_are_noise() -> None:
    said = words.sentences(target(overall=metric(0.9), nothing=metric(0.89), image_and_text=metric(0.9), image=metric(0.88),
                                  text=metric(0.8)))
    assert "within the noise" in said[1]
    assert "(Accuracy +0.020), but the intervals overlap" in said[2]


@pytest.mark.parametrize(("whole", "says"), [(2.0, "clearly improves it (MAE −3.000)"),
                                             (9.0, "clearly makes it worse (MAE +4.000)"), (5.0, "changes nothing")])
def test_less_error_is_better(whole: float, says: str) -> None:
    said = words.sentences(target("mae", overall=metric(whole), nothing=metric(7.0), a_and_b_and_c=metric(whole),
                                  a=metric(6.0), b=metric(5.0), c=metric(8.0)))
    assert said[2].startswith("The best single input, b, reaches 5.000")
    assert "dding a and c " in said[2]
    assert says in said[2]
    assert ("worse than that" in said[1]) == (whole > 7)


def test_one_input_is_compared_with_nothing_else() -> None:
    assert len(words.sentences(target(overall=metric(0.9), nothing=metric(0.3), image=metric(0.9)))) == 2


@pytest.mark.parametrize(("value", "text"), [(0.0, "0.000"), (0.91, "0.910"), (-0.5, "−0.500"), (12.345, "12.35"),
                                             (123.45, "123.5"), (12345.6, "12,346"), (1234567.0, "1.23e+06"),
                                             (0.00012, "0.00012"), (float("inf"), "inf")])
def test_numbers_are_short(value: float, text: str) -> None:
    assert words.number(value) == text


def test_an_interval_has_one_scale() -> None:
    assert words.interval({"value": 0.0, "low": -0.015, "high": -0.000005}) == "−0.015 to 0.000"


def test_the_surest_mistakes_come_first() -> None:
    part = made.classify()
    how, rows = worst_rows(part)
    wrong = [p for p, t in zip(part.predictions, part.truth, strict=True) if p["prediction"] != t]
    assert how.startswith(f"{len(wrong)} of 240 rows are wrong")
    assert [r.id for r in rows] == [p["id"] for p in sorted(wrong, key=lambda p: -p["probability"])][:12]
    assert all(r.truth != r.prediction for r in rows)


def test_the_largest_errors_come_first() -> None:
    part = made.regress()
    _, rows = worst_rows(part)
    errors = {p["id"]: abs(p["prediction"] - float(t.strip("[]"))) for p, t in zip(part.predictions, part.truth, strict=True)}
    assert [r.id for r in rows] == sorted(errors, key=lambda i: -errors[i])[:12]


def test_wrong_tags_are_named() -> None:
    _, rows = worst_rows(made.tag())
    for row in rows:
        true, given = (set(x.split(", ")) - {"(no tag)"} for x in (row.truth, row.prediction))
        named = {name: set(tags.split(", ")) for name, tags in row.details}
        assert named.get("left out", set()) == true - given
        assert named.get("given wrongly", set()) == given - true
