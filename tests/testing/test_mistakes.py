"""The contract catches encoders that break it, one mistake each, by the check that names the mistake."""

import mistakes_in_forward
import mistakes_in_prepare
import pytest
from good_encoder import CELLS, Good

from mmtool.api import Encoder
from mmtool.testing import encoder_checks

MISTAKES = mistakes_in_prepare.MISTAKES + mistakes_in_forward.MISTAKES


def test_a_good_encoder_keeps_the_contract() -> None:
    outcomes = {o.check: o for o in (check.run() for check in encoder_checks(Good))}
    assert {name for name, o in outcomes.items() if o.status != "ok"} <= {"bears-a-row-of-zeros", "agrees-on-cuda"}
    assert sum(o.seconds for o in outcomes.values()) > 0


@pytest.mark.parametrize(("cls", "check", "remedy"), MISTAKES, ids=[cls.__name__ for cls, _, _ in MISTAKES])
def test_one_mistake_fails_one_check_which_says_what_to_mend(cls: type[Encoder], check: str, remedy: str,
                                                             capfd: pytest.CaptureFixture[str]) -> None:
    outcomes = [c.run() for c in encoder_checks(cls, cells=CELLS)]
    failed = {o.check: o.reason for o in outcomes if o.status == "failed"}
    assert list(failed) == [check], failed
    assert remedy in failed[check]
    assert capfd.readouterr().out == ""


def test_every_check_has_an_encoder_that_fails_it() -> None:
    names = {str(check) for check in encoder_checks(Good)}
    assert names - {check for _, check, _ in MISTAKES} == {"agrees-on-cuda"}
