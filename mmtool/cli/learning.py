"""The verbs that learn and measure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmtool import console
from mmtool.cli import options as opt


def train(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A features folder, or a manifest, which is extracted first.")],
    target: Annotated[str, typer.Option("--target", "-t", metavar="COLUMN[=TASK]",
                                        help="What to predict; the task (classify, tag, regress) is chosen if not said.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="MODEL", help="The .safetensors file to write.")],
    fusion: Annotated[str, typer.Option("--fusion", "-f", metavar="FUSION", help="How inputs become one.")] = "concat",
    encode: opt.Encode = None,
    folds: Annotated[int | None, typer.Option("--folds", metavar="K", help="Measure out of K folds.")] = None,
    group: Annotated[str | None, typer.Option("--group", metavar="COLUMN", help="Rows of one group are never parted.")] = None,
    optimizer: Annotated[str, typer.Option("--optimizer", metavar="auto|adamw|adam|sgd",
                                           help="auto solves linear heads exactly, and descends by AdamW otherwise.")] = "auto",
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Passes over the rows, at most.")] = 100,
    lr: Annotated[float, typer.Option("--lr", help="Highest learning rate.")] = 1e-3,
    weight_decay: Annotated[float, typer.Option("--weight-decay", help="L2 of a descent.")] = 0.05,
    dropout: Annotated[float, typer.Option("--dropout", min=0, max=0.99, help="Dropout before the head.")] = 0.0,
    batch_rows: Annotated[int, typer.Option("--batch-rows", min=1, help="Rows of a training step.")] = 64,
    patience: Annotated[int, typer.Option("--patience", min=1, help="Epochs without progress before it ends.")] = 15,
    modality_dropout: Annotated[float | None, typer.Option(
        "--modality-dropout", min=0, max=0.99, help="Chance that an input is hidden; 0 where solved, else 0.1.")] = None,
    label_smoothing: Annotated[float | None, typer.Option("--label-smoothing", help="Of classify.")] = None,
    class_weights: Annotated[str | None, typer.Option("--class-weights", metavar="none|balanced", help="Of classify.")] = None,
    max_bad: Annotated[str, typer.Option("--max-bad", metavar="N|P%", help="More bad rows than this end with code 3.")] = "1%",
    allow_random: Annotated[bool, typer.Option("--allow-random", help="Accept encoders with random weights.")] = False,
    device: opt.Device = "auto", batch_size: opt.BatchSize = "auto", workers: opt.Workers = None,
    allow_download: opt.AllowDownload = False, no_cache: opt.NoCache = False, seed: opt.Seed = 0,
    as_json: opt.Json = False, quiet: opt.Quiet = False,
) -> None:
    """Train a model on features or a manifest, and say what it is worth on rows that it has not seen."""
    opt.prepare(quiet, allow_download)
    from mmtool.extract import Settings as ExtractSettings
    from mmtool.train import Settings, train
    from mmtool.training.descend import Recipe

    told = {"label_smoothing": label_smoothing, "class_weights": class_weights}
    result = train(data, output, Settings(
        target=target, fusion=fusion, optimizer=optimizer, dropout=dropout, modality_dropout=modality_dropout, folds=folds,
        group=group, task_options={k: str(v) for k, v in told.items() if v is not None},
        recipe=Recipe(epochs=epochs, lr=lr, weight_decay=weight_decay, batch_size=batch_rows, patience=patience, seed=seed),
        extraction=ExtractSettings(encode=tuple(encode or ()), max_bad=max_bad, allow_random=allow_random, device=device,
                                   batch_size=batch_size, workers=workers, use_cache=not no_cache, seed=seed)))
    console.out_json({"model": str(output), **result.model.header["metrics"]}) if as_json else console.out(str(output))
    raise typer.Exit(result.exit_code)


def evaluate(
    what: Annotated[Path, typer.Argument(metavar="MODEL|PREDICTIONS", help="A model file, or JSON lines of predictions.")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="Features or a manifest; for predictions, the manifest.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="REPORT", help="The folder to write.")],
    split: Annotated[str, typer.Option("--split", metavar="test|all", help="The rows to score with a model.")] = "test",
    target: Annotated[str | None, typer.Option("--target", "-t", metavar="COLUMN[=TASK]", help="For predictions.")] = None,
    device: opt.Device = "auto", batch_size: opt.BatchSize = "auto", workers: opt.Workers = None,
    allow_download: opt.AllowDownload = False, no_cache: opt.NoCache = False, seed: opt.Seed = 0,
    as_json: opt.Json = False, quiet: opt.Quiet = False,
) -> None:
    """Score a model, or predictions of any tool, with intervals and baselines."""
    opt.prepare(quiet, allow_download)
    from mmtool import report
    from mmtool.evaluate import Settings, evaluate_model, evaluate_predictions
    from mmtool.extract import Settings as ExtractSettings
    from mmtool.model import is_model

    extraction = ExtractSettings(device=device, batch_size=batch_size, workers=workers, use_cache=not no_cache, seed=seed)
    run = evaluate_model if is_model(what) else evaluate_predictions
    metrics = run(what, data, output, Settings(split=split, target=target, seed=seed, extraction=extraction))
    report.show(metrics, report.SHOWN)
    console.out_json({"report": str(output), **metrics}) if as_json else console.out(str(output))


def info(path: Annotated[Path, typer.Argument(metavar="FILE", help="A model, a features folder or a report.")],
         as_json: opt.Json = False, quiet: opt.Quiet = False) -> None:
    """Show what a model, a features folder or a report is, and what it is worth."""
    opt.prepare(quiet, allow_download=False)
    from mmtool import report
    from mmtool.info import info, summary

    facts = info(path)
    if as_json:
        console.out_json(facts)
        return
    console.table(("", ""), summary(facts), to_stdout=True)
    if metrics := facts.get("metrics", facts if facts["kind"] == "report" else None):
        report.show(metrics, report.SHOWN, to_stdout=True)
