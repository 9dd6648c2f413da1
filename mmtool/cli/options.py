"""Options that mean the same in every verb."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from mmtool import console, stopping

if TYPE_CHECKING:
    from mmtool.media.limits import Limits

Device = Annotated[str, typer.Option("--device", envvar="MMTOOL_DEVICE", metavar="auto|cpu|cuda|cuda:N|mps",
                                     help="Where the encoders run.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress and no summary.")]
Debug = Annotated[bool, typer.Option("--debug", envvar="MMTOOL_DEBUG", is_eager=True, callback=console.set_debug,
                                     help="Show the traceback of an error.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Seed of everything that is random.")]
Workers = Annotated[int | None, typer.Option("--workers", min=0, metavar="N",
                                             help="Reader processes; 0 reads in this one, which a cell may then crash. "
                                             "Never changes a result.")]
BatchSize = Annotated[str, typer.Option("--batch-size", metavar="N|auto", help="Cells a forward pass.")]
Precision = Annotated[str, typer.Option("--precision", metavar="fp32|bf16|fp16", help="Arithmetic of the encoders.")]
Backend = Annotated[str, typer.Option("--backend", metavar="auto|torch|openvino",
                                      help="What computes on a CPU; auto takes OpenVINO where it is installed.")]
Encode = Annotated[list[str] | None, typer.Option(
    "--encode", "-e", metavar="[INPUT@]COLUMN[+COLUMN...]=ENCODER",
    help="Read a column with an encoder (NAME:VARIANT,key=value); may be given several times.")]
Weights = Annotated[list[str] | None, typer.Option("--weights", metavar="INPUT=FILE",
                                                   help="A weights file that a model or --like needs again.")]
AllowDownload = Annotated[bool, typer.Option("--allow-download", help="Let encoders fetch weights from a hub.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Neither read nor write the cache.")]
MaxBad = Annotated[str, typer.Option("--max-bad", metavar="N|P%", help="More bad rows than this end with code 3.")]
MaxPixels = Annotated[float, typer.Option("--max-megapixels", min=0.001, max=1e6, help="Largest picture to decode.")]
MaxSeconds = Annotated[float, typer.Option("--max-seconds", min=0.01, max=1e7, help="Longest sound to decode.")]
MaxCellMb = Annotated[float, typer.Option("--max-cell-mb", min=0.001, max=1e6,
                                          help="Largest file of a cell, and largest decoded sound, in MiB.")]
Coverage = Annotated[float | None, typer.Option(
    "--coverage", metavar="SHARE", help="Sets or intervals that hold the truth so often, such as 0.9; see train --conformal.")]
AbstainBelow = Annotated[float | None, typer.Option("--abstain-below", metavar="P",
                                                    help="Mark answers with a smaller probability as abstained.")]


def prepare(quiet: bool, allow_download: bool) -> None:
    """What every verb does before it imports anything heavy."""
    from mmtool.allocator import keep_memory

    keep_memory()
    console.set_quiet(quiet)
    if allow_download:
        os.environ["MMTOOL_ALLOW_DOWNLOAD"] = "1"
    else:  # before any plugin imports a hub's client, which reads this once
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


@contextmanager
def importing() -> Iterator[None]:
    """Around heavy imports: what they leave stays to the end, so that looking for garbage in it, then or later, is in vain.

    A signal ends the process at once: there is nothing to save, and some of these imports swallow a KeyboardInterrupt.
    """
    gc.disable()
    try:
        with stopping.at_once():
            yield
    finally:
        gc.freeze()
        gc.enable()


def limits(max_megapixels: float, max_seconds: float, max_cell_mb: float) -> Limits:
    """What one cell may hold."""
    from mmtool.media.limits import Limits

    return Limits(max_pixels=int(max_megapixels * 1e6), max_seconds=max_seconds, max_pcm_bytes=int(max_cell_mb * 2**20),
                  max_file_bytes=int(max_cell_mb * 2**20))


def said(context: typer.Context) -> set[str]:
    """Names of the parameters that the command line itself gives."""
    renamed = {"target": "targets", "dense": "hidden"}
    return {renamed.get(name, name) for name in context.params
            if (source := context.get_parameter_source(name)) is not None and source.name == "COMMANDLINE"}
