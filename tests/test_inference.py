"""The fast paths agree with the plain one, lanes change nothing, and what does not fit is refused."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support import folder_bytes
from torch import Tensor, nn

from mmtool import stopping
from mmtool.api import Encoder, Tokens
from mmtool.engine import Engine
from mmtool.errors import UsageError
from mmtool.extraction.blocks import in_gear
from mmtool.extraction.folder import Partial
from mmtool.inference import choice, openvino, paths
from mmtool.inference.lanes import Lanes

CPU = torch.device("cpu")


class Small(Encoder):
    """A network with what the paths fold, fuse and freeze: convolution, norm, activation, a mean."""

    modality = "image"
    dim = 6

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU6(), nn.Conv2d(4, 6, 3, groups=2))
        with torch.no_grad():
            self.layers[1].running_mean.uniform_(-1, 1)  # type: ignore[operator, union-attr]
            self.layers[1].running_var.uniform_(0.5, 2)  # type: ignore[operator, union-attr]

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        values = self.layers(x.float() / 255).flatten(2).transpose(1, 2)  # [B, T, 6]
        return Tokens(values, torch.ones(values.shape[:2], dtype=torch.bool))


class Moody(Small):
    """Its course depends on the values, which one trace cannot hold."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        tokens = super().forward(x, lengths)
        return tokens if x.float().mean() > 127 else Tokens(-tokens.values, tokens.mask)


def pictures(count: int, side: int = 20) -> list[Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=draw) for _ in range(count)]


def geared(encoder: Encoder, tier: str, lanes: Lanes, precision: str = "fp32", batch_size: int = 4) -> Engine:
    engine = Engine(encoder.eval(), CPU, precision, batch_size)
    engine.gear(lanes, tier)
    return engine


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    with Lanes(CPU, 1) as made:
        yield made


@pytest.mark.parametrize(("tier", "keep"), [
    ("traced", "pooled"), ("traced", "tokens"), ("compiled", "pooled"), ("openvino", "pooled"), ("openvino", "tokens")])
def test_a_fast_path_gives_what_the_plain_one_gives(
        tier: str, keep: paths.Keep, lanes: Lanes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "LIGHT", 1e9)
    cells: list[Tensor | None] = [*pictures(10)]
    cells[3] = None
    plain = Engine(Small().eval(), CPU, "fp32", 4).encode(cells, keep=keep)
    engine = geared(Small(), tier, lanes)
    fast = engine.encode(cells, keep=keep)
    assert engine.path == tier
    assert fast[3] is None
    for a, b in zip(plain, fast, strict=True):
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tier", ["traced", "openvino"])
def test_bfloat16_is_as_near_to_float32_as_the_plain_path_in_bfloat16(tier: str, lanes: Lanes) -> None:
    engine = geared(Small(), tier, lanes, "bf16")
    rows = torch.cat([r for r in engine.encode([*pictures(8)], keep="pooled") if r is not None])
    plain = Engine(Small().eval(), CPU, "fp32", 4).encode([*pictures(8)], keep="pooled")
    exact = torch.cat([r for r in plain if r is not None])
    assert (engine.path, rows.dtype) == (tier, torch.bfloat16)
    assert float((rows.float() - exact).norm() / exact.norm()) < 0.02


def test_an_encoder_whose_course_depends_on_values_takes_the_plain_path(lanes: Lanes) -> None:
    dark, bright = [p // 4 for p in pictures(4)], [p // 2 + 127 for p in pictures(4)]
    cells: list[Tensor | None] = [*dark, *bright]
    engine = geared(Moody(), "traced", lanes)
    rows = engine.encode(cells, keep="pooled")
    assert engine.path == "plain"
    for a, b in zip(Engine(Moody().eval(), CPU, "fp32", 4).encode(cells, keep="pooled"), rows, strict=True):
        assert a is not None and b is not None
        assert torch.equal(a, b)


def test_that_there_is_no_compiler_is_told_in_plain_words() -> None:
    from torch._inductor import config

    cells = pictures(4)
    x, lengths = torch.stack(cells), torch.tensor([len(cell) for cell in cells])
    graph = paths.exported(Small().eval(), "pooled", x, lengths)
    torch.compiler.reset()
    with config.patch({"cpp.cxx": ("/no/such/g++",), "force_disable_caches": True}), \
            pytest.raises(paths.Unfit, match=r"finds no C\+\+ compiler"):
        paths.compiled(graph, CPU, "fp32", x, lengths)


def test_that_it_compiles_is_told_and_who_asks_it_to_end_does_not_wait_for_that(
        lanes: Lanes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(choice, "LIGHT", 1e9)
    monkeypatch.setattr(paths, "compiled", paths.traced)
    for asked, path in ((False, "compiled"), (True, "plain")):
        monkeypatch.setattr(stopping, "asked", lambda asked=asked: asked)
        engine = geared(Small(), "compiled", lanes)
        engine.encode([*pictures(4)], keep="pooled")
        assert engine.path == path
        assert ("encoder Small: compiling" in capsys.readouterr().err) == (path == "compiled")


def test_who_asks_a_run_to_end_does_not_wait_for_a_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmtool.inference.lanes.PATIENCE_SECONDS", 0.01)
    go_on = threading.Event()
    with pytest.raises(KeyboardInterrupt), Lanes(CPU, 1) as made:
        future = made.submit(lambda: go_on.wait(20))
        raise KeyboardInterrupt
    assert not future.done()
    go_on.set()
    assert future.result(20)


def test_where_nothing_can_be_compiled_to_another_folder_is_taken_and_that_is_said(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(paths.COMPILED, str(tmp_path / "file/there"))
    monkeypatch.setenv("MMTOOL_CACHE", str(tmp_path / "cache"))
    x = torch.stack(pictures(4))
    for _ in range(2):
        paths.exported(Small().eval(), "pooled", x, torch.full((4,), 3))
        assert os.environ[paths.COMPILED] == str(tmp_path / "cache/compiled")
    assert capsys.readouterr().err.count("file/there: nothing can be written there") == 1


def test_a_path_that_disagrees_is_not_taken_and_that_is_said(
        lanes: Lanes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def wrong(graph: nn.Module, *_: object) -> paths.Run:
        return lambda x, lengths: (graph(x, lengths)[0] * 1.001, graph(x, lengths)[1])

    monkeypatch.setattr(paths, "traced", wrong)
    cells: list[Tensor | None] = [*pictures(4)]
    engine = geared(Small(), "traced", lanes)
    rows = engine.encode(cells, keep="pooled")
    assert engine.path == "plain"
    assert "10.0 times as far from the plain ones as they may be; going on with the plain path" in capsys.readouterr().err
    assert [torch.equal(a, b) for a, b in  # type: ignore[arg-type]
            zip(rows, Engine(Small().eval(), CPU, "fp32", 4).encode(cells, keep="pooled"), strict=True)] == [True] * 4


def test_what_cannot_be_computed_is_no_agreement() -> None:
    x, lengths = torch.stack(pictures(4)), torch.full((4,), 3)
    plain = paths.plain(Small().eval(), "pooled", CPU, "fp32")

    def distance(run: paths.Run) -> float:
        return choice.distance(run, Small().eval(), "pooled", CPU, "fp32", x, lengths)

    assert distance(plain) == 0
    assert distance(lambda x, n: (plain(x, n)[0] * float("nan"), plain(x, n)[1])) == float("inf")
    assert distance(lambda x, n: (plain(x, n)[0], ~plain(x, n)[1])) == float("inf")
    assert distance(lambda x, n: (plain(x, n)[0][:2], plain(x, n)[1])) == float("inf")


def test_bits_depend_neither_on_the_lanes_nor_on_who_is_in_a_batch(lanes: Lanes) -> None:
    cells: list[Tensor | None] = [*pictures(11)]
    with Lanes(CPU, 1) as other:
        other.count = 3
        for tier in ("plain", "traced"):
            one, two = geared(Small(), tier, lanes).encode(cells, keep="pooled"), geared(Small(), tier, other)
            assert all(torch.equal(a, b) for a, b in zip(one, two.encode(cells, keep="pooled"), strict=True))  # type: ignore[arg-type]
    fast = geared(Small(), "traced", lanes)
    whole = fast.encode(cells, keep="pooled")
    alone = [fast.encode([cell], keep="pooled")[0] for cell in cells]  # a batch that is not full is filled up
    assert all(torch.equal(a, b) for a, b in zip(whole, alone, strict=True))  # type: ignore[arg-type]


def test_another_shape_than_the_first_takes_the_plain_path(lanes: Lanes) -> None:
    engine = geared(Small(), "traced", lanes)
    engine.encode([*pictures(4)], keep="pooled")
    other: list[Tensor | None] = [*pictures(4, side=24)]
    (row,) = engine.encode(other[:1], keep="pooled")
    assert engine.path == "traced" and row is not None
    assert torch.equal(row, Engine(Small().eval(), CPU, "fp32", 4).encode(other[:1], keep="pooled")[0])  # type: ignore[arg-type]


def test_memory_that_runs_out_on_a_fast_path_goes_on_with_halves(lanes: Lanes) -> None:
    engine = geared(Small(), "traced", lanes)
    cells: list[Tensor | None] = [*pictures(4)]
    engine.encode(cells, keep="pooled")
    shape, keep, _ = engine._fast  # type: ignore[misc]

    def full(x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        raise MemoryError

    engine._fast = shape, keep, full
    assert all(r is not None for r in engine.encode(cells, keep="pooled"))
    assert (engine.batch_size, engine.halved) == (2, True)


def test_lanes_run_at_the_same_time_and_leave_the_caller_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # whatever this machine has
    two = Lanes(CPU, 1)
    monkeypatch.undo()
    with two:
        meet = threading.Barrier(2, timeout=20)
        futures = [two.submit(lambda: (meet.wait(), torch.get_num_threads())[1]) for _ in range(2)]
        assert (two.count, [f.result() for f in futures]) == (2, [1, 1])
    assert torch.get_num_threads() == before


def test_few_rows_have_no_lanes_and_engines_come_back_as_they_were() -> None:
    engine = Engine(Small().eval(), CPU, "fp32", 4)
    with in_gear([engine], 64, "torch", 1):
        assert engine.lanes is None
    with in_gear([engine], 65, "torch", 1):
        assert engine.lanes is not None
        assert (engine.tier, engine.threads) == ("plain", 1)
    assert (engine.lanes, engine.path, engine.tier) == (None, "plain", "plain")


@pytest.mark.parametrize(("backend", "rows", "tier"), [
    ("torch", 511, "plain"), ("torch", 512, "traced"), ("torch", 4096, "compiled"), ("openvino", 100, "openvino")])
def test_the_number_of_rows_decides_what_start_is_repaid(backend: choice.Backend, rows: int, tier: str) -> None:
    assert choice.tier(CPU, backend, rows) == tier


def test_compiling_is_for_networks_that_memory_binds() -> None:
    x, lengths = torch.stack(pictures(4)), torch.full((4,), 3)
    light = choice.operations_a_value(paths.exported(Small().eval(), "pooled", x, lengths), x, lengths)
    heavy = Small().eval()
    heavy.layers[3] = nn.Sequential(nn.Conv2d(4, 512, 3), nn.Conv2d(512, 64, 3), nn.Conv2d(64, 6, 1))
    assert 1 < light < choice.LIGHT < choice.operations_a_value(paths.exported(heavy, "pooled", x, lengths), x, lengths)


def test_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    assert choice.choose_backend("auto", CPU, "fp32", 5000) == "openvino"
    assert choice.choose_backend("auto", CPU, "fp32", 100) == "torch"
    assert choice.choose_backend("auto", CPU, "fp16", 5000) == choice.choose_backend("auto", cuda, "fp32", 5000) == "torch"
    assert choice.choose_backend("openvino", CPU, "bf16", 65) == "openvino"
    assert choice.choose_backend("openvino", CPU, "bf16", 64) == "torch"
    for name, device, precision in (("openvino", cuda, "fp32"), ("openvino", CPU, "fp16"), ("onnx", CPU, "fp32")):
        with pytest.raises(UsageError, match="--backend"):
            choice.choose_backend(name, device, precision, 5000)
    monkeypatch.setattr(openvino, "installed", lambda: False)
    assert choice.choose_backend("auto", CPU, "fp32", 5000) == "torch"
    with pytest.raises(UsageError, match="not installed"):
        choice.choose_backend("openvino", CPU, "fp32", 5000)


def test_openvino_reports_to_nobody(lanes: Lanes) -> None:
    geared(Small(), "openvino", lanes).encode([*pictures(4)], keep="pooled")
    assert sys.modules["openvino_telemetry"] is None


def test_an_interrupted_extract_goes_on_by_the_path_with_which_it_began(
        mmtool: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for at, picture in enumerate(pictures(300, side=20)):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / f"{at}.png")
    (tmp_path / "d.csv").write_text("\n".join(["id,photo", *(f"{at},{at}.png" for at in range(300))]))
    monkeypatch.setattr(choice, "WORTH_TRACING", 100)
    asked = ("extract", tmp_path / "d.csv", "-e", "photo=image-cnn:2,img_size=20", "--allow-random", "--no-cache",
             "--workers", "0", "--backend", "torch", "--json", "-o")
    assert json.loads(mmtool(*asked, tmp_path / "whole").out)["paths"] == {"photo": "traced"}
    write = Partial.write

    def first(self: Partial, number: int, *given: Any) -> None:
        if number:
            raise KeyboardInterrupt
        write(self, number, *given)

    with monkeypatch.context() as patched:
        patched.setattr(Partial, "write", first)
        assert mmtool(*asked, tmp_path / "resumed").code == 130
    monkeypatch.setattr(choice, "distance", lambda *_: 2.0)  # of the cells of the second block, as of the first 0.9
    resumed = mmtool(*asked, tmp_path / "resumed")
    assert json.loads(resumed.out)["paths"] == {"photo": "traced"}, resumed.err
    assert folder_bytes(tmp_path / "resumed") == folder_bytes(tmp_path / "whole")


def test_extract_says_how_encoders_ran(mmtool: Callable[..., Any], tmp_path: Path) -> None:
    for at, picture in enumerate(pictures(70, side=32)):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / f"{at}.png")
    lines = ["id,photo,title,split", *(f"{at},{at}.png,a {at},train" for at in range(70))]
    (tmp_path / "d.csv").write_text("\n".join(lines))
    encoders = ("-e", "photo=image-cnn:2,img_size=32", "-e", "title=text-rnn", "--allow-random")
    told = ("extract", tmp_path / "d.csv", *encoders, "--json", "-o")
    first = mmtool(*told, tmp_path / "f", "--backend", "openvino")
    assert first.code == 0, first.err
    assert json.loads(first.out)["paths"] == {"photo": "openvino", "title": "plain"}
    assert "photo: 70 ok, 0 missing, 0 bad, 0 cached (openvino)\n" in first.err
    again = mmtool(*told, tmp_path / "f", "--backend", "openvino")
    assert json.loads(again.out)["paths"] == {}  # the cache had all
    header = json.loads((tmp_path / "f/features.json").read_bytes())
    assert (header["numerics"]["backend"], header["numerics"]["tier"]) == ("openvino", "openvino")
    other = mmtool(*told, tmp_path / "g")
    assert json.loads(other.out)["paths"] == {"photo": "plain", "title": "plain"}, other.err  # too few rows for more
    a, b = (load_file(tmp_path / name / "photo/00000.safetensors")["values"] for name in "fg")
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
