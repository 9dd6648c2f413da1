"""`mmtool sample`: real data to try the other verbs on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmtool import console
from mmtool.cli import options as opt


def sample(
    folder: Annotated[Path | None, typer.Argument(
        metavar="FOLDER", help="Copy the data into this new or empty folder.")] = None,
    as_json: opt.Json = False, quiet: opt.Quiet = False, debug: opt.Debug = False,
) -> None:
    """Print the path of a small table of pictures, titles and speech that comes with mmtool.

    240 drawings in 8 categories; some rows lack an input. Targets to try: category, keywords, colour_bits.
    """
    from mmtool import sample

    console.set_quiet(quiet)
    manifest = sample.shipped() if folder is None else sample.copy(folder)
    console.out_json({"manifest": str(manifest)}) if as_json else console.out(str(manifest))
