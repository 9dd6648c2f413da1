"""Features that are too many to load: what stays in its files gives what is in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mmtool import mapped as mapped_module
from mmtool.api import Tokens
from mmtool.cli.main import run
from mmtool.errors import ArtefactError
from mmtool.extraction.blocks import Encoded
from mmtool.extraction.folder import Partial
from mmtool.features.format import BLOCK_ROWS, FORMAT, numerics
from mmtool.features.part import Part
from mmtool.features.reader import Features
from mmtool.mapped import Mapped
from mmtool.model import load
from mmtool.network import Standardise
from mmtool.training import batches, data
from mmtool.training.batches import Source, shuffled
from mmtool.training.streamed import Stretch

ROWS, DIM = 900, 6


def make(folder: Path, *, rows: int = ROWS, dim: int = DIM, missing: float = 0.1) -> Path:
    """Two inputs in shards of 256 rows; the sum of all of `a` says the class; a share of the cells is missing."""
    chance = torch.Generator().manual_seed(3)
    partial, shards = Partial(folder, pooled=True), []
    partial.begin({"plan": "made"})
    for start in range(0, rows, BLOCK_ROWS):
        count = min(BLOCK_ROWS, rows - start)
        part, encoded = Part(ids=[f"r{start + i}" for i in range(count)]), {}
        for name in "ab":
            x = torch.randn(count, 1, dim, generator=chance)
            there = (torch.rand(count, generator=chance) >= missing).tolist()
            part.statuses[name] = ["ok" if ok else "missing" for ok in there]
            encoded[name] = [Encoded([row if ok else None for row, ok in zip(x, there, strict=True)], part.statuses[name])]
            if name == "a":
                label = (x.sum((1, 2)) + 0.3 * torch.randn(count, generator=chance) > 0).tolist()
        part.rows = [{"id": r, "label": "high" if high else "low",
                      "split": "test" if i % 5 == 0 else "val" if i % 5 == 1 else "train"}
                     for i, (r, high) in enumerate(zip(part.ids, label, strict=True))]
        partial.write(len(shards), part, encoded, torch.float32, ["id", "text_a", "text_b", "label", "split"])
        shards.append({"rows": count, "sha256": part.notes["sha256"]})
    identity = {"name": "made", "options": {}, "revision": 1, "weights": "0" * 64, "assets": "0" * 64}
    entry = {"modality": "made", "encoder": "made", "package": "made 1", "options": {}, "identity": identity, "pooled": True,
             "dim": dim, "dtype": "float32", "limits": {}, "fitted": False}
    header = {"format": FORMAT, "base": ".", "rows": rows, "columns": ["id", "text_a", "text_b", "label", "split"],
              "manifest": "made", "block_rows": BLOCK_ROWS, "shards": shards,
              "inputs": {n: {**entry, "columns": [f"text_{n}"]} for n in "ab"},
              "numerics": numerics(torch.device("cpu"), "fp32")}
    partial.finish(header, {n: (f"text_{n}",) for n in "ab"})
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("made") / "features")


def both(folder: Path, rows: list[int]) -> tuple[Tokens, Mapped]:
    features = Features(folder)
    return features.tokens("a", rows), features.mapped("a", rows)


def test_mapped_rows_are_those_of_the_files_in_any_order(folder: Path) -> None:
    rows = torch.randperm(ROWS, generator=torch.Generator().manual_seed(0)).tolist()
    for some in (rows, [5, 5, 899, 0], list(range(250, 600)), list(range(ROWS)), []):
        loaded, mapped = both(folder, some)
        assert torch.equal(mapped.mask, loaded.mask)
        assert torch.equal(mapped.values, loaded.values)
        at = torch.arange(0, len(some), 2)
        assert torch.equal(mapped.take(at).mean(), loaded.take(at).mean())
    assert not mapped.hidden().present.any()


def test_scales_of_mapped_rows_are_those_of_loaded_ones(folder: Path) -> None:
    loaded, mapped = both(folder, list(range(ROWS)))
    one, other = Standardise(DIM), Standardise(DIM)
    one.fit(loaded)
    other.fit(mapped)
    torch.testing.assert_close(one.mean, other.mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(one.scale, other.scale, rtol=1e-5, atol=1e-6)


def test_mapped_pages_are_no_memory_of_the_process(folder: Path) -> None:
    code = """if True:
        import sys
        from pathlib import Path
        from mmtool.features.reader import Features
        features = Features(Path(sys.argv[1]))
        features.mapped("a", range(len(features)))
        kinds = {line.split()[1] for line in open("/proc/self/maps") if "/a/0000" in line}
        assert kinds == {"r--p"}, kinds"""
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)


def test_mapped_shards_are_no_open_files(folder: Path) -> None:
    """A process may often have no more than 1,024, and a million rows of three inputs have more shards."""
    features = Features(folder)
    values = features.mapped("a", range(ROWS)).values
    opened = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}")]
    assert len(values) == ROWS
    assert not [name for name in opened if name.startswith(str(folder))]


def test_a_damaged_shard_is_refused_when_it_is_mapped(tmp_path: Path) -> None:
    folder = make(tmp_path / "features", rows=300)
    path = folder / "a" / "00001.safetensors"
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    Features(folder).mapped("a", [0, 255])
    with pytest.raises(ArtefactError):
        Features(folder).mapped("a", [0, 256])


@pytest.mark.parametrize("window_bytes", [1, 40 * DIM * 4, 1 << 25])
def test_batches_of_windows_are_batches_of_rows(folder: Path, monkeypatch: pytest.MonkeyPatch, window_bytes: int) -> None:
    monkeypatch.setattr(batches, "WINDOW_BYTES", window_bytes)
    loaded, mapped = both(folder, list(range(ROWS)))
    order = shuffled(range(ROWS), torch.Generator().manual_seed(1), {"a": mapped})
    rows = list(torch.split(order, 64))
    found = list(Source({"a": mapped, "b": loaded}, torch.device("cpu")).batches(rows))
    assert len(found) == len(rows)
    for at, batch in zip(rows, found, strict=True):
        for tokens in batch.values():
            assert torch.equal(tokens.values, loaded.values[at])
            assert torch.equal(tokens.mask, loaded.mask[at])


def test_what_fits_on_a_device_is_moved_there_once_and_gives_the_same_batches(folder: Path) -> None:
    loaded, mapped = both(folder, list(range(ROWS)))
    source = Source({"a": mapped, "b": mapped}, torch.device("cpu"), room=mapped.bytes)
    assert not isinstance(source.inputs["a"], Mapped)
    assert isinstance(source.inputs["b"], Mapped), "there is room for one"
    rows = [torch.tensor([3, 1]), torch.tensor([899])]
    for at, batch in zip(rows, source.batches(rows), strict=True):
        assert torch.equal(batch["a"].values, loaded.values[at])
        assert torch.equal(batch["b"].values, loaded.values[at])


def test_rows_that_no_memory_holds_are_shuffled_by_blocks_and_windows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, mapped = both(folder, list(range(ROWS)))
    monkeypatch.setattr(batches, "PERMUTED_BYTES", 0)
    monkeypatch.setattr(batches, "BLOCK", 50)
    monkeypatch.setattr(batches, "BLOCKS", 2)
    order = shuffled(range(ROWS), torch.Generator().manual_seed(1), {"a": mapped})
    again = shuffled(range(ROWS), torch.Generator().manual_seed(1), {"a": mapped})
    assert torch.equal(order, again)
    assert sorted(order.tolist()) == list(range(ROWS))
    for window in torch.split(order, 100):
        assert len({row // 50 for row in window.tolist()}) == 2
        assert (window.diff() < 0).any(), "and mixed within"


def train(folder: Path, output: Path, *options: str) -> dict[str, torch.Tensor]:
    assert run(["train", str(folder), "--target", "label", "-o", str(output), "-q", *options]) == 0
    return dict(load(output).network.state_dict())


@pytest.mark.parametrize("options", [("-f", "gated", "--epochs", "2"), ("-f", "late", "--epochs", "2", "--optimizer", "adamw")])
def test_descent_over_mapped_features_takes_the_same_steps(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                          options: tuple[str, ...]) -> None:
    loaded = train(folder, tmp_path / "loaded.safetensors", *options)
    monkeypatch.setattr(data, "IN_MEMORY", 0)
    mapped = train(folder, tmp_path / "mapped.safetensors", *options)
    for name, value in loaded.items():
        torch.testing.assert_close(mapped[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [(), ("-f", "late"), ("--modality-dropout", "0.2")])
def test_a_head_solved_over_mapped_features_is_the_one_solved_in_memory(folder: Path, tmp_path: Path, options: tuple[str, ...],
                                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = train(folder, tmp_path / "loaded.safetensors", *options)
    monkeypatch.setattr(data, "IN_MEMORY", 0)
    mapped = train(folder, tmp_path / "mapped.safetensors", *options)
    assert any("weight" in name for name in loaded)
    for name, value in loaded.items():
        torch.testing.assert_close(mapped[name], value, rtol=1e-2, atol=1e-3)


def test_what_is_solved_over_files_is_said(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(data, "IN_MEMORY", 0)
    assert run(["train", str(folder), "--target", "label", "-o", str(tmp_path / "m.safetensors")]) == 0
    assert "label: solving over 717 rows, which stay in their files" in capsys.readouterr().err


@pytest.mark.parametrize("missing", [0.0, 0.01])
def test_rows_that_lack_nothing_are_scaled_by_the_weights_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                missing: float) -> None:
    """In stretches of thirty rows, some of which lack a cell; others do not, and are neither divided nor copied."""
    folder = make(tmp_path / "features", missing=missing)
    train(folder, tmp_path / "loaded.safetensors")
    monkeypatch.setattr(data, "IN_MEMORY", 0)
    monkeypatch.setattr(mapped_module, "CHUNK_BYTES", 30 * 4 * DIM)
    centred: list[bool] = []
    kept = Stretch.__init__

    def noted(self: Stretch, *given: Any, centred_is: list[bool] = centred, **named: Any) -> None:
        kept(self, *given, **named)
        centred_is.append(self.centred)

    monkeypatch.setattr(Stretch, "__init__", noted)
    train(folder, tmp_path / "mapped.safetensors")
    assert set(centred) == ({True} if not missing else {True, False})
    inputs = {name: Features(folder).tokens(name, range(ROWS)) for name in "ab"}
    with torch.no_grad():
        one, other = (load(tmp_path / f"{name}.safetensors").network.heads()[0](inputs) for name in ("loaded", "mapped"))
    torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)  # a flag that is always 1 and the bias may share otherwise


def test_training_needs_no_room_for_all_features(tmp_path: Path) -> None:
    """33 MB of features: memory that no file backs grows by 550 MB where they are loaded, by 150 where they stay mapped."""
    folder = make(tmp_path / "features", rows=16_000, dim=256)
    code = """if True:
        import sys, threading
        from mmtool.cli.main import run
        from mmtool.training import data, exact
        folder, output, in_memory = sys.argv[1:]
        exact.SOME_ROWS, data.IN_MEMORY = 512, int(in_memory)

        def anonymous():
            return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) << 10

        def watch():
            while not ended.wait(0.005):
                seen.append(anonymous())

        seen, ended = [anonymous()], threading.Event()
        threading.Thread(target=watch, daemon=True).start()
        assert run(["train", folder, "--target", "label", "--device", "cpu", "-q", "-o", output]) == 0
        ended.set()
        print(max(seen) - seen[0])
        """

    def taken(name: str, in_memory: int) -> int:
        output = tmp_path / f"{name}.safetensors"
        done = subprocess.run([sys.executable, "-c", code, folder, output, str(in_memory)], check=True,
                              env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}, capture_output=True, text=True)
        return int(done.stdout.split()[-1])

    assert 2 * taken("mapped", 0) < taken("loaded", 1 << 40)
