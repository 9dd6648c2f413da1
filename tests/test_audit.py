"""What a file names is never imported, run or opened: watched by an audit hook in a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mmtool.features.header import digest_of
from mmtool.sealing import read_sealed, sealed

HERE = Path(__file__).parent
GOLDEN = HERE / "golden" / "v2"
EVIL = ("os", "os:system", "../../evil", "/etc/passwd", "antigravity", "mmtool.fusions.cca:Cca", "https://example.org/x")


def models() -> dict[str, dict[str, Any]]:
    """Hostile headers; the tensors stay."""
    _, header = read_sealed(GOLDEN / "classify.safetensors")
    entry, found = header["inputs"]["a"], {}
    for n, evil in enumerate(EVIL):
        found[f"fusion-{n}"] = {**header, "fusion": {**header["fusion"], "name": evil}}
        found[f"option-{n}"] = {**header, "fusion": {"name": "gated", "options": {"dim": evil}}}
        found[f"unknown-{n}"] = {**header, "fusion": {"name": "gated", "options": {evil: evil}}}
        found[f"task-{n}"] = {**header, "tasks": {"label": {**header["tasks"]["label"], "name": evil}}}
        found[f"package-{n}"] = {**header, "tasks": {"label": {**header["tasks"]["label"], "package": evil}},
                                 "inputs": {**header["inputs"], "a": {**entry, "package": evil, "encoder": evil}}}
        found[f"encoder-{n}"] = {**header, "inputs": {**header["inputs"], "a": {
            **entry, "identity": {**entry["identity"], "name": evil}}}}
        for name, options in (("path", {"weights": evil}), ("hidden-path", {"model": f"resnet18,weights={evil}"})):
            found[f"{name}-{n}"] = {**header, "inputs": {**header["inputs"], "a": {
                **entry, "options": options, "identity": {**entry["identity"], "name": "timm"}}}}
        found[f"input-{n}"] = {**header, "inputs": {**header["inputs"], evil: entry}}
        found[f"weights-{n}"] = {**header, "inputs": {**header["inputs"], "a": {**entry, "weights": evil}}}
        found[f"asked-{n}"] = {**header, "asked": {**header["asked"], "fusion": f"gated,dim={evil}"}}
        found[f"tied-{n}"] = {**header, "tied": {"weights/a/x": evil}}
        found[f"versions-{n}"] = {**header, "versions": {evil: evil}}
        found[f"upstream-{n}"] = {**header, "upstream": {"fusion": {"name": evil, "options": {}},
                                                     "identity": entry["identity"]}}
    return found


def features() -> dict[str, dict[str, Any]]:
    """Hostile headers of features; the files stay."""
    header = json.loads((GOLDEN / "features" / "features.json").read_bytes())
    fused = json.loads((GOLDEN / "fused" / "features.json").read_bytes())
    entry, found = header["inputs"]["a"], {}
    for n, evil in enumerate(EVIL):
        sums = [{"rows": 8, "sha256": {**header["shards"][0]["sha256"], evil: "0" * 64}}]
        found[f"f-input-{n}"] = {**header, "inputs": {**header["inputs"], evil: entry}, "shards": sums}
        found[f"f-file-{n}"] = {**header, "files": {**header["files"], evil: "0" * 64}}
        found[f"f-package-{n}"] = {**header, "base": evil, "inputs": {**header["inputs"], "a": {
            **entry, "package": evil, "encoder": evil, "identity": {**entry["identity"], "name": evil}}}}
        front = {**fused["upstream"]["front"], "fusion": {"name": evil, "options": {}}}
        found[f"fused-fusion-{n}"] = {**fused, "upstream": {**fused["upstream"], "front": front}}
        front = {**front, "fusion": {"name": "concat", "options": {"flags": evil}}}
        found[f"fused-option-{n}"] = {**fused, "upstream": {**fused["upstream"], "front": front}}
    return found


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("hostile")
    tensors, header = read_sealed(GOLDEN / "classify.safetensors")
    for name, one in models().items():
        (folder / f"{name}.safetensors").write_bytes(sealed(tensors, one))
    warm = {"options": {"model": "resnet18", "weights": "x"}, "identity": {**header["inputs"]["a"]["identity"], "name": "timm"}}
    (folder / "warm.safetensors").write_bytes(sealed(tensors, {**header, "inputs": {
        **header["inputs"], "a": {**header["inputs"]["a"], **warm}}}))
    for name, one in features().items():
        shutil.copytree(GOLDEN / ("fused" if name.startswith("fused") else "features"), folder / name)
        (folder / name / "features.json").write_text(json.dumps({**one, "digest": digest_of(one)}))
    (folder / "predictions.jsonl").write_text("".join(json.dumps({"id": e, "prediction": e}) + "\n" for e in EVIL))
    ran = subprocess.run([sys.executable, str(HERE / "audited.py"), str(folder)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return folder, json.loads(ran.stdout.splitlines()[-1])


def test_nothing_is_imported_run_or_connected(told: tuple[Path, dict[str, Any]]) -> None:
    _, found = told
    assert [s for s in found["seen"] if s[1] != "open"] == []


def test_nothing_is_opened_but_the_given_file(told: tuple[Path, dict[str, Any]]) -> None:
    folder, found = told
    assert [s for s in found["seen"] if s[1] == "open" and not Path(s[2]).is_relative_to(folder / s[0])] == []
    assert any(s[1] == "open" for s in found["seen"])  # it does see what is opened


def test_what_names_something_to_run_or_open_is_refused(told: tuple[Path, dict[str, Any]]) -> None:
    _, found = told
    opened = {name.rpartition("-")[0] for name, how in found["ended"].items() if how == "opened"}
    assert opened == {"asked", "package", "versions", "f-package", ""}  # texts that are shown or bound later; predictions
    for kind, code in (("fusion", "E_PLUGIN_UNKNOWN"), ("task", "E_PLUGIN_UNKNOWN"), ("path", "E_ARTEFACT_PATH"),
                       ("input", "E_ARTEFACT_DAMAGED"), ("f-input", "E_ARTEFACT_DAMAGED"), ("f-file", "E_ARTEFACT_DAMAGED"),
                       ("fused-fusion", "E_PLUGIN_UNKNOWN")):
        assert {how for name, how in found["ended"].items() if name.rsplit("-", 1)[0] == kind} == {code}, kind
