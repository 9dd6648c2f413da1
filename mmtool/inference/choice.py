"""Which path an encoder takes for a run of so many rows, and the check that it agrees with the plain one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mmtool import devices, stopping
from mmtool.api import Encoder
from mmtool.errors import UsageError
from mmtool.inference import openvino, paths
from mmtool.inference.lanes import FEW_ROWS
from mmtool.inference.paths import Keep, Path, Run, Unfit

Backend = Literal["torch", "openvino"]

WORTH_TRACING, WORTH_CONVERTING, WORTH_COMPILING = 512, 1024, 4096
"""Rows that repay the second, the 3 to 5 and the 10 to 20 seconds that the paths cost at first (2 cores, 224 pixels)."""
WORTH_COMPILING_ON_CUDA = 20_000

LIGHT = 100.0
"""Operations for each value that a network's steps write; below it is bound by memory, and fusing its steps pays.

Compiled / traced, 2 cores, float32: EfficientNet-Lite0 (46 operations a value) 1.5, ViT-S (255) 1.0, ResNet-18 (396) 1.0.
"""

TOLERANCE = 1e-4
"""Largest relative distance of a cell's values from the plain path's, in float32."""


@dataclass(frozen=True)
class Chosen:
    """A path that is ready; `refused` tells why faster ones are not taken."""

    path: Path
    run: Run
    refused: tuple[str, ...] = ()


def choose_backend(name: str, device: torch.device, precision: str, rows: int) -> Backend:
    """`auto` is OpenVINO where it is installed, on a CPU, for rows enough to repay its start.

    Where it is asked for, too, so few rows that they have no lanes are PyTorch's. Raises UsageError.
    """
    possible = device.type == "cpu" and precision in openvino.HINTS
    if name == "openvino":
        if not openvino.installed():
            raise UsageError("--backend openvino: the package openvino is not installed", "run: pip install 'mmtool[openvino]'")
        if not possible:
            raise UsageError(f"--backend openvino computes on a CPU, in {' or '.join(openvino.HINTS)}",
                             f"use --device cpu; or --backend torch for {device.type} and {precision}")
        return "openvino" if rows > FEW_ROWS else "torch"
    if name not in ("auto", "torch"):
        raise UsageError(f"--backend {name!r} is not known", "use auto, torch or openvino")
    return "openvino" if name == "auto" and possible and rows >= WORTH_CONVERTING and openvino.installed() else "torch"


def tier(device: torch.device, backend: Backend, rows: int) -> str:
    """How much start a run of `rows` rows repays; together with an encoder and its first batch it decides the path."""
    if device.type == "cuda":
        return "compiled" if rows >= WORTH_COMPILING_ON_CUDA else "plain"
    if device.type != "cpu" or (backend == "torch" and rows < WORTH_TRACING):
        return "plain"
    return backend if backend == "openvino" else "compiled" if rows >= WORTH_COMPILING else "traced"


def fastest(encoder: Encoder, keep: Keep, device: torch.device, precision: str, x: Tensor, lengths: Tensor, *,
            most: str, lanes: int, threads: int, known: Path | None = None,
            tell: Callable[[str], None] = lambda told: None) -> Chosen:
    """The fastest path of a tier that agrees with the plain one on the batch `x`; `known`: the one that was chosen before.

    A function of its arguments and of what is installed, not of measured times, so that equal runs give equal bits.
    `tell` is told what takes long.
    """
    plain = paths.plain(encoder, keep, device, precision)
    refused: list[str] = []
    try:
        graph = paths.exported(encoder, keep, x, lengths)
    except Unfit:  # so it is of many encoders, and nothing that anybody could mend
        return Chosen("plain", plain)
    for path in _candidates(graph, device, x, lengths, most) if known is None else [known]:
        if stopping.asked():
            break
        try:
            if path == "openvino":
                run = openvino.converted(graph, precision, x, lengths, lanes=lanes, threads=threads)
            elif path == "compiled":
                tell("compiling, 10 to 20 seconds at first")
                run = paths.compiled(graph, device, precision, x, lengths)
            else:
                run = paths.traced(graph, device, precision, x, lengths)
            off = distance(run, encoder, keep, device, precision, x, lengths)
            if off <= 1 or known is not None:
                return Chosen(path, run, tuple(refused))
            refused.append(f"{path}: its values are {off:.1f} times as far from the plain ones as they may be")
        except Unfit as why:
            refused.append(f"{path}: {why}")
        except Exception as error:  # whatever a compiler or an engine raises when it first runs
            if devices.ran_out(error):
                raise
            refused.append(f"{path}: it failed ({type(error).__name__})")
    return Chosen("plain", plain, tuple(refused))


def _candidates(graph: nn.Module, device: torch.device, x: Tensor, lengths: Tensor, most: str) -> list[Path]:
    if device.type == "cuda":
        return ["compiled"]
    if most == "openvino":
        return ["openvino", "traced"]
    return ["compiled", "traced"] if most == "compiled" and operations_a_value(graph, x, lengths) < LIGHT else ["traced"]


def operations_a_value(graph: nn.Module, x: Tensor, lengths: Tensor) -> float:
    """Arithmetic of convolutions and matrix products, divided by the floating-point values that the graph's steps write.

    Infinite where they cannot be counted.
    """
    from torch.utils.flop_counter import FlopCounterMode

    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            graph(x, lengths)
    except Exception:  # noqa: BLE001  an operation that the counter does not know, nor a compiler then
        return float("inf")
    steps = [node.meta.get("val") for node in graph.graph.nodes if node.op == "call_function"]  # type: ignore[union-attr]
    written = sum(out.numel() for out in steps if isinstance(out, Tensor) and out.is_floating_point())
    return float(counter.get_total_flops()) / max(1, written)


def distance(run: Run, encoder: Encoder, keep: Keep, device: torch.device, precision: str, x: Tensor, lengths: Tensor) -> float:
    """How far a path's values are from the plain ones, as a share of what is allowed; above 1 it disagrees.

    In float32 `TOLERANCE`; in a shorter format twice as far from float32 as the plain path in that format. A cell whose plain
    values are not finite is a bad one, and says nothing; infinite where none is left.
    """
    ours, mask = run(x, lengths)
    theirs, its_mask = paths.plain(encoder, keep, device, precision)(x, lengths)
    if ours.shape != theirs.shape or not torch.equal(mask.to(its_mask.device), its_mask):
        return float("inf")
    exact = theirs if precision == "fp32" else paths.plain(encoder, keep, device, "fp32")(x, lengths)[0]
    sound = (theirs.isfinite() & exact.isfinite()).flatten(1).all(1)  # [B]
    if not bool(sound.any()):
        return float("inf")
    ours, theirs, exact = ours[sound], theirs[sound], exact[sound]
    if precision == "fp32":
        return _relative(ours, theirs) / TOLERANCE
    return _relative(ours, exact) / (2 * _relative(theirs, exact) + TOLERANCE)


def _relative(values: Tensor, reference: Tensor) -> float:
    """Largest relative distance of a row `[T, D]` of `[B, T, D]`; infinite where a value is not finite."""
    values, reference = values.double().cpu().flatten(1), reference.double().cpu().flatten(1)
    off = (values - reference).norm(dim=1) / reference.norm(dim=1).clamp(min=1e-12)
    return float(off.max()) if bool(off.isfinite().all()) else float("inf")
