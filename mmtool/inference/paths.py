"""Ways through an encoder for batches of one shape: the plain one, and faster ones that must agree with it.

`plain` runs the modules; `traced` is frozen TorchScript, where batch norms are folded into convolutions and weights are
constants, made in a second; `compiled` is torch.compile with frozen weights, made in ten to thirty; `openvino` is that
library's own engine.
"""

from __future__ import annotations

import atexit
import copy
import logging
import os
import shutil
import stat
import tempfile
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path as FilePath
from typing import Literal

import torch
from torch import Tensor, nn

from mmtool import console
from mmtool.api import Encoder, Tokens

Keep = Literal["pooled", "tokens", "space"]
"""What is kept of a cell: one pooled vector, every token, or its vector in the space that the encoder states."""

Path = Literal["plain", "traced", "compiled", "openvino"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

COMPILED = "TORCHINDUCTOR_CACHE_DIR"
"""Where torch keeps what it compiled; without that folder it tells no graph either."""

Run = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""`x [B, L, ...]` and `lengths [B]` on the device -> values `[B, T, D]` and mask `[B, T]`."""


class Unfit(Exception):
    """An encoder that a path cannot take; the text says why."""


class Whole(nn.Module):
    """Encoder and what is kept of its tokens, as one module with tensors in and out."""

    def __init__(self, encoder: Encoder, keep: Keep) -> None:
        super().__init__()
        self.encoder, self.keep = encoder, keep

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.encoder(x, lengths)
        if self.keep == "pooled":
            tokens = Tokens.pooled(self.encoder.pool(tokens))
        elif self.keep == "space":
            tokens = Tokens.pooled(self.encoder.to_space(tokens))
        return tokens.values, tokens.mask


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The arithmetic that `precision` asks for."""
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, dtype=DTYPES[precision])


def plain(encoder: Encoder, keep: Keep, device: torch.device, precision: str) -> Run:
    """The encoder as it is."""
    whole = Whole(encoder, keep)

    def run(x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(), autocast(device, precision):
            values, mask = whole(x, lengths)
        return values, mask
    return run


def exported(encoder: Encoder, keep: Keep, x: Tensor, lengths: Tensor) -> nn.Module:
    """The one course that batches like `x` take through a copy of the encoder, as a graph.

    Raises Unfit where the course depends on values, or cannot be told.
    """
    _keep_compiled()
    # A first backward pass after what export imports would start threads, and trainings in forked processes then fail.
    with torch.enable_grad():
        torch.zeros(1, requires_grad=True).sum().backward()  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.no_grad():
                graph = torch.export.export(Whole(_own(encoder), keep).eval(), (x, lengths), strict=False)
            return graph.module()
        except Exception as error:
            raise Unfit(f"its course cannot be told ({type(error).__name__})") from error


def traced(graph: nn.Module, device: torch.device, precision: str, x: Tensor, lengths: Tensor) -> Run:
    """Frozen TorchScript of what `exported` gave."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; nothing else folds and freezes within a second
        try:
            with torch.inference_mode(), autocast(device, precision):
                frozen = torch.jit.freeze(torch.jit.trace(graph, (x, lengths), check_trace=False).eval())  # type: ignore[no-untyped-call]
        except Exception as error:
            raise Unfit(f"it cannot be traced ({type(error).__name__})") from error

    def run(x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            values, mask = frozen(x, lengths)
        return values, mask
    for _ in range(2):  # the first runs are profiled, and then optimized
        run(x, lengths)
    return run


def compiled(graph: nn.Module, device: torch.device, precision: str, x: Tensor, lengths: Tensor) -> Run:
    """torch.compile of what `exported` gave, weights frozen. Raises Unfit where there is no C++ compiler."""
    fast = torch.compile(graph, dynamic=False)

    def run(x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad(), autocast(device, precision):
            values, mask = fast(x, lengths)
        return values, mask
    from torch._inductor import config

    cpu = device.type == "cpu"  # where code that calls kernels from Python holds its lock, and lanes wait for each other
    try:
        with warnings.catch_warnings(), config.patch(freezing=cpu, cpp_wrapper=cpu):  # as options they reach half of it
            warnings.simplefilter("ignore")
            run(x, lengths)
    except Exception as error:
        if "InvalidCxxCompiler" in str(error):  # a name is all that torch tells it by
            raise Unfit("torch.compile finds no C++ compiler (g++), whose code is up to 1.6 times as fast") from error
        raise Unfit(f"it cannot be compiled ({type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]})") from error
    return run


def _keep_compiled() -> None:
    """What is compiled is kept with the cache, not in a folder of /tmp whose name anybody can guess.

    torch reads this when its compiler is imported, which exporting does.
    """
    from mmtool import cache

    named = os.environ.get(COMPILED)
    if named is None or not _writable(FilePath(named)):
        if named is not None:
            console.warn(f"{COMPILED}={named}: nothing can be written there, so what is compiled is kept with the cache")
        os.environ[COMPILED] = str(private(cache.home().with_name("compiled")))
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # says that there is no CUDA, which nobody asked


def _writable(folder: FilePath) -> bool:
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        return os.access(folder, os.W_OK | os.X_OK)
    return False


def private(folder: FilePath) -> FilePath:
    """The folder, if nobody else may write to it: what lies there is run. Else a new one, which goes with this process."""
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.lstat()
        ours = stat.S_ISDIR(about.st_mode) and (os.name != "posix" or about.st_uid == os.getuid())
        if ours and not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and os.access(folder, os.W_OK):
            return folder
    made = tempfile.mkdtemp(prefix="mmtool-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return FilePath(made)


def _own(encoder: Encoder) -> Encoder:
    """A copy in the layout that convolutions prefer; the encoder itself is saved and trained by others."""
    own = copy.deepcopy(encoder).requires_grad_(False).eval()
    return own.to(memory_format=torch.channels_last) if any(p.dim() == 4 for p in own.parameters()) else own
