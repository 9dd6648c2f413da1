"""The page as files: what is on it, what is escaped, and that odd data break nothing."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import page_made as made
import pytest

from mmtool.errors import StorageError
from mmtool.folders import replacing
from mmtool.page.contents import Curve, Page, Shown, TargetPart
from mmtool.page.write import MEDIA_BYTES, write
from mmtool.report import check_report
from mmtool.tasks.classify import Classify

HOSTILE = "<script>alert(1)</script>\"'&{{ 7*7 }}$x^2$\u202egnp.exe\x00\ufffe"


class Elements(HTMLParser):
    """Start tags with their attributes, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def written(folder: Path, page: Page) -> str:
    write(folder, page)
    for plot in (folder / "plots").iterdir():
        ElementTree.fromstring(plot.read_bytes())
    return (folder / "report.html").read_text(encoding="utf-8")


def plots(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / "plots").iterdir())


def third_party() -> TargetPart:
    metrics = {"overall": {"words_right": {"value": 0.5, "low": 0.4, "high": 0.6}}, "by_inputs": {}, "baselines": {}}
    return TargetPart("caption", "describe", [], "words_right", True, metrics, [{"id": "a", "prediction": "A cat"}],
                      ["A dog"], [])


def test_every_task_has_its_plots(tmp_path: Path) -> None:
    written(tmp_path, made.page(made.classify(), made.tag(), made.regress()))
    assert plots(tmp_path) == sorted(
        [f"kind-{k}.svg" for k in ("inputs", "confusion", "reliability", "selective", "roc", "pr", "curves")]
        + [f"tags-{k}.svg" for k in ("inputs", "pr", "tags", "reliability", "counts", "curves")]
        + [f"price-{k}.svg" for k in ("inputs", "truth", "residuals")])


def test_equal_pages_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, made.page(made.classify(), made.tag(), made.regress()))
    first, second = ({p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*") if p.is_file()}
                     for n in ("a", "b"))
    assert first == second


def test_a_second_report_takes_the_place_of_the_first(tmp_path: Path) -> None:
    for page in (made.page(made.classify()), made.page(made.regress())):
        with replacing(tmp_path / "r") as fresh:
            write(fresh, page)
    assert plots(tmp_path / "r") == ["price-inputs.svg", "price-residuals.svg", "price-truth.svg"]
    assert [p.name for p in tmp_path.iterdir()] == ["r"]
    check_report(tmp_path / "r")


@pytest.mark.parametrize("name", ["notes.txt", "plots/mine.png", "plots/mine.svg"])
def test_a_folder_with_other_files_is_no_place_for_a_report(tmp_path: Path, name: str) -> None:
    write(tmp_path, made.page(made.classify()))
    (tmp_path / name).write_text("precious")
    with pytest.raises(StorageError, match=f"holds other files, such as {name}"):
        check_report(tmp_path)


def test_the_page_stands_alone(tmp_path: Path) -> None:
    page = Elements(written(tmp_path, made.page(made.classify(), made.tag())))
    assert not {"script", "link", "iframe", "object", "base", "form"} & {tag for tag, _ in page.tags}
    links = [v for _, given in page.tags for k, v in given.items() if k in ("src", "href", "srcset", "poster")]
    assert links
    assert all(v and v.startswith(("data:image/", "#target-")) for v in links)
    policy = [given.get("content") for tag, given in page.tags if tag == "meta" and "http-equiv" in given]
    assert policy == ["default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"]


def test_what_comes_from_files_is_text(tmp_path: Path) -> None:
    labels = [HOSTILE, "_hidden", "plain"]
    part = made.classify(labels=labels, rows=60)
    part = replace(part, column=HOSTILE, predictions=[{**p, "id": HOSTILE, "inputs": [HOSTILE]} for p in part.predictions],
                   curves=[Curve(HOSTILE, [1.0, 2.0], HOSTILE, None, [0.5, 0.4], 2.0)])
    cells = [Shown(HOSTILE, "text", HOSTILE, text=HOSTILE), Shown(HOSTILE, "image", HOSTILE, problem=HOSTILE),
             Shown("x", "image", "x", data_uri="javascript:alert(1)"), Shown("x", "audio", "x", data_uri="data:text/html,<b>")]
    text = written(tmp_path, Page(HOSTILE, [(HOSTILE, HOSTILE)], [HOSTILE], [part, part], lambda _: cells))
    page = Elements(text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert not re.search("[\x00\u202e]", text)
    assert "javascript:" not in text
    assert "data:text/html" not in text
    assert "{{ 7*7 }}" in page.text
    assert all(not name.startswith("on") for _, given in page.tags for name in given)


def test_a_number_in_dollars_is_no_formula(tmp_path: Path) -> None:
    written(tmp_path, made.page(made.classify(labels=["$5", "$10", "a_b^{"], rows=60)))
    svg = (tmp_path / "plots" / "kind-confusion.svg").read_text(encoding="utf-8")
    assert "$10" in svg


def test_a_thousand_classes_stay_small(tmp_path: Path) -> None:
    text = written(tmp_path, made.page(made.classify(1000, 1050, subsets=1)))
    assert "the 20 with the most errors" in text
    assert len(text) < 1_000_000
    assert all(p.stat().st_size < 200_000 for p in (tmp_path / "plots").iterdir())


def test_many_tags_show_some_of_each_kind(tmp_path: Path) -> None:
    assert "19 of 60 tags are shown" in written(tmp_path, made.page(made.tag(60, 300)))


def test_predictions_without_probabilities_have_fewer_plots(tmp_path: Path) -> None:
    text = written(tmp_path, made.page(made.classify(probabilities=False)))
    assert plots(tmp_path) == ["kind-confusion.svg", "kind-curves.svg", "kind-inputs.svg"]
    assert "no confidence is known" in text


def test_a_third_partys_task_has_metrics_only(tmp_path: Path) -> None:
    text = written(tmp_path, made.page(third_party()))
    assert plots(tmp_path) == []
    assert "words_right" in text
    assert "0.400 to 0.600" in text


@pytest.mark.parametrize("broken", ["one class", "one row", "no row", "constant truth", "all right", "odd losses"])
def test_odd_data_break_nothing(tmp_path: Path, broken: str) -> None:
    part: TargetPart = made.regress(constant=True) if broken == "constant truth" else made.classify()
    changed: dict[str, Any] = {}
    if broken == "one class":
        changed = {"truth": ["class a0"] * len(part.truth)}
    elif broken in ("one row", "no row"):
        n = 1 if broken == "one row" else 0
        empty = {} if n else {"metrics": {"overall": {}, "by_inputs": {}, "baselines": {}}}
        changed = {"truth": part.truth[:n], "predictions": part.predictions[:n], **empty}
    elif broken == "all right":
        changed = {"truth": [str(p["prediction"]) for p in part.predictions]}
    elif broken == "odd losses":
        nan, inf = float("nan"), float("inf")
        changed = {"curves": [Curve("f", [], "epoch", None, [], None), Curve("g", [1.0], "epoch", [nan], [inf], 7.0),
                              Curve("h", [1.0, 2.0], "epoch", None, [nan, 1.0], None)]}
    page = Elements(written(tmp_path, made.page(replace(part, **changed))))
    assert ("article" in {tag for tag, _ in page.tags}) == (broken not in ("no row", "all right", "one row"))
    if broken == "constant truth":
        assert "R²" not in page.text.split("Plots")[0]


def test_a_class_that_training_never_saw_is_in_the_tables(tmp_path: Path) -> None:
    task = Classify()
    task.fit(["cat", "dog", "hen"])
    truth = ["cat", "dog", "yak", "dog"]
    answers = [{"prediction": "cat", "probability": 0.6, "probabilities": {"cat": 0.6, "dog": 0.3, "hen": 0.1}}] * 4
    text = Elements(written(tmp_path, made.page(made.part(task, "classify", "animal", {"photo": answers}, truth)))).text
    assert "yak" in text
    assert "true of no row here: hen" in text


def test_pictures_and_sounds_are_bounded(tmp_path: Path) -> None:
    large = "data:image/png;base64," + "A" * (MEDIA_BYTES // 3 - 100)
    text = written(tmp_path, made.page(made.classify(), cells=lambda _: [Shown("photo", "image", "photo", data_uri=large)]))
    assert text.count(large) == 3
    assert text.count("left out, so that the page stays small") == text.count("<article") - 3 > 0
    assert len(text) < 2_500_000


def test_the_embedded_plots_are_the_files(tmp_path: Path) -> None:
    text = written(tmp_path, made.page(made.regress()))
    embedded = {base64.b64decode(b) for b in re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", text)}
    assert embedded == {p.read_bytes() for p in (tmp_path / "plots").iterdir()}


def test_the_users_style_is_left_alone(tmp_path: Path) -> None:
    import matplotlib

    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    with matplotlib.rc_context({"font.size": 33.0}):
        write(tmp_path / "one", made.page(made.classify()))
        assert matplotlib.rcParams["font.size"] == 33.0
    svg = (tmp_path / "one" / "plots" / "kind-inputs.svg").read_bytes()
    write(tmp_path / "other", made.page(made.classify()))
    assert (tmp_path / "other" / "plots" / "kind-inputs.svg").read_bytes() == svg
