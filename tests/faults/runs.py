"""The client of tests/faults/forks.py: one command, undisturbed, traced, killed at a moment, or with a fault injected."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CALLS = ("write", "pwrite64", "writev", "fsync", "fdatasync", "rename", "renameat", "renameat2", "link", "linkat", "unlink",
         "unlinkat", "rmdir", "mkdir", "mkdirat", "ftruncate", "openat", "copy_file_range", "sendfile", "flock")
"""What can change a file or tell whether it is there for good; flock, since a file system may lack it."""
MOST_SECONDS = 120
"""A run that takes longer hangs."""


def strace() -> str | None:
    """The tracer, where it is installed."""
    return shutil.which("strace")


@dataclass(frozen=True)
class Ran:
    """What a command came to; `code` is negative where a signal ended it."""

    code: int
    err: str
    out: str
    seconds: float
    hung: bool
    trace: str = ""


def environment(cache: Path, tmp: Path, **more: str) -> dict[str, str]:
    """One thread, an own cache, an own folder for temporary files."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/plugin"), str(HERE / "plugin")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MMTOOL_CACHE": str(cache), "TMPDIR": str(tmp),
            "PYTHONDONTWRITEBYTECODE": "1", **more}


class Server:
    """Use as a context manager; one command at a time."""

    def __enter__(self) -> Server:
        self.process = subprocess.Popen([sys.executable, str(HERE / "forks.py")], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, start_new_session=True,
                                        env=environment(Path("/nowhere"), Path("/tmp")))
        self.running: set[int] = set()
        assert self._answer() == {"ready": True}
        return self

    def __exit__(self, *exc: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def ask(self, request: dict) -> dict:
        """One request, one answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the fork server died")
        return json.loads(line)

    def start(self, argv: Sequence[object], env: dict[str, str], cwd: Path, log: Path, *, trace: Sequence[str] = ()) -> Child:
        """A command that runs. `trace`: options of strace, which is attached first."""
        pid = self.ask({"argv": [str(a) for a in argv], "env": env, "cwd": str(cwd), "log": str(log)})["pid"]
        tracer = None if not trace else _attach(pid, log.with_name(log.name + ".trace"), trace)
        self.ask({"go": pid})
        self.running.add(pid)
        return Child(self, pid, log, tracer)

    def end_all(self) -> None:
        """Kill what a failed test left running."""
        for pid in list(self.running):
            kill_session(pid)
            self.ask({"wait": pid})
            self.running.discard(pid)

    def run(self, argv: Sequence[object], env: dict[str, str], cwd: Path, log: Path, *, trace: Sequence[str] = (),
            act: Callable[[int], None] | None = None) -> Ran:
        """One command to its end. `act(pid)` runs beside it, in a thread."""
        child = self.start(argv, env, cwd, log, trace=trace)
        if act is None:
            return child.wait()
        actor = threading.Thread(target=act, args=(child.pid,))
        actor.start()
        ran = child.wait()
        actor.join()
        return ran


class Child:
    """A command that was started."""

    def __init__(self, server: Server, pid: int, log: Path, tracer: subprocess.Popen[bytes] | None) -> None:
        self.server, self.pid, self.log, self.tracer = server, pid, log, tracer
        self.started = time.monotonic()

    @property
    def err(self) -> str:
        """What it has said on stderr so far."""
        return self.log.read_text(errors="replace")

    def wait(self, most_seconds: float = MOST_SECONDS) -> Ran:
        """Its end; after so many seconds it is killed."""
        hung = threading.Event()

        def give_up() -> None:
            hung.set()
            kill_session(self.pid)

        timer = threading.Timer(most_seconds, give_up)
        timer.start()
        code = self.server.ask({"wait": self.pid})["code"]
        seconds = time.monotonic() - self.started
        timer.cancel()
        self.server.running.discard(self.pid)
        traced = ""
        if self.tracer is not None:
            self.tracer.wait(20)
            traced = self.log.with_name(self.log.name + ".trace").read_text(errors="replace")
        out = self.log.with_name(self.log.name + ".out").read_text(errors="replace")
        return Ran(code, self.err, out, seconds, hung.is_set(), traced)


def _attach(pid: int, log: Path, options: Sequence[str]) -> subprocess.Popen[bytes]:
    """Attach, and return when that has happened."""
    said = log.with_name(log.name + ".said")
    with said.open("wb") as f:
        found = subprocess.Popen([str(strace()), "-y", "-s", "0", "-o", str(log), "-p", str(pid), *options], stderr=f,
                                 start_new_session=True)
    until(lambda: b"\n" in said.read_bytes(), "strace attaches")
    if b"attached" not in said.read_bytes():
        found.kill()
        found.wait()
        raise RuntimeError(f"strace cannot attach: {said.read_text()}")
    return found


def session(leader: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == leader and fields[0] != "Z":
                found.append(int(entry.name))
    return sorted(found)


def kill_session(leader: int, number: int = signal.SIGKILL) -> None:
    """A signal to every process of a session."""
    for pid in session(leader):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def until(holds: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Wait for something; AssertionError where it does not come."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.001)


def ended(leader: int, seconds: float) -> bool:
    """Are all processes of a session gone within so many seconds?"""
    until = time.monotonic() + seconds
    while session(leader):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


@dataclass(frozen=True)
class Call:
    """The N-th call of its name in the main thread, and what it touched, as normalized text."""

    name: str
    number: int
    what: str
    result: str


_LINE = re.compile(r"^(?P<name>[a-z0-9_]+)\((?P<args>.*)\)\s+= (?P<result>.*)$")


def calls(trace: str, roots: Sequence[Path]) -> list[Call]:
    """The calls of a trace that touch something below the roots, with their numbers among all calls of that name."""
    counts: dict[str, int] = {}
    found = []
    for line in trace.splitlines():
        match = _LINE.match(line)
        if match is None:
            name = line.partition("(")[0]
            if name in CALLS:
                counts[name] = counts.get(name, 0) + 1
            continue
        name = match["name"]
        counts[name] = counts.get(name, 0) + 1
        inside = [root for root in roots if str(root) in match["args"]]
        changes = name != "openat" or "O_CREAT" in match["args"] or "O_WRONLY" in match["args"] or "O_TRUNC" in match["args"]
        if inside and changes:
            found.append(Call(name, counts[name], normal(match["args"], roots), match["result"]))
    return found


def normal(text: str, roots: Sequence[Path]) -> str:
    """Without what differs from run to run: roots, process ids, descriptors."""
    for root in roots:
        text = text.replace(str(root), root.name)
    text = re.sub(r"mmtool-[0-9a-z_]{8,12}\b", "mmtool-RANDOM", text)
    return re.sub(r"\.\d{2,}\.", ".PID.", re.sub(r"\b\d+<", "<", text))
