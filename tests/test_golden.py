"""Every file that an mmtool ever wrote opens, and says what it said then."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from golden.make import pairs, predicted

from mmtool.features import header as features_header
from mmtool.features.format import FORMAT as FEATURES_FORMAT
from mmtool.features.reader import Features
from mmtool.modelfile import FORMAT, MIGRATIONS, open_model

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = sorted(p.name for p in GOLDEN.glob("v*"))
CASES = [(version, *pair) for version in VERSIONS for pair in pairs(GOLDEN / version)]


def alike(one: Any, other: Any) -> bool:
    """Equal, numbers within 1e-5: last bits depend on the machine."""
    if isinstance(one, float) or isinstance(other, float):
        return abs(one - other) <= 1e-5 * max(1.0, abs(one))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(v, other[k]) for k, v in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == other)


def test_there_are_files_of_every_format_and_a_step_from_each_to_the_next() -> None:
    assert [f"v{n}" for n in range(1, FORMAT + 1)] == VERSIONS
    assert sorted(MIGRATIONS) == list(range(1, FORMAT))
    assert sorted(features_header.MIGRATIONS) == list(range(1, FEATURES_FORMAT))


@pytest.mark.parametrize(("version", "model", "features"), CASES)
def test_a_model_predicts_from_features_of_its_time_what_it_did_then(version: str, model: str, features: str) -> None:
    folder = GOLDEN / version
    known = json.loads((folder / "expected.json").read_text())[f"{model} on {features}"]
    assert len(known) == 8
    assert alike(predicted(folder / model, folder / features), known)


@pytest.mark.parametrize("version", VERSIONS)
def test_features_and_models_with_trained_weights_open(version: str) -> None:
    for name in ("features", "fused"):
        found = Features(GOLDEN / version / name)
        assert found.rows["id"].to_pylist() == [f"r{i}" for i in range(8)]
        assert bool(found.note) == (version == "v1")
    assert set(Features(GOLDEN / version / "features").assets("number_colour")) == {"columns"}
    opened = open_model(GOLDEN / version / "learned.safetensors")
    assert {n: e["weights"] for n, e in opened.header["inputs"].items()} == {"a": "trained", "b": "trained"}
    assert (opened.digests is None) == (version == "v1")


def test_info_says_what_cannot_be_verified(mmtool: Callable) -> None:
    for name in ("features", "classify.safetensors"):
        assert "note" in mmtool("info", GOLDEN / "v1" / name).out
        assert "verified" in mmtool("info", GOLDEN / "v1" / name).out
        assert "verified" not in mmtool("info", GOLDEN / f"v{FORMAT}" / name).out


def test_an_old_model_predicts_and_is_evaluated_by_the_command_line(mmtool: Callable, tmp_path: Path) -> None:
    ran = mmtool("predict", "-m", GOLDEN / "v1" / "learned.safetensors", "--input", "a=z", "--input", "b=a", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["prediction"] in ("high", "low")
    ran = mmtool("eval", GOLDEN / "v1" / "auto.safetensors", GOLDEN / "v1" / "features", "-o", tmp_path / "r", "--split", "all")
    assert ran.code == 0, ran.err
