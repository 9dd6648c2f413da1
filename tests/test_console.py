"""Foreign text never acts on a terminal."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from mmtool import console


@pytest.mark.parametrize(("text", "shown"), [
    ("plain [bold]text[/x] :smile:", "plain [bold]text[/x] :smile:"), ("a\x1b[31mb", "a\\x1b[31mb"),
    ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
    ("\x9b31m", "\\x9b31m"), ("\u202eevil", "\\u202eevil"), ("\ud800", "\\ud800"),
    ("👩‍👩‍👧 नमस्ते می‌خواهم", "👩‍👩‍👧 नमस्ते می‌خواهم")])
def test_literal(text: str, shown: str) -> None:
    assert console.literal(text) == shown


@pytest.mark.parametrize("value", ["é\x1b\x9b", "\ud800", {"ключ": ["\x00", 1.5, None]}])
def test_json_is_one_safe_line_that_reads_back(value: object) -> None:
    text = console.to_json(value)
    assert not any(ord(ch) < 32 or 0x7F <= ord(ch) <= 0x9F for ch in text)
    assert json.loads(text.encode()) == value


def test_an_ascii_terminal_gets_escapes_not_a_traceback() -> None:
    code = "from mmtool import console; console.say('猫 █'); console.out('猫 █')"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False,
                         env={"PYTHONIOENCODING": "ascii", "PATH": "", "PYTHONPATH": ":".join(sys.path)})
    assert ran.returncode == 0, ran.stderr
    assert b"\\u732b" in ran.stdout
    assert b"\\u732b" in ran.stderr


def test_wide_characters_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    console.table(["name", "n"], [["猫猫", 1], ["a", 2]], to_stdout=True)
    assert capsys.readouterr().out == "name  n\n猫猫  1\na     2\n"
