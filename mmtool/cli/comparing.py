"""The verb that compares."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmtool import console
from mmtool.cli import options as opt


def compare(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A features folder, or a manifest, which is extracted first.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="REPORT", help="The folder to write.")],
    target: Annotated[list[str], typer.Option("--target", "-t", metavar="COLUMN[=TASK]", help="What to predict.")],
    fusion: Annotated[list[str] | None, typer.Option(
        "--fusion", "-f", metavar="FUSION", help="Compare these fusions; every installed one if none is named.")] = None,
    encode: opt.Encode = None,
    only_fusions: Annotated[bool, typer.Option("--only-fusions", help="Leave single inputs, subsets and heads out.")] = False,
    ensemble: Annotated[bool, typer.Option("--ensemble", help="Also a greedy ensemble of the candidates.")] = False,
    search: Annotated[int, typer.Option("--search", min=0, metavar="N",
                                        help="Try N settings of the best fusions by Optuna, too.")] = 0,
    folds: Annotated[int | None, typer.Option("--folds", metavar="K", help="Parts of the rows, each held out once; 5.")] = None,
    group: Annotated[str | None, typer.Option("--group", metavar="COLUMN", help="Rows of one group are never parted.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Passes over the rows, at most; 60.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Highest learning rate of a descent; 0.001.")] = None,
    modality_dropout: Annotated[float | None, typer.Option(
        "--modality-dropout", min=0, max=0.99, help="Chance that an input is hidden; 0 where solved, else 0.1.")] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="Extract every token, for the fusions that take tokens.")] = False,
    max_bad: opt.MaxBad = "1%",
    max_megapixels: opt.MaxPixels = 64.0, max_seconds: opt.MaxSeconds = 600.0, max_cell_mb: opt.MaxCellMb = 256.0,
    device: opt.Device = "auto", backend: opt.Backend = "auto", batch_size: opt.BatchSize = "auto", workers: opt.Workers = None,
    allow_download: opt.AllowDownload = False, no_cache: opt.NoCache = False, seed: opt.Seed = 0,
    as_json: opt.Json = False, quiet: opt.Quiet = False, debug: opt.Debug = False,
) -> None:
    """Rank every fusion, single input and simple head on the same rows, with intervals, times and sizes."""
    opt.prepare(quiet, allow_download)
    from mmtool import report
    from mmtool.compare import compare
    from mmtool.extract import Settings as ExtractSettings
    from mmtool.settings import Settings

    given = {name: value for name, value in (("epochs", epochs), ("lr", lr)) if value is not None}
    settings = Settings(
        targets=tuple(target), fusion="auto", folds=folds, group=group, modality_dropout=modality_dropout, given=given,
        seed=seed, search=search,
        extraction=ExtractSettings(encode=tuple(encode or ()), tokens=tokens, max_bad=max_bad, kept=False, device=device,
                                   backend=backend, batch_size=batch_size, workers=workers, use_cache=not no_cache, seed=seed,
                                   limits=opt.limits(max_megapixels, max_seconds, max_cell_mb)))
    result = compare(data, output, settings, tuple(fusion or ()), only_fusions=only_fusions, ensemble=ensemble)
    report.show_comparison(result.found)
    console.say(f"the page: {output / report.PAGE}")
    console.out_json({"report": str(output), "targets": result.found}) if as_json else console.out(str(output))
    raise typer.Exit(result.exit_code)
