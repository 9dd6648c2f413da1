"""What commands tell the C library about memory, before torch takes any."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

GLIBC = sys.platform.startswith("linux") and platform.libc_ver()[0] == "glibc"

KEPT = """
import os, sys, threading
import mmtool.allocator
if sys.argv[1] == "kept":
    assert mmtool.allocator.keep_memory()

def resident_mb():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

def work():
    buffer = b"x" * (100 << 20)
    del buffer
    kept.append(resident_mb() - before)

before, kept = resident_mb(), []
thread = threading.Thread(target=work)
thread.start() if sys.argv[2] == "thread" else work()
thread.join() if sys.argv[2] == "thread" else None
print(kept[0])
"""

ORDER = """
import sys
import mmtool.allocator
seen = []
mmtool.allocator.keep_memory = lambda: seen.append("torch" in sys.modules)
from mmtool.cli.main import run
run(["predict", "no-such-file.jpg", "--labels", "a,b"])
print(seen)
"""


def told(code: str, *arguments: str) -> str:
    ran = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@pytest.mark.skipif(not GLIBC, reason="only glibc has these settings")
@pytest.mark.parametrize("where", ["main", "thread"])
def test_a_freed_buffer_of_100_mb_stays_for_the_next(where: str) -> None:
    """Without the settings the system takes it back, and every further one costs 25,000 page faults."""
    assert int(told(KEPT, "plain", where)) < 10 < 90 < int(told(KEPT, "kept", where))


def test_a_command_sets_it_before_torch_is_there() -> None:
    assert told(ORDER) == "[False]"
