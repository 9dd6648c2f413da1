"""What an engine makes of odd orders, of failures on a fast path, and of memory that runs out while blocks are on their way."""

from __future__ import annotations

import threading
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmtool import cells
from mmtool.api import Encoder, Tokens
from mmtool.engine import Engine
from mmtool.errors import CellError, DataError
from mmtool.extraction import blocks
from mmtool.inference import choice, openvino, paths
from mmtool.inference.lanes import Lanes
from mmtool.media.limits import Limits

CPU = torch.device("cpu")


class Sound(Encoder):
    """Frames of any number, as sounds have them."""

    modality: ClassVar[str] = "audio"
    dim = 8

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(64, 8)

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        return Tokens(self.layer(x), torch.arange(x.shape[1]) < lengths.unsqueeze(1))


class Picture(Sound):
    """Colours first, as pictures have them."""

    modality: ClassVar[str] = "image"

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        values = self.layer(x.flatten(1)[:, :64]).unsqueeze(1)
        return Tokens(values, torch.ones(values.shape[:2], dtype=torch.bool))


def sounds(frames: int, count: int = 4) -> list[Tensor | None]:
    draw = torch.Generator().manual_seed(frames)
    return [torch.randn(frames, 64, generator=draw) for _ in range(count)]


def pictures(count: int = 4) -> list[Tensor | None]:
    return [cell.reshape(3, 20, 64) for cell in sounds(60, count) if cell is not None]


def geared(encoder: Encoder, lanes: Lanes, tier: str = "traced") -> Engine:
    engine = Engine(encoder.eval(), CPU, "fp32", 4)
    engine.gear(lanes, tier)
    return engine


def test_where_lengths_differ_the_path_does_not_depend_on_which_comes_first() -> None:
    with Lanes(CPU, 1) as lanes:
        whole, resumed = geared(Sound(), lanes), geared(Sound(), lanes)
        whole.encode(sounds(30), keep="pooled")  # a run that is resumed begins elsewhere
        later = whole.encode(sounds(40), keep="pooled"), resumed.encode(sounds(40), keep="pooled")
        assert whole.path == resumed.path == "plain"
        assert all(torch.equal(a, b) for a, b in zip(*later, strict=True))  # type: ignore[arg-type]
        pictured = geared(Picture(), lanes)
        pictured.encode(pictures(), keep="pooled")
        assert pictured.path == "traced"


class Contrast(Picture):
    """A picture of one colour has none, and is divided by nothing."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        return super().forward(x / x.flatten(1).std(1, keepdim=True).unsqueeze(2).unsqueeze(3), lengths)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_cell_of_which_nothing_can_be_computed_is_none_to_choose_a_path_by(precision: str) -> None:
    cells = [cell for cell in pictures(4) if cell is not None]
    x, lengths = torch.stack([*cells[:3], torch.zeros_like(cells[3])]), torch.full((4,), 3)
    encoder = Contrast().eval()
    plain = paths.plain(encoder, "pooled", CPU, precision)
    assert plain(x, lengths)[0].isfinite().flatten(1).all(1).tolist() == [True, True, True, False]

    def distance(factor: float, x: Tensor) -> float:
        def run(x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
            return plain(x, lengths)[0] * factor, plain(x, lengths)[1]
        return choice.distance(run, encoder, "pooled", CPU, precision, x, lengths)

    assert distance(1, x) <= 1 < distance(1.5, x)
    assert distance(1, x[3:].expand(4, -1, -1, -1)) == float("inf")


def test_a_run_that_is_resumed_keeps_the_path_that_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "distance", lambda *_: 2.0)  # of these cells, as of others 0.9
    with Lanes(CPU, 1) as lanes:
        for known, path in ((None, "plain"), ("plain", "plain"), ("traced", "traced")):
            engine = Engine(Picture().eval(), CPU, "fp32", 4, known=known)  # type: ignore[arg-type]
            engine.gear(lanes, "compiled")
            assert engine.found == known
            engine.encode(pictures(), keep="pooled")
            assert engine.path == engine.found == path


@pytest.mark.parametrize("error", [RuntimeError("Exception from src/inference/infer_request.cpp"), ValueError("no")])
def test_a_path_that_fails_when_it_first_runs_is_not_taken(
        error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*_: object, **__: object) -> paths.Run:
        def run(x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
            raise error
        return run

    monkeypatch.setattr(openvino, "converted", broken)
    with Lanes(CPU, 1) as lanes:
        engine = geared(Picture(), lanes, "openvino")
        rows = engine.encode(pictures(), keep="pooled")
    assert engine.path == "traced" and all(row is not None for row in rows)
    assert f"openvino: it failed ({type(error).__name__}); going on with the traced path" in capsys.readouterr().err


def test_a_network_whose_operations_cannot_be_counted_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    def uncounted(*_: object) -> int:
        raise NotImplementedError("an operation of its own")

    monkeypatch.setattr(FlopCounterMode, "_count_flops", uncounted)
    with Lanes(CPU, 1) as lanes:
        engine = geared(Picture(), lanes, "compiled")
        engine.encode(pictures(), keep="pooled")
    assert engine.path == "traced"


def test_memory_that_runs_out_while_a_path_is_chosen_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> choice.Chosen:
        raise MemoryError

    monkeypatch.setattr(choice, "fastest", full)
    with Lanes(CPU, 1) as lanes:
        engine = geared(Picture(), lanes)
        assert all(row is not None for row in engine.encode(pictures(), keep="pooled"))
    assert (engine.halved, engine.tier, engine.path) == (True, "plain", "plain")


def test_a_block_during_which_memory_ran_out_is_no_other_runs_block(monkeypatch: pytest.MonkeyPatch) -> None:
    with Lanes(CPU, 1) as lanes:
        engine = geared(Picture(), lanes, "plain")
        before, go = engine.how, threading.Event()
        forward, failed = Engine._forward, []

        def once(self: Engine, given: list[Tensor | None], keep: paths.Keep) -> list[Tensor]:
            go.wait(20)
            if not failed:
                failed.append(True)
                raise MemoryError
            return forward(self, given, keep)

        monkeypatch.setattr(Engine, "_forward", once)
        begun = engine.start(pictures(8), keep="pooled")
        go.set()
        assert len([row for row in begun.result() if row is not None]) == 8
        assert begun.how == before != engine.how  # blocks.py gives such a block a signature of its own
        assert engine.start(pictures(8), keep="pooled").how == engine.how
    assert blocks._signature([], before) != blocks._signature([], engine.how)


def test_threads_that_come_after_the_lanes_have_the_threads_of_torch_that_they_would_have_had(
        monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []

    def look() -> None:
        found.append(torch.get_num_threads())

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with Lanes(CPU, 1) as lanes:
            lanes.submit(look).result()
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    finally:
        torch.set_num_threads(before)
    assert found == [1, 2]


@pytest.mark.parametrize(("error", "waited"), [(KeyboardInterrupt, False), (DataError, True)])
def test_lanes_are_waited_for_unless_somebody_asked_to_end(error: type[BaseException], waited: bool) -> None:
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    def compile_() -> None:
        begun.set()
        go.wait(1 if waited else 20)
        ended.set()

    with pytest.raises(error), Lanes(CPU, 1) as lanes:
        future = lanes.submit(compile_)
        begun.wait(20)
        raise error("asked")
    assert ended.is_set() == waited
    go.set()
    future.result(20)


def test_a_folder_named_openvino_is_not_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    (tmp_path / "openvino").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(openvino, "version", absent)
    assert not openvino.installed()


def test_half_a_utf16_pair_names_no_file(tmp_path: Path) -> None:
    for name in ("\ud800.jpg", "absent.jpg"):
        with pytest.raises(CellError, match="no such file"):
            cells._file(tmp_path / name, Limits())


def test_compiled_code_is_kept_where_nobody_else_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "cache" / "compiled"
    assert paths.private(own) == own == paths.private(own)
    assert own.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr("atexit.register", lambda *_, **__: None)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    own.chmod(0o770)  # a cache that a team shares
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "file").write_text("")  # no folder can be made there
    for refused in (own, tmp_path / "link", tmp_path / "file" / "compiled"):
        made = paths.private(refused)
        assert made.parent == tmp_path and made.name.startswith("mmtool-") and made.stat().st_mode & 0o777 == 0o700
