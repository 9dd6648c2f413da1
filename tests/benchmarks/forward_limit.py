"""What the processor can do: the fastest forward of a backend on tensors that are ready, and the cheapest decoding.

    python tests/benchmarks/forward_limit.py forward --network resnet18 --backend torch --precision fp32
    python tests/benchmarks/forward_limit.py decode PICTURE...

Prints JSON: pictures a second of all cores for each way; or CPU seconds a picture for each decoder. Each way is prepared by
processes of its own, that begin together: one with all threads, or one a core with a thread each.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import harness

WAYS: dict[str, dict[str, tuple[str, bool, int]]] = {
    "torch": {"torch.compile, a process a core, batch 8": ("compile", True, 8),
              "torchscript, a process a core, batch 8": ("script", True, 8),
              "torchscript, all threads, batch 32": ("script", False, 32)},
    "openvino": {"openvino, a stream a core, batch 8": ("THROUGHPUT", False, 8),
                 "openvino LATENCY, batch 32": ("LATENCY", False, 32)}}
"""How: what makes the network fast, a process for each core or one, and the batch."""
SIDE_PX, WARM = 224, 3


def forward(network: str, backend: str, precision: str, seconds: float, compiled: bool) -> dict[str, float]:
    """Pictures a second of each way that works here."""
    found = {}
    for name, (kind, each, batch) in WAYS[backend].items():
        if kind == "compile" and not compiled:
            continue
        count = (os.cpu_count() or 1) if each else 1
        context = multiprocessing.get_context("spawn")
        barrier, answers = context.Barrier(count), context.SimpleQueue()
        work = [context.Process(target=_work, args=(network, kind, precision, batch, each, seconds, barrier, answers))
                for _ in range(count)]
        for process in work:
            process.start()
        for process in work:
            process.join()
        if all(process.exitcode == 0 for process in work):
            found[name] = sum(answers.get() for _ in work)
    return found


def _work(network: str, kind: str, precision: str, batch: int, alone: bool, seconds: float, barrier: Barrier,
          answers: Any) -> None:
    try:
        run, inflight = _prepared(network, kind, precision, batch, 1 if alone else os.cpu_count() or 1)
        for _ in range(WARM):
            run()
    except BaseException:
        barrier.abort()
        raise
    barrier.wait(120)  # seconds: the others may have been killed
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        run()
        done += batch * inflight
    answers.put(done / (time.perf_counter() - started))


def _prepared(network: str, kind: str, precision: str, batch: int, threads: int) -> tuple[Callable[[], Any], int]:
    """A call that runs the network on `count` batches; `count`."""
    from mmtool.allocator import keep_memory

    keep_memory()
    import timm
    import torch

    warnings.simplefilter("ignore")  # TorchScript is out of fashion, and fast; it folds batch norms as torch.compile does
    torch.set_num_threads(threads)
    # TensorFlow's padding, which is decided by shapes, is what `tf_` names; every way gets constants of it by tracing
    model = timm.create_model(network, num_classes=0, exportable=True).eval()
    x = torch.randn(batch, 3, SIDE_PX, SIDE_PX)
    if kind in ("THROUGHPUT", "LATENCY"):
        return _openvino(model, x, kind, precision, threads)
    import torch._inductor.config as inductor

    inductor.freezing = inductor.cpp_wrapper = True  # for all of the compilation; as options of torch.compile they reach half
    model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)

    def run() -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
            fast(x)

    fast: Any = torch.compile(model)
    if kind == "script":
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
            fast = torch.jit.freeze(torch.jit.trace(model, x, check_trace=False))
    return run, 1


def _openvino(model: Any, x: Any, hint: str, precision: str, streams: int) -> tuple[Callable[[], Any], int]:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # it reports to its makers
    import openvino as ov
    import torch

    given = {"PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
             "INFERENCE_NUM_THREADS": streams}
    if hint == "THROUGHPUT":
        given["NUM_STREAMS"] = streams
    with torch.inference_mode():
        graph = ov.convert_model(model, example_input=x[:1])  # it runs the example several times
    graph.reshape(list(x.shape))
    compiled = ov.Core().compile_model(graph, "CPU", given)
    if hint == "LATENCY":
        return lambda: compiled(x.numpy()), 1
    queue = ov.AsyncInferQueue(compiled, 2 * streams)

    def run() -> None:
        for _ in range(8):
            queue.start_async([x.numpy()])
        queue.wait_all()

    return run, 8


def decode(paths: list[str]) -> dict[str, float]:
    """CPU seconds a picture, from bytes in memory to uint8 at the network's size, of each decoder that is installed."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from mmtool.api import resize_image
    from mmtool.media.images import decode_image

    torch.set_num_threads(1)
    files = [Path(path).read_bytes() for path in paths]
    ways: dict[str, Callable[[bytes], Any]] = {
        "mmtool": lambda data: resize_image(decode_image(data, shorter_side_px=256), SIDE_PX, crop=0.875)}
    if harness.has("simplejpeg"):
        import simplejpeg

        ways["simplejpeg, mmtool's resize"] = lambda data: resize_image(
            torch.from_numpy(simplejpeg.decode_jpeg(data)).permute(2, 0, 1), SIDE_PX, crop=0.875)
        try:
            import cv2

            cv2.setNumThreads(1)
            ways["simplejpeg, OpenCV"] = lambda data: cv2.resize(
                simplejpeg.decode_jpeg(data), (256, 256), interpolation=cv2.INTER_AREA)[16:240, 16:240].copy()
        except ImportError:
            pass

    def timed(way: Callable[[bytes], Any]) -> float:
        started = time.process_time()
        for data in files:
            way(data)
        return (time.process_time() - started) / len(files)

    for way in ways.values():
        way(files[0])
    return harness.medians(harness.interleave({name: lambda way=way: timed(way) for name, way in ways.items()}, 3))


def main() -> None:
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(dest="verb", required=True)
    speed = verbs.add_parser("forward")
    speed.add_argument("--network", required=True)
    speed.add_argument("--backend", choices=list(WAYS), required=True)
    speed.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    speed.add_argument("--seconds", type=float, default=3)
    speed.add_argument("--no-compile", action="store_true")
    verbs.add_parser("decode").add_argument("pictures", nargs="+")
    a = parser.parse_args()
    found = decode(a.pictures) if a.verb == "decode" else forward(a.network, a.backend, a.precision, a.seconds,
                                                                  not a.no_compile)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
