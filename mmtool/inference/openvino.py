"""OpenVINO as an engine for the CPU (https://docs.openvino.ai), converted from the torch module in memory."""

from __future__ import annotations

import sys
import threading
import warnings
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from mmtool.inference.paths import Run, Unfit

NAMES = ("x", "lengths")
HINTS = {"fp32": "f32", "bf16": "bf16"}


def installed() -> bool:
    """Is the package there, and not only a folder of that name? It is not imported."""
    try:
        version("openvino")
    except PackageNotFoundError:
        return False
    return find_spec("openvino") is not None


def converted(graph: nn.Module, precision: str, x: Tensor, lengths: Tensor, *, lanes: int, threads: int) -> Run:
    """What `exported` gave, for batches like `x`, with one stream for each of `lanes`. Raises Unfit where it cannot take it."""
    if precision not in HINTS:
        raise Unfit(f"OpenVINO does not compute in {precision} on a CPU")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # it reports each conversion to its makers
    try:
        import openvino as ov
    except ImportError as error:
        raise Unfit(f"OpenVINO cannot be imported ({error})") from error
    given = (x, lengths)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.no_grad():
                traced = torch.jit.trace(graph, given, check_trace=False)  # type: ignore[no-untyped-call]
            model = ov.convert_model(traced, example_input=given)
            names = [port.get_any_name() for port in model.inputs]
            model.reshape({name: list(given[NAMES.index(name)].shape) for name in names})
            ready: Any = ov.Core().compile_model(model, "CPU", {
                "INFERENCE_PRECISION_HINT": HINTS[precision], "NUM_STREAMS": lanes, "INFERENCE_NUM_THREADS": lanes * threads})
        except Exception as error:
            raise Unfit(f"OpenVINO cannot take it ({type(error).__name__})") from error
    requests = threading.local()

    def run(x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        if not hasattr(requests, "own"):
            requests.own = ready.create_infer_request()
        found = requests.own.infer([(x, lengths)[NAMES.index(name)].contiguous().numpy() for name in names], share_inputs=True)
        values, mask = (torch.from_numpy(found[port].copy()) for port in ready.outputs)  # the request's memory is used again
        return values, mask.bool()
    return run
