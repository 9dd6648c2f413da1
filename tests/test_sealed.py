"""Whatever changes in a file of ours is named with its place, and never taken for what was written."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random

import mutations
import pytest
import torch
from artefacts import KEYS, features, model, pack

from mmtool import sealing
from mmtool.cache import Cache
from mmtool.errors import ArtefactError
from mmtool.features.reader import Features
from mmtool.model import load
from mmtool.training.keeping import Keeper

GOLDEN = Path(__file__).parent / "golden" / "v2"


def flip(path: Path, at: int, bit: int = 0) -> bytes:
    """Flip one bit; returns what was there before."""
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
    return whole


@pytest.mark.parametrize("folder", ["features", "fused"])
def test_a_flipped_bit_anywhere_in_features_is_named_with_its_file(folder: str, tmp_path: Path) -> None:
    own = Path(shutil.copytree(GOLDEN / folder, tmp_path / "f"))
    (own / "errors.jsonl").write_bytes(b"")
    expected, rng, flips = features(own), Random(0), 0
    for path in [p for p in sorted(own.rglob("*")) if p.is_file() and p.stat().st_size]:
        for _ in range(12):
            whole = flip(path, rng.randrange(path.stat().st_size), rng.randrange(8))
            try:
                assert features(own) == expected  # blanks of features.json say nothing
                assert path.name == "features.json"
            except ArtefactError as error:
                flips += 1
                assert str(path) in error.message
                assert error.code in ("E_ARTEFACT_DAMAGED", "E_ARTEFACT_VERSION")
            path.write_bytes(whole)
    assert flips > 40


def test_files_that_are_gone_or_were_added_are_named(tmp_path: Path) -> None:
    own = Path(shutil.copytree(GOLDEN / "features", tmp_path / "f"))
    shutil.copy(own / "number_colour" / "assets.safetensors", own / "a" / "assets.safetensors")
    with pytest.raises(ArtefactError, match=r"a/assets.safetensors cannot be read: it is no part of what was written"):
        features(own)
    (own / "a" / "assets.safetensors").unlink()
    for name in ("number_colour/assets.safetensors", "rows.parquet", "errors.jsonl", "a/00000.safetensors"):
        whole = (own / name).read_bytes()
        (own / name).unlink()
        with pytest.raises(ArtefactError, match=f"{name} cannot be read: it is not there"):
            features(own)
        (own / name).write_bytes(whole)
    assert features(own)


def test_a_shard_is_looked_at_once_and_again_where_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Path(shutil.copytree(GOLDEN / "features", tmp_path / "f"))
    looked = []
    real = sealing.sha256_of_file
    monkeypatch.setattr("mmtool.features.reader.sha256_of_file", lambda path: looked.append(path.name) or real(path))
    for _ in range(3):
        Features(own).tokens("a", [0])
    assert looked == ["00000.safetensors"]
    flip(own / "a" / "00000.safetensors", -1)
    with pytest.raises(ArtefactError, match=r"does not hold what was written \(SHA-256\); extract again"):
        Features(own).tokens("a", [0])


def test_a_flipped_bit_anywhere_in_a_model_is_named(tmp_path: Path) -> None:
    own = Path(shutil.copy(GOLDEN / "several.safetensors", tmp_path / "m.safetensors"))
    expected, rng = model(own), Random(0)
    for at in [*range(8), *(rng.randrange(own.stat().st_size) for _ in range(150))]:
        whole = flip(own, at, rng.randrange(8))
        try:
            assert model(own) == expected
        except ArtefactError as error:
            assert str(own) in error.message
        own.write_bytes(whole)


def test_a_changed_weight_is_named(tmp_path: Path) -> None:
    own = Path(shutil.copy(GOLDEN / "classify.safetensors", tmp_path / "m.safetensors"))
    flip(own, own.stat().st_size - 1)
    with pytest.raises(ArtefactError, match=r"tensor 'trained' does not hold what was written"):
        load(own)


def test_equal_models_and_packs_are_equal_bytes(tmp_path: Path) -> None:
    load(GOLDEN / "classify.safetensors").save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (GOLDEN / "classify.safetensors").read_bytes()
    for name in ("one", "two"):
        Cache(tmp_path / name).put([(KEYS[0], b"1" * 8, torch.ones(2, 3))])
    assert [p.read_bytes() for p in (tmp_path / "one").iterdir()] == [p.read_bytes() for p in (tmp_path / "two").iterdir()]


def test_an_old_model_is_sealed_when_it_is_saved_again(tmp_path: Path) -> None:
    load(GOLDEN.parent / "v1" / "classify.safetensors").save(tmp_path / "m.safetensors")
    assert sealing.read_sealed(tmp_path / "m.safetensors")[1]["format"] == 2
    assert load(tmp_path / "m.safetensors").columns == ["label"]


def test_a_damaged_or_unsealed_pack_is_dropped_and_computed_again(tmp_path: Path) -> None:
    for mutate in (mutations.of_bytes, mutations.of_tensors, lambda data, rng: data[:-1] + bytes([data[-1] ^ 1])):
        for seed in range(20):
            Cache(tmp_path).put([(key, b"1" * 8, torch.full((2, 3), float(i))) for i, key in enumerate(KEYS)])
            (path,) = tmp_path.iterdir()
            whole, expected = path.read_bytes(), pack(tmp_path)
            path.write_bytes(mutate(whole, Random(seed)))
            assert pack(tmp_path) == (expected if path.exists() else [None] * 3)
            shutil.rmtree(tmp_path)
            tmp_path.mkdir()


def test_a_damaged_checkpoint_is_said_and_begun_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keeper = Keeper(tmp_path / "part-0.safetensors", threading.Event())
    assert keeper.load() is None
    keeper.keep({"graph/w": torch.ones(3)}, {"best": float("inf"), "steps": 3})
    kept = keeper.load()
    assert kept is not None
    assert (kept["facts"], kept["tensors"]["graph/w"].tolist()) == ({"best": float("inf"), "steps": 3}, [1.0, 1.0, 1.0])
    for at in (-1, 0, 40, 200):
        whole = flip(keeper.path, at)
        assert keeper.load() is None
        assert "this part starts anew" in capsys.readouterr().err
        keeper.path.write_bytes(whole)


def test_what_is_said_to_the_user(mmtool: Callable, tmp_path: Path) -> None:
    own = Path(shutil.copytree(GOLDEN / "features", tmp_path / "f"))
    flip(own / "a" / "00000.safetensors", -9)
    ran = mmtool("train", own, "--target", "number=regress", "-o", tmp_path / "m.safetensors")
    assert ran.code == 4
    assert "error[E_ARTEFACT_DAMAGED]" in ran.err
    assert "00000.safetensors: the file does not hold what was written (SHA-256)" in ran.err.replace("\n", "")
    header = json.loads((GOLDEN / "features" / "features.json").read_bytes())
    (own / "features.json").write_text(json.dumps({**header, "format": 3}))
    ran = mmtool("info", own)
    assert (ran.code, "upgrade mmtool" in ran.err, "error[E_ARTEFACT_VERSION]" in ran.err) == (4, True, True)
