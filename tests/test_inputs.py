"""Which columns are read, with which encoders."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmtool import inputs
from mmtool.errors import UsageError
from mmtool.inputs import Input, modality_of_column, parse
from mmtool.manifest.open import open_manifest
from mmtool.manifest.rows import Blob

COLUMNS = ["id", "photo", "a+b", "price", "weight", "x=y", "Größe cm"]


@pytest.mark.parametrize(("text", "expected"), [
    ("photo=timm:resnet18,img_size=64", Input("photo", ("photo",), "timm:resnet18,img_size=64")),
    ("left@photo=e", Input("left", ("photo",), "e")),
    ("a+b=e", Input("a_b", ("a+b",), "e")),
    ("price+weight=table", Input("price_weight", ("price", "weight"), "table")),
    ("t@price+weight=table", Input("t", ("price", "weight"), "table")),
    ("x=y=e", Input("x_y", ("x=y",), "e")),
    ("Größe cm=e", Input("Gr__e_cm", ("Größe cm",), "e"))])
def test_encode_texts(text: str, expected: Input) -> None:
    assert parse(text, COLUMNS) == expected


@pytest.mark.parametrize(("text", "words"), [
    ("photo", "is not COLUMN=ENCODER"), ("nope=e", "no column 'nope'"), ("photo=", "names no encoder"),
    ("price+nope=table", "no column 'nope'")])
def test_bad_encode_texts_name_the_columns(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text, COLUMNS)
    assert words in str(caught.value)


def test_two_inputs_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="two inputs are called 'photo'"):
        inputs.parse_all(["photo=a", "photo=b"], COLUMNS)


@pytest.mark.parametrize(("cells", "modality"), [
    (["a.jpg", "b/c.PNG", "data:image/png;base64,AAAA"], "image"), (["x.wav", "y.mp3"], "audio"),
    (["a red bicycle, hardly used", "two tickets for tonight", "oak table"], "text"),
    (["red", "blue", "red", "red", "blue", "red", "red", "red", "blue", "red"], None), (["1.5", "2", "17"], None),
    (["2024-01-01", "2024-01-02", "2024-01-03"], None), (["A-1", "A-2", "A-3"], None), ([], None),
    ([Blob("x.jpg", b"\xff\xd8\xff\xe0")], "image"), ([Blob("x.txt", b"red")], "text")])
def test_the_modality_of_a_column(cells: list[str], modality: str | None) -> None:
    assert modality_of_column(cells) == modality


def test_columns_without_an_encoder_are_left_out_aloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "DEFAULT_ENCODERS", {"text": ("tiny-letters",), "image": ("not-installed",)})
    path = tmp_path / "a.csv"
    path.write_text("id,photo,title,kind,split\n1,a.jpg,a long red coat,x,train\n2,b.jpg,one pair of shoes,x,test\n")
    manifest = open_manifest(str(path))
    chosen, notes = inputs.choose(manifest, ["id", "photo", "title", "kind", "split"])
    assert chosen == [Input("title", ("title",), "tiny-letters")]
    assert notes == ["column 'photo' holds image, but no encoder for it is installed; left out "
                     "(mmtool's plugins/mmtool-starter brings one)"]
