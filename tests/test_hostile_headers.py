"""Headers that somebody wrote by hand, every sum right: refused with the place, before anything is built or opened."""

from __future__ import annotations

import copy
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mmtool.errors import ArtefactError, MMToolError
from mmtool.features.format import HEADER
from mmtool.features.header import read_header as read_features_header
from mmtool.features.header import seal
from mmtool.features.reader import Features
from mmtool.model import load
from mmtool.sealing import read_sealed, sealed
from mmtool.settings import Settings, like

GOLDEN = Path(__file__).parent / "golden" / "v2"


def change(value: Any, place: str, new: Any) -> Any:
    """A copy with one value put in; `a/b` is a path in it, and `...` takes the value away."""
    found = copy.deepcopy(value)
    *inner, last = place.split("/")
    at = found
    for key in inner:
        at = at[int(key)] if isinstance(at, list) else at[key]
    if new is ...:
        del at[last]
    else:
        at[last] = new
    return found


@pytest.mark.parametrize(("place", "new", "fact"), [
    ("inputs/..", {}, "a name in the header.inputs is '..', not an input's name"),
    ("inputs/..%2fx", {}, "not an input's name"), ("inputs/.hidden", {}, "not an input's name"),
    ("inputs/a/dim", 0, "whole number from 1"), ("inputs/a/dim", 1 << 21, "whole number from 1"),
    ("inputs/a/dim", 2.0, "a.dim is 2.0"), ("inputs/a/dim", True, "a.dim is True"),
    ("inputs/a/dtype", "object", "one of float32"),
    ("inputs/a/pooled", 1, "true or false"), ("inputs/a/columns", "a", "a list"), ("inputs/a/identity", {}, "lacks 'name'"),
    ("inputs/a/identity/assets", "x", "a SHA-256"), ("inputs/a/module", "os", "unknown key 'module'"),
    ("inputs/a/options", {"weights": {"file": "../../etc/passwd", "sha256": "0" * 64}}, "options.weights"),
    ("inputs/a/options", {"weights": ["/etc/passwd"]}, "options.weights"), ("inputs", [], "a list, not an object"),
    ("rows", 9, "states 9 rows"), ("rows", -8, "whole number"), ("shards", ..., "lacks 'shards'"),
    ("shards/0/rows", 0, "from 1"),
    ("shards/0/sha256", {"a": "0" * 64}, "shard 0 has other inputs"), ("upstream", {}, "upstream lacks 'inputs'"),
    ("files", {"../x": "0" * 64}, "names the file '../x'"), ("numerics", [[[]]] * 50, ""), ("format", "2", "no format"),
    ("format", 0, "no format"), ("format", 3, "this mmtool reads 2 and older"), ("format", True, "no format")])
def test_features_headers(place: str, new: Any, fact: str, tmp_path: Path) -> None:
    own = Path(shutil.copytree(GOLDEN / "features", tmp_path / "f"))
    header = change(json.loads((own / HEADER).read_bytes()), place, new)
    if isinstance(header["inputs"], dict) and place not in ("files",):
        seal(own, header)
    else:
        from mmtool.features.header import digest_of

        (own / HEADER).write_text(json.dumps({**header, "digest": digest_of(header)}))
    if not fact:
        assert read_features_header(own)
        return
    with pytest.raises(ArtefactError) as error:
        read_features_header(own)
    assert fact in error.value.message
    assert str(own / HEADER) in error.value.message


@pytest.mark.parametrize(("place", "new", "fact"), [
    ("hidden", [0], "hidden[0] is 0"), ("hidden", [1 << 20] * 65, "a list of at most 64"),
    ("hidden", ["2"], "hidden[0] is '2'"),
    ("hidden", [1 << 20, 1 << 20], "far larger than the file"), ("inputs/a/dim", 1 << 20, "instead of"),
    ("fusion/options/dim", 1 << 40, "far larger than the file"), ("fusion/name", "concat", "concat has no option 'dim'"),
    ("fusion/options/path", "/etc/passwd", "no option 'path'"), ("fusion/module", "os", "unknown key 'module'"),
    ("tasks/label/labels", [1], "labels[0] is 1"), ("tasks/label/options", {"label_smoothing": "x"}, "label_smoothing"),
    ("metrics/overall", {"accuracy": {"value": "high"}}, "lacks 'low'"), ("metrics/by_inputs", {"a": 1}, "by_inputs.a is 1"),
    ("metrics/measured_on", None, "not a text"), ("temperatures", {}, "temperatures of other targets"),
    ("temperatures/label/a", 0, "a number from"), ("temperatures/label/a", -1.0, "a number from"),
    ("curves", [{"name": "x"}], "curves[0] lacks"), ("tied", {"weights/a/w": "nothing"}, "is the tensor 'nothing'"),
    ("tied", {"trained": "trained"}, "is the tensor 'trained'"), ("comparison", {"label": {"candidates": 1}}, "lacks 'metric'"),
    ("comparison", {"other": {}}, "comparison.other lacks"), ("conformal", {"rows": {"label": {"a": -1}}}, "whole number"),
    ("conformal", {"rows": {"label": {"a": 5}}}, "conformal/0/a"), ("reference", {"z": {"held": 1}}, "reference of an input"),
    ("upstream", {"fusion": {"name": "concat", "options": {}}}, "upstream lacks 'identity'"), ("inputs", {}, "no input"),
    ("inputs/../x", {}, ""), ("asked/hidden", 3, "a list"), ("asked/seed", 1.5, "whole number"),
    ("data/test", -1, "whole number"),
    ("inputs/a/weights", "os", "one of package"), ("recipe", {}, "lacks 'optimizer'")])
def test_model_headers(place: str, new: Any, fact: str, tmp_path: Path) -> None:
    tensors, header = read_sealed(GOLDEN / "classify.safetensors")
    if place == "inputs/../x":
        place, fact = "inputs", "not an input's name"
        new = {**header["inputs"], "../x": header["inputs"]["a"]}
    path = tmp_path / "m.safetensors"
    path.write_bytes(sealed(tensors, change(header, place, new)))
    started = time.process_time()
    with pytest.raises(ArtefactError) as error:
        load(path)
    assert time.process_time() - started < 5
    assert fact in error.value.message
    assert str(path) in error.value.message


@pytest.mark.parametrize(("name", "new", "fact"), [
    ("network/front.scales.0.mean", torch.tensor([float("nan"), 0.0]), "holds a number that is not finite"),
    ("network/tasks.0.heads.0.weight", torch.full((2, 2), float("inf")), "holds a number that is not finite"),
    ("network/front.scales.0.mean", None, "it has no tensor 'network/front.scales.0.mean'"),
    ("network/extra", torch.ones(1), "'network/extra' that the network does not know"),
    ("os/system", torch.ones(1), "'os/system' that no part of the model reads"), ("trained", torch.ones(3), "'trained'"),
    ("trained", None, "'trained'"), ("network/front.scales.0.mean", torch.zeros(3), "is [3] instead of [2]"),
    ("network/front.scales.0.mean", torch.zeros(2, dtype=torch.int64), "of torch.int64 instead of torch.float32"),
    ("task/0/labels", torch.zeros(4, dtype=torch.uint8), "does not hold what its header says"),
    ("weights/a/w", torch.tensor([float("nan")]), "'weights/a/w' holds a number that is not finite")])
def test_tensors_that_lack_or_are_too_many_or_not_finite_are_named(name: str, new: torch.Tensor | None, fact: str,
                                                                   tmp_path: Path) -> None:
    tensors, header = read_sealed(GOLDEN / "classify.safetensors")
    changed = {**tensors, name: new} if new is not None else {k: v for k, v in tensors.items() if k != name}
    path = tmp_path / "m.safetensors"
    path.write_bytes(sealed(changed, header))
    with pytest.raises(ArtefactError) as error:
        load(path)
    assert fact in error.value.message


def test_a_path_in_a_header_is_never_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, header = read_sealed(GOLDEN / "classify.safetensors")
    given = Settings(("label",))
    for hostile in ("timm:resnet18,weights=/etc/passwd", "timm:resnet18,weights=x"):
        with pytest.raises(MMToolError):
            like({**header, "asked": {**header["asked"], "fusion": hostile}}, given, set(), {}, "data.csv")
    entry = header["inputs"]["a"]
    for changes in ({"options": {"weights": "/etc/passwd"}}, {"options": {"model": "resnet18,weights=/etc/passwd"}}):
        hostile_entry = {**entry, **changes, "identity": {**entry["identity"], "name": "timm"}}
        with pytest.raises(ArtefactError, match="weights"):
            like({**header, "inputs": {"a": hostile_entry}}, given, set(), {}, "data.csv")
        path = tmp_path / "m.safetensors"
        path.write_bytes(sealed(tensors, {**header, "inputs": {**header["inputs"], "a": hostile_entry}}))
        if "weights" in changes["options"]:
            from mmtool.extraction.sources import like as readings
            from mmtool.manifest.open import Manifest
            from mmtool.media.limits import Limits

            nothing = Manifest("x", tmp_path, (), lambda: iter(()))
            with pytest.raises(ArtefactError, match="no file may do that"):
                readings(load(path).headers(["a"], "the model"), nothing, ["a"], {}, limits=Limits(), seed=0,
                         device=torch.device("cpu"))


def test_rows_that_stand_for_terabytes_or_are_no_texts_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Path(shutil.copytree(GOLDEN / "features", tmp_path / "f"))
    header = json.loads((own / HEADER).read_bytes())
    table = Features(own).rows
    for rows, fact in (
            (table.set_column(1, "a", pa.array([b"x"] * 8)), "not texts"),
            (table.drop_columns(["status:a"]), "no column 'status:a'"),
            (table.slice(0, 7), "7 rows instead of 8"), (table.drop_columns(["id"]), "no column 'id'"),
            (table.set_column(1, "a", pa.array(["x" * 100_000] * 8)), "texts are too large")):
        pq.write_table(rows, own / "rows.parquet", compression="zstd")
        seal(own, header)
        monkeypatch.setattr("mmtool.features.rows.MOST_TEXT", 10_000)
        with pytest.raises(ArtefactError) as error:
            _ = Features(own).rows
        assert fact in error.value.message
        assert error.value.code == "E_ARTEFACT_DAMAGED"


def test_pipes_in_the_place_of_files_are_not_waited_for(mmtool: Callable, tmp_path: Path) -> None:
    own = Path(shutil.copytree(GOLDEN / "features", tmp_path / "f"))
    for name in ("a/00000.safetensors", "rows.parquet"):
        whole = (own / name).read_bytes()
        (own / name).unlink()
        os.mkfifo(own / name)
        with pytest.raises(ArtefactError, match="no regular file"):
            _ = Features(own).rows, Features(own).tokens("a", [0])
        (own / name).unlink()
        (own / name).write_bytes(whole)
    os.mkfifo(tmp_path / "m.safetensors")
    assert mmtool("info", tmp_path / "m.safetensors").code != 0


def test_a_damaged_report_is_said(mmtool: Callable, tmp_path: Path) -> None:
    for name, text in (("metrics.json", '{"overall": 1}'), ("metrics.json", "[" * 5000), ("metrics.json", "{}"),
                       ("metrics.json", '{"overall": {"a": NaN}}'),
                       ("comparison.json", '{"targets": {"x": {"candidates": 1}}}'),
                       ("metrics.json", '{"overall": {}, "by_inputs": {}, "baselines": {}, "worth": {"metric": 1}}')):
        folder = tmp_path / f"r{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / name).write_text(text)
        ran = mmtool("info", folder)
        assert (ran.code, "E_ARTEFACT_DAMAGED" in ran.err, "Traceback" in ran.err) == (4, True, False), (text, ran.err)


@pytest.mark.parametrize("line", ['{"id": 1}', "[]", "NaN", '{"id": 1, "prediction": NaN}',
                                  '{"id": 1, "id": 2, "prediction": "a"}',
                                  '{"id": [1], "prediction": "a"}', '{"id": 1, "prediction": {"a": {}}}', "[" * 100_000,
                                  '{"id": 1, "prediction": "a", "probabilities": {"a": "x"}}',
                                  '{"id": "\\ud800", "prediction": "a"}',
                                  '{"id": 1, "targets": {"a": 1}}'])
def test_a_prediction_of_another_tool_that_is_none_is_named_with_its_line(line: str, tmp_path: Path) -> None:
    from mmtool.predictionfile import read_predictions

    (tmp_path / "p.jsonl").write_text('{"id": 0, "prediction": "a", "more": [1]}\n\n' + line + "\n")
    with pytest.raises(ArtefactError, match=r"p\.jsonl, line 3: ") as error:
        read_predictions(tmp_path / "p.jsonl")
    assert error.value.code == "E_PREDICTIONS"
