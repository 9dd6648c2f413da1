"""How the checks are run: alone, in order, by the command, on encoders that lack something."""

import ast
import json
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from good_encoder import CELLS, Good
from good_fusion import Good as GoodFusion
from good_task import Good as GoodTask
from mistakes_in_forward import Prints, WrongDim
from mistakes_in_prepare import FailsToLoad
from mistakes_in_tasks import BareBaseline
from torch import Tensor

import mmtool.testing
from mmtool import plugins
from mmtool.api import Encoder, Fusion, MMToolError, Task, Tokens
from mmtool.cli.main import run
from mmtool.testing import encoder_checks, fusion_checks
from mmtool.testing.contract import ENCODER_CHECKS, FUSION_CHECKS, TASK_CHECKS
from mmtool.testing.encoders.samples import cells_for
from mmtool.testing.runner import installed_checks


def _failures(cls: type[Encoder] | str, **arguments: Any) -> dict[str, str]:
    return {o.check: o.reason for o in (c.run() for c in encoder_checks(cls, **arguments)) if o.status == "failed"}


def _reason(cls: type[Encoder], name: str, status: str = "skipped", **arguments: Any) -> str:
    outcome = next(check for check in encoder_checks(cls, **arguments) if str(check) == name).run()
    assert outcome.status == status
    return outcome.reason


def test_what_a_failure_makes_meaningless_is_skipped_and_says_which_to_mend() -> None:
    assert _reason(WrongDim, "batching-changes-nothing", cells=CELLS) == "mend gives-tokens first"
    assert _reason(WrongDim, "ignores-padding", cells=CELLS) == "mend gives-tokens first"


def test_a_check_is_a_call_that_raises_or_skips() -> None:
    checks = {str(check): check for check in encoder_checks(WrongDim, cells=CELLS)}
    checks["prepares-cells"]()
    with pytest.raises(AssertionError, match=r"WrongDim: values must be \[B, T, dim\], here \[5, T, 9\]"):
        checks["gives-tokens"]()
    with pytest.raises(unittest.SkipTest, match="mend gives-tokens first"):
        checks["repeats-its-bits"]()


class WeightsElsewhere(Good):
    def load(self) -> None:
        raise MMToolError("the weights are not on this machine", "use --allow-download")


class SpaceInItsWeights(WeightsElsewhere):
    def to_space(self, tokens: Tokens) -> Tensor:
        return tokens.mean() * 0  # until they are loaded


class NeedsAnExtra(Good):
    def __init__(self) -> None:
        super().__init__()
        import a_package_that_is_not_there  # noqa: F401


class OutsideTorch(Good):
    weights_sha256 = "0" * 64


class OfOneLength(Good):
    padding = "none"


class Scents(Good):
    modality = "scent"
    example: ClassVar[str] = "width=5"

    @classmethod
    def sample_cells(cls) -> list[str]:
        return ["rose", "pine", "lily of the valley"]


def test_without_weights_at_hand_the_checks_run_on_random_ones() -> None:
    assert "random" in _reason(WeightsElsewhere, "loads")
    assert not _failures(WeightsElsewhere, cells=CELLS)
    assert not _failures(SpaceInItsWeights, cells=CELLS)
    assert _reason(FailsToLoad, "loads", load=False) == "loading was not asked for"


def test_an_encoder_whose_extra_is_not_installed_is_skipped() -> None:
    reasons = {c.run().reason for c in encoder_checks(NeedsAnExtra) if str(c) != "states-what-it-is"}
    assert "needs the package 'a_package_that_is_not_there', which is not installed" in reasons
    assert not _failures(NeedsAnExtra)


def test_weights_outside_torch_are_said_to_be_neither_saved_nor_cast() -> None:
    assert "bundled" in _reason(OutsideTorch, "survives-save-and-load", cells=CELLS)
    assert "autocast" in _reason(OutsideTorch, "batching-changes-nothing-in-bfloat16", cells=CELLS)


def test_where_nothing_is_padded_only_equal_lengths_are_batched() -> None:
    assert "pads nothing" in _reason(OfOneLength, "ignores-padding", cells=CELLS)
    assert _reason(OfOneLength, "batching-changes-nothing", "ok", cells=["rose", "pine", "lily of the valley"]) == ""
    assert "sample_cells" in _reason(OfOneLength, "batching-changes-nothing", cells=["a", "ab", "abc"])


def test_an_encoder_may_bring_its_own_cells_and_example_options() -> None:
    subject = encoder_checks(Scents)[0].subject
    assert subject.options == {"width": 5}
    assert len(subject.prepared) == 3
    assert not _failures(Scents)


@pytest.mark.parametrize("modality", ["image", "audio", "text", "table", "scent"])
def test_sample_cells_are_what_prepare_gets(modality: str) -> None:
    cells = cells_for(modality, 8_000)
    assert len(cells) >= 5
    kind = {"image": Tensor, "audio": Tensor, "text": str, "table": dict}.get(modality, bytes)
    assert all(isinstance(cell, kind) for cell in cells)
    if modality == "image":
        assert all(c.dtype == torch.uint8 and c.shape[0] == 3 for c in cells)
    if modality == "audio":
        assert all(c.dtype == torch.float32 and c.ndim == 1 and c.abs().max() <= 1 for c in cells)
        assert sum(len(c) == 8_000 for c in cells) == 2


def test_the_checks_hold_under_python_o_too() -> None:
    folder = Path(mmtool.testing.__file__).parent
    for path in folder.rglob("*.py"):
        assert not any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(path.read_text()))), path.name


def test_importing_the_contract_imports_nothing_heavy() -> None:
    code = "import sys, mmtool.testing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_command_prints_a_line_a_check_and_ends_with_1_where_one_fails(monkeypatch: pytest.MonkeyPatch,
                                                                          capfd: pytest.CaptureFixture[str]) -> None:
    _install(monkeypatch, good=Scents, bad=WrongDim)
    assert run(["plugins", "check", "good"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("ok       good states-what-it-is (")
    assert lines[-1].startswith("ok       encoder good of pkg 1.2: ")
    assert run(["plugins", "check", "bad", "good:width=1"]) == 1
    out = capfd.readouterr().out
    assert "failed   bad gives-tokens (" in out
    assert "ok       encoder good:width=1 of pkg 1.2: " in out


def test_the_command_checks_all_that_is_installed_and_speaks_json(monkeypatch: pytest.MonkeyPatch,
                                                                  capfd: pytest.CaptureFixture[str]) -> None:
    _install(monkeypatch, bad=WrongDim, extra=NeedsAnExtra, good=Scents, noisy=Prints, mix=GoodFusion, letter=GoodTask)
    assert run(["plugins", "check", "--json"]) == 1
    reports = json.loads(capfd.readouterr().out)
    assert [(r["kind"], r["plugin"], r["status"]) for r in reports] == [
        ("encoder", "bad", "failed"), ("encoder", "extra", "skipped"), ("encoder", "good", "ok"),
        ("encoder", "noisy", "failed"), ("fusion", "mix", "ok"), ("task", "letter", "ok")]
    assert "a_package_that_is_not_there" in next(c["reason"] for c in reports[1]["checks"] if c["check"] == "gives-tokens")
    assert run(["plugins", "check", "extra", "--json"]) == 1  # asked for, and not checked
    capfd.readouterr()
    assert run(["plugins", "check"]) == 1
    assert [line.split()[:3] for line in capfd.readouterr().out.splitlines()] == [
        ["failed", "encoder", "bad"], ["skipped", "encoder", "extra"], ["ok", "encoder", "good"],
        ["failed", "encoder", "noisy"], ["ok", "fusion", "mix"], ["ok", "task", "letter"]]


def test_the_command_checks_fusions_and_tasks_with_their_options(monkeypatch: pytest.MonkeyPatch,
                                                                 capfd: pytest.CaptureFixture[str]) -> None:
    _install(monkeypatch, mix=GoodFusion, letter=BareBaseline)
    assert run(["plugins", "check", "fusion/mix:dim=3"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("ok       fusion/mix:dim=3 states-what-it-is (")
    assert lines[-1].startswith("ok       fusion mix:dim=3 of pkg 1.2: ")
    assert run(["plugins", "check", "letter:smoothing=0.1"]) == 1
    assert "failed   letter:smoothing=0.1 has-a-baseline (" in capfd.readouterr().out
    assert run(["plugins", "check", "mix:height=3"]) == 1
    assert "options: dim=int" in capfd.readouterr().out


def test_the_shipped_test_has_every_check_of_every_installed_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, good=Scents, mix=GoodFusion, letter=GoodTask)
    names = [name for name, _ in installed_checks()]
    assert len(names) == len(set(names)) == len(ENCODER_CHECKS) + len(FUSION_CHECKS) + len(TASK_CHECKS)
    assert {"encoder-good-gives-tokens", "fusion-mix-gives-tokens", "task-letter-decodes-rows"} < set(names)


class NeedsDim(GoodFusion):
    example: ClassVar[str] = "dim=3"

    def __init__(self, dims: dict[str, int], *, dim: int) -> None:
        super().__init__(dims, dim=dim)


def test_a_fusion_that_needs_an_option_is_tried_with_its_example() -> None:
    checks = fusion_checks(NeedsDim)
    assert checks[0].subject.new().dim == 3
    assert [o.reason for o in (c.run() for c in checks) if o.status == "failed"] == []


def _install(monkeypatch: pytest.MonkeyPatch, **classes: type[Any]) -> None:
    kinds = {name: next(kind for kind, base in (("encoder", Encoder), ("fusion", Fusion), ("task", Task))
                        if issubclass(cls, base)) for name, cls in classes.items()}
    found = sorted(plugins.Found(kinds[name], name, "pkg", "1.2", f"{cls.__module__}:{cls.__name__}")
                   for name, cls in classes.items())
    monkeypatch.setattr(plugins, "found", lambda: tuple(found))
