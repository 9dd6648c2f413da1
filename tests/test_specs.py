"""Plugin specifications on the command line: reading them, and checking them against a signature."""

from pathlib import Path
from typing import Literal

import pytest

from mmtool.errors import UsageError
from mmtool.specs import Spec, bind, describe, parse, signature


class Network:
    def __init__(self, *, model: str, size_px: int | None = None, drop: float = 0.1, aug: bool = False,
                 mode: Literal["mean", "max", 3] = "mean", weights: Path | None = None, either: int | str = 1) -> None:
        pass


class Plain:
    pass


@pytest.mark.parametrize(("text", "spec"), [
    ("timm", Spec("timm")),
    ("timm:resnet18", Spec("timm", "resnet18")),
    ("timm:resnet18,size_px=160", Spec("timm", "resnet18", {"size_px": "160"})),
    ("timm:size_px=160,drop=0.5", Spec("timm", None, {"size_px": "160", "drop": "0.5"})),
    ("timm,size_px=160", Spec("timm", None, {"size_px": "160"})),
    ("dist/timm:resnet18", Spec("dist/timm", "resnet18")),
    ("hub:org/model:main", Spec("hub", "org/model:main")),
    ("x:a,b", Spec("x", "a,b")),
    ("x:k=a,b,c,l=2", Spec("x", None, {"k": "a,b,c", "l": "2"})),
    ("x:k=a=b", Spec("x", None, {"k": "a=b"})),
    ("x:k=", Spec("x", None, {"k": ""})),
])
def test_a_specification_is_a_name_a_variant_and_options(text: str, spec: Spec) -> None:
    assert parse(text) == spec


@pytest.mark.parametrize("text", ["", ":resnet18", "timm:"])
def test_a_specification_without_a_name_or_after_an_empty_colon_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="NAME:VARIANT,key=value"):
        parse(text)


def test_a_variant_needs_a_colon() -> None:
    with pytest.raises(UsageError, match="write timm:resnet18 for a variant"):
        parse("timm,resnet18")


def test_the_variant_is_the_first_option_and_defaults_are_filled_in() -> None:
    assert bind(Network, parse("n:resnet18")) == {"model": "resnet18", "size_px": None, "drop": 0.1, "aug": False,
                                                  "mode": "mean", "weights": None, "either": 1}


@pytest.mark.parametrize(("option", "value"), [
    ("size_px=160", 160), ("size_px=none", None), ("size_px=", None), ("drop=1e-3", 1e-3), ("aug=true", True),
    ("aug=no", False), ("mode=max", "max"), ("mode=3", 3), ("weights=a/b.safetensors", Path("a/b.safetensors")),
    ("either=2", 2), ("either=two", "two")])
def test_an_option_becomes_what_its_annotation_says(option: str, value: object) -> None:
    assert bind(Network, parse(f"n:m,{option}"))[option.partition("=")[0]] == value


def test_a_path_may_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert bind(Network, parse("n:m,weights=~/w.pt"))["weights"] == Path("/home/ada/w.pt")


@pytest.mark.parametrize(("option", "what"), [
    ("size_px=big", "int"), ("drop=x", "float"), ("aug=maybe", "true|false"), ("mode=min", "mean|max|3")])
def test_a_bad_value_is_told_with_what_is_expected(option: str, what: str) -> None:
    name, _, value = option.partition("=")
    with pytest.raises(UsageError) as caught:
        bind(Network, parse(f"n:m,{option}"))
    assert str(caught.value) == f"n: {name}='{value}' is not {what}"


def test_an_unknown_option_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"n has no option 'sise'; options: model=text, size_px=int, .*weights=path"):
        bind(Network, parse("n:m,sise=3"))


def test_a_required_option_is_asked_for() -> None:
    with pytest.raises(UsageError, match="n needs model=text"):
        bind(Network, parse("n"))


@pytest.mark.parametrize("text", ["n:x,model=y", "p:x"])
def test_a_variant_that_has_no_option_to_go_to_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="the variant 'x' has no option to go to"):
        bind(Plain if text.startswith("p") else Network, parse(text))


def test_a_class_without_options_takes_none() -> None:
    assert signature(Plain) == {}
    assert bind(Plain, parse("p")) == {}
    with pytest.raises(UsageError, match="options: none"):
        bind(Plain, parse("p:a=1"))


def test_annotations_are_described_for_people() -> None:
    assert [describe(a) for a in (int, str, bool, Path, Literal["a", "b"], int | None, int | str)] == \
           ["int", "text", "true|false", "path", "a|b", "int", "int or text"]
