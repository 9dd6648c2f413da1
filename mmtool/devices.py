"""What PyTorch says when a device fails or memory runs out, as errors of ours. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmtool.errors import DeviceError

FAILED = "E_DEVICE_FAILED"
"""Nothing more can be computed on the device in this process."""

_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "STATUS_ALLOC_FAILED")
_FAILED = ("CUDA error", "CUDA driver", "CUDNN_STATUS_", "CUBLAS_STATUS_", "HIP error", "MPS backend")


def ran_out(error: BaseException) -> bool:
    """Did memory run out, the device's or the machine's?"""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" \
        or (isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY))


def broke(error: BaseException) -> bool:
    """Did the device or its driver fail?"""
    return type(error).__name__ == "AcceleratorError" \
        or (isinstance(error, RuntimeError) and any(words in str(error) for words in _FAILED))


def device_error(error: BaseException, doing: str = "", remedy: str = "") -> DeviceError | None:
    """A failure of a device or of memory as an error of ours; None for any other. `remedy`: where memory ran out."""
    start = f"{doing}: " if doing else ""
    if ran_out(error):
        return DeviceError(f"{start}the memory does not suffice", remedy or "free some, lower --workers, or use --device cpu",
                           code="E_DEVICE_MEMORY")
    if broke(error):
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        return DeviceError(f"{start}the device failed ({said})",
                           "run the same command again; where it fails again, use --device cpu", code=FAILED)
    return None


@contextmanager
def watched(doing: str, remedy: str) -> Iterator[None]:
    """Raises DeviceError where a device fails or memory runs out inside; everything else goes through as it is."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if (told := device_error(error, doing, remedy)) is None:
            raise
        raise told from error
