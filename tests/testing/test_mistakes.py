"""The contracts catch plugins that break them, one mistake each, by the check that names the mistake."""

from typing import Any

import good_fusion
import good_task
import mistakes_in_forward
import mistakes_in_fusions
import mistakes_in_prepare
import mistakes_in_tasks
import pytest
from good_encoder import CELLS, Good

from mmtool.testing import Check, encoder_checks, fusion_checks, task_checks

MISTAKES = [("encoder", *m) for m in mistakes_in_prepare.MISTAKES + mistakes_in_forward.MISTAKES]
MISTAKES += [("fusion", *m) for m in mistakes_in_fusions.MISTAKES] + [("task", *m) for m in mistakes_in_tasks.MISTAKES]
FITTING = {"fits-the-same-twice", "fits-rows-in-any-order", "fits-what-is-there"}
GOOD = [("encoder", Good, {"bears-a-row-of-zeros"}), ("fusion", good_fusion.Good, {"combines-scores", *FITTING}),
        ("fusion", good_fusion.GoodTokens, {"combines-scores", *FITTING}), ("fusion", good_fusion.GoodTowers, FITTING),
        ("fusion", good_fusion.GoodFitted, {"combines-scores"}), ("task", good_task.Good, set())]


def _checks(kind: str, cls: type[Any]) -> list[Check]:
    if kind == "encoder":
        return encoder_checks(cls, cells=CELLS)
    return fusion_checks(cls) if kind == "fusion" else task_checks(cls)


@pytest.mark.parametrize(("kind", "cls", "skipped"), GOOD, ids=[f"{kind}-{cls.__name__}" for kind, cls, _ in GOOD])
def test_a_good_plugin_keeps_the_contract(kind: str, cls: type[Any], skipped: set[str]) -> None:
    checks = encoder_checks(cls) if kind == "encoder" else _checks(kind, cls)
    outcomes = {o.check: o for o in (check.run() for check in checks)}
    assert {name: o.reason for name, o in outcomes.items() if o.status == "failed"} == {}
    assert {name for name, o in outcomes.items() if o.status != "ok"} - {"agrees-on-cuda"} == skipped
    assert sum(o.seconds for o in outcomes.values()) > 0


@pytest.mark.parametrize(("kind", "cls", "check", "remedy"), MISTAKES,
                         ids=[f"{kind}-{cls.__name__}" for kind, cls, _, _ in MISTAKES])
def test_one_mistake_fails_one_check_which_says_what_to_mend(kind: str, cls: type[Any], check: str, remedy: str,
                                                             capfd: pytest.CaptureFixture[str]) -> None:
    outcomes = [c.run() for c in _checks(kind, cls)]
    failed = {o.check: o.reason for o in outcomes if o.status == "failed"}
    assert list(failed) == [check], failed
    assert remedy in failed[check]
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("kind", ["encoder", "fusion", "task"])
def test_every_check_has_a_plugin_that_fails_it(kind: str) -> None:
    names = {str(check) for check in _checks(kind, next(cls for k, cls, _ in GOOD if k == kind))}
    assert names - {check for k, _, check, _ in MISTAKES if k == kind} == {"agrees-on-cuda"}
