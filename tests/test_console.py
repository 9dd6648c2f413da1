"""Foreign text never acts on a terminal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import suppress

import pytest

from mmtool import console, report


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


@pytest.mark.parametrize("line", ["progress('extract', 9)", "live_line('part 1', 9)"])
def test_what_is_printed_beside_a_live_line_stands_on_a_line_of_its_own(line: str) -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    code = f"import time\nfrom mmtool import console\nwith console.{line}:\n time.sleep(0.5)\n console.warn('told [b]\\x1b')"
    child = subprocess.Popen([sys.executable, "-c", code], stderr=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    seen = b""
    with suppress(OSError):  # as reading ends where nobody can write any more
        while piece := os.read(ours, 1 << 16):
            seen += piece
    os.close(ours)
    assert child.wait(30) == 0
    before, found, after = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", seen).partition(rb"warning: told [b]\x1b")
    assert "\u2501" in seen.decode()
    assert found and after.startswith(b"\r\n")
    assert before.endswith((b"\r", b"\n")), before


def test_the_table_of_metrics_shows_the_name_of_an_input_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    one = {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}}
    baselines = {"without_inputs": one, "best_single_input:a_b:c": one}
    report.show({"overall": one, "by_inputs": {}, "baselines": baselines}, ["accuracy"])
    labels = [line.split("  ")[0] for line in capsys.readouterr().err.splitlines()[1:]]
    assert labels == ["all rows", "without inputs", "best single input: a_b:c"]


def test_a_forked_process_has_no_part_in_the_live_line() -> None:
    code = "import os, sys; from mmtool import console; console.drawn = True; child = os.fork(); " \
        "sys.exit(console.drawn if not child else os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr
