"""What the README shows works as it is printed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
VERBS = "predict|extract|fuse|plugins|train|eval|info|sample"
COMMANDS = sorted(set(re.findall(rf"(?:^|\(|\| )(mmtool (?:{VERBS}) .*?)(?:\s{{2,}}#.*|\)|`|$)", README, re.M)))


def block(after: str, language: str) -> str:
    """The first fenced block of a language after a line."""
    found = re.search(rf"^```{language}\n(.*?)^```$", README[README.index(after):], re.M | re.S)
    assert found is not None
    return found[1]


def test_the_plugin_is_short_installs_by_its_own_page_and_keeps_the_contract(mmtool: Callable, tmp_path: Path) -> None:
    project, module = block("`pyproject.toml`:", "toml"), block("`mmtool_mean_colour.py`:", "python")
    assert len([line for line in (project + module).splitlines() if line.strip()]) < 40
    (tmp_path / "p").mkdir()
    (tmp_path / "p/pyproject.toml").write_text(project)
    (tmp_path / "p/mmtool_mean_colour.py").write_text(module)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target",
                    str(tmp_path / "site"), str(tmp_path / "p")], check=True, capture_output=True)
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); from mmtool.cli.main import run; sys.exit(run())"
    ran = subprocess.run([sys.executable, "-c", code, "plugins", "check", "mean-colour:power=0.5"], capture_output=True,
                         text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "mean-colour:power=0.5 of mmtool-mean-colour 0.1.0" in ran.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_that_is_shown_exists(mmtool: Callable, command: str) -> None:
    words = command.split()
    verb = words[1:3] if words[1] == "plugins" else words[1:2]
    shown = re.findall(r"(?<!\S)--?[a-z][a-z-]*", command.split("#")[0].split("|")[0])
    ran = mmtool(*verb, "--help")
    assert ran.code == 0
    assert [option for option in shown if not re.search(rf"(?<!\S){option}\b", ran.out)] == []


def test_commands_were_found() -> None:
    assert len(COMMANDS) > 12


def test_files_that_are_linked_exist() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
