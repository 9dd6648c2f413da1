"""A server that has imported everything and forks a child for each command, so that a run costs tenths of a second.

Each child runs `mmtool.cli.main.main` as the console script does, in a session of its own, and waits until it is released,
so that a tracer can attach before the first call. Requests and answers are JSON lines:
{"argv", "env", "cwd", "log"} -> {"pid"}; {"go": pid} releases it -> {}; {"wait": pid} -> {"code"} (negative: signal).
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import signal
import sys
import tempfile

PR_SET_PTRACER = 0x59616D61
ANY = ctypes.c_ulong(-1)


MODULES = (
    "captum.attr", "matplotlib.figure", "mmtool_faults", "mmtool_tiny", "PIL.PngImagePlugin", "pyarrow.csv", "pyarrow.dataset",
    "pyarrow.parquet", "rich.cells", "scipy.optimize", "sklearn.metrics", "torch._dynamo", "torch.optim", "typer._adapters",
    "mmtool.cli.main", "mmtool.compare", "mmtool.encoders.image_cnn", "mmtool.encoders.table", "mmtool.evaluate",
    "mmtool.fused", "mmtool.fusions.concat", "mmtool.fusions.gated", "mmtool.page.cells", "mmtool.page.worst",
    "mmtool.page.write", "mmtool.predict", "mmtool.predict_model", "mmtool.tasks.classify", "mmtool.train")


def preload() -> None:
    """What the commands import in their bodies."""
    for name in MODULES:
        importlib.import_module(name)
    gc.freeze()  # a child copies no page only to count references


def become(request: dict, release: int) -> None:
    """Turn a forked child into the process that the request describes; returns when it is released."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ANY, 0, 0, 0)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    out = os.open(request["log"] + ".out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for fd, at in ((null, 0), (out, 1), (log, 2)):
        os.dup2(fd, at)
        os.close(fd)
    os.environ.clear()
    os.environ.update(request["env"])
    tempfile.tempdir = None
    os.chdir(request["cwd"])
    sys.argv = ["mmtool", *request["argv"]]
    os.read(release, 1)
    os.close(release)


def serve() -> None:
    """Fork for each request; returns in the children, and exits where the requests end."""
    requests, answers = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def answer(value: dict) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    answer({"ready": True})
    held: dict[int, int] = {}
    while line := requests.readline():
        request = json.loads(line)
        if "go" in request:
            os.close(held.pop(request["go"]))
            answer({})
            continue
        if "wait" in request:
            answer({"code": os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])})
            continue
        release, hold = os.pipe()
        pid = os.fork()
        if pid == 0:
            for fd in (requests.fileno(), answers.fileno(), null, hold, *held.values()):
                os.close(fd)
            become(request, release)
            return
        os.close(release)
        held[pid] = hold
        answer({"pid": pid})
    os._exit(0)


if __name__ == "__main__":
    preload()
    serve()
    from mmtool.cli.main import main

    main()
