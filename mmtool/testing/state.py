"""Tensors through a file's bytes, and a module on a GPU for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from mmtool.testing.verdicts import fail

CUDA_TOLERANCE = 1e-3


def through_bytes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, written as safetensors and read again."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            fail(f"{name!r} of the state or assets must be a tensor (text as uint8), it is {type(tensor).__name__}")
    return load(save({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}))


@contextmanager
def on_cuda(module: nn.Module) -> Iterator[None]:
    """The module is on the GPU meanwhile, and TF32 is off."""
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        module.to("cuda")
        yield
    finally:
        module.to("cpu")
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32
