"""The contract on every installed plugin: `pytest --pyargs mmtool.testing`."""

from collections.abc import Callable

import pytest

from mmtool.testing.runner import installed_checks


@pytest.mark.parametrize("check", [pytest.param(check, id=name) for name, check in installed_checks()])
def test_installed_plugin_keeps_the_contract(check: Callable[[], None]) -> None:
    check()
