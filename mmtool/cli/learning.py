"""The verbs that learn and measure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmtool import console
from mmtool.cli import options as opt
from mmtool.errors import UsageError


def train(
    context: typer.Context,
    data: Annotated[str, typer.Argument(metavar="DATA", help="A features folder, or a manifest, which is extracted first.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="MODEL", help="The .safetensors file to write.")],
    target: Annotated[list[str] | None, typer.Option(
        "--target", "-t", metavar="COLUMN[=TASK]",
        help="What to predict; may be given several times. The task (classify, tag, regress) is chosen if not said.")] = None,
    fusion: Annotated[str, typer.Option("--fusion", "-f", metavar="FUSION|auto",
                                        help="How inputs become one; auto compares all and takes the best.")] = "concat",
    encode: opt.Encode = None,
    tokens: Annotated[bool, typer.Option(
        "--tokens", help="Of a manifest: keep every token, for fusions that take them.")] = False,
    task: Annotated[str | None, typer.Option("--task", metavar="auto|TASK", help="Of targets that say none.")] = None,
    finetune: Annotated[list[str] | None, typer.Option(
        "--finetune", metavar="INPUT", help="Train this input's pretrained encoder, too; random ones always are.")] = None,
    augment: Annotated[list[str] | None, typer.Option(
        "--augment", metavar="INPUT=WORDS", help="Vary an input that is trained: photo=crop,flip; see the README.")] = None,
    dense: Annotated[str | None, typer.Option("--dense", metavar="N[,N...]", help="Dense layers before the heads.")] = None,
    like: Annotated[Path | None, typer.Option("--like", metavar="MODEL", help="Repeat the run that made a model.")] = None,
    weights: opt.Weights = None,
    bundle: Annotated[bool, typer.Option("--bundle", help="Put the weights of frozen encoders into the model.")] = False,
    folds: Annotated[int | None, typer.Option("--folds", metavar="K", help="Measure out of K folds.")] = None,
    group: Annotated[str | None, typer.Option("--group", metavar="COLUMN", help="Rows of one group are never parted.")] = None,
    conformal: Annotated[float | None, typer.Option(
        "--conformal", metavar="SHARE", help="Keep such a share of the rows apart, for `predict --coverage`; 0.2.")] = None,
    search: Annotated[int, typer.Option("--search", min=0, metavar="N",
                                        help="With -f auto: try N settings of the best fusions by Optuna, too.")] = 0,
    optimizer: Annotated[str, typer.Option("--optimizer", metavar="auto|adamw|adam|sgd",
                                           help="auto solves linear heads exactly, and descends by AdamW otherwise.")] = "auto",
    schedule: Annotated[str | None, typer.Option("--schedule", metavar="cosine|linear|step|constant",
                                                 help="Of the learning rate.")] = None,
    warmup: Annotated[float | None, typer.Option("--warmup", min=0, max=1, help="Share of the steps; 0.1.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1,
                                               help="Passes over the rows, at most; 60, 30 for encoders, 15 to tune.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Highest learning rate; 0.001, or 0.0001 to fine-tune.")] = None,
    encoder_lr: Annotated[float | None, typer.Option("--encoder-lr", help="Of pretrained encoders; 0.00005.")] = None,
    weight_decay: Annotated[float | None, typer.Option("--weight-decay", "--l2", min=0, help="L2 of a descent; 0.05.")] = None,
    l1: Annotated[float | None, typer.Option("--l1", min=0, help="L1 of a descent; 0.")] = None,
    clip: Annotated[float | None, typer.Option("--clip", min=0, help="Largest norm of the gradient; 1, 0 for any.")] = None,
    dropout: Annotated[float, typer.Option("--dropout", min=0, max=0.99, help="Dropout before the head.")] = 0.0,
    batch_rows: Annotated[int | None, typer.Option("--batch-rows", min=1, help="Rows of a step; 64, or more if many.")] = None,
    accumulate: Annotated[int | None, typer.Option("--accumulate", min=1, help="Batches of a training step; 1.")] = None,
    patience: Annotated[int | None, typer.Option("--patience", min=1, help="Epochs without progress before it ends; 10, "
                                                 "8 for encoders, 5 to fine-tune.")] = None,
    precision: Annotated[str | None, typer.Option("--precision", metavar="fp32|bf16|fp16", help="Of a descent.")] = None,
    modality_dropout: Annotated[float | None, typer.Option(
        "--modality-dropout", min=0, max=0.99, help="Chance that an input is hidden; 0 where solved, else 0.1.")] = None,
    loss_weighting: Annotated[str | None, typer.Option(
        "--loss-weighting", metavar="equal|uncertainty", help="Of several targets (Kendall et al., 2018).")] = None,
    label_smoothing: Annotated[float | None, typer.Option("--label-smoothing", help="Of classify.")] = None,
    class_weights: Annotated[str | None, typer.Option("--class-weights", metavar="none|balanced", help="Of classify.")] = None,
    tensorboard: Annotated[Path | None, typer.Option("--tensorboard", metavar="DIR", help="Log a descent there.")] = None,
    max_bad: opt.MaxBad = "1%",
    max_megapixels: opt.MaxPixels = 64.0, max_seconds: opt.MaxSeconds = 600.0, max_cell_mb: opt.MaxCellMb = 256.0,
    allow_random: Annotated[bool, typer.Option("--allow-random", help="Leave random encoders as they are.")] = False,
    device: opt.Device = "auto", backend: opt.Backend = "auto", batch_size: opt.BatchSize = "auto", workers: opt.Workers = None,
    allow_download: opt.AllowDownload = False, no_cache: opt.NoCache = False, seed: opt.Seed = 0,
    as_json: opt.Json = False, quiet: opt.Quiet = False, debug: opt.Debug = False,
) -> None:
    """Train a model on features or a manifest, and say what it is worth on rows that it has not seen."""
    opt.prepare(quiet, allow_download)
    with opt.importing():
        from mmtool.extract import Settings as ExtractSettings
        from mmtool.extraction.sources import parse_weights
        from mmtool.settings import NUMBERS, Settings, parse_widths
        from mmtool.settings import like as settings_like
        from mmtool.train import train

    if weights and like is None and not bundle:
        raise UsageError("--weights belongs to --like or --bundle", "with -e, write -e photo=timm:resnet18,weights=FILE")
    told = {"label_smoothing": label_smoothing, "class_weights": class_weights}
    numbers = {"batch_size" if k == "batch_rows" else k: v for k, v in context.params.items()}
    settings = Settings(
        targets=tuple(target or ()), task=task, fusion=fusion, hidden=parse_widths(dense), optimizer=optimizer, dropout=dropout,
        modality_dropout=modality_dropout, folds=folds, group=group, conformal=conformal,
        finetune=tuple(finetune or ()), augment=tuple(augment or ()), bundle=bundle, tensorboard=tensorboard, search=search,
        seed=seed, weights=tuple(weights or ()),
        task_options={k: str(v) for k, v in told.items() if v is not None},
        given={name: numbers[name] for name in NUMBERS if name != "batch_size" and numbers[name] is not None}
        | ({} if batch_rows is None else {"batch_size": batch_rows}),
        extraction=ExtractSettings(encode=tuple(encode or ()), tokens=tokens, max_bad=max_bad, allow_random=allow_random,
                                   device=device, backend=backend, batch_size=batch_size, workers=workers,
                                   use_cache=not no_cache, seed=seed,
                                   limits=opt.limits(max_megapixels, max_seconds, max_cell_mb)))
    if like is not None:
        from mmtool.model import read_header

        settings = settings_like(read_header(like), settings, opt.said(context), parse_weights(settings.weights), data)
    result = train(data, output, settings)
    console.out_json({"model": str(output), **result.model.header["metrics"]}) if as_json else console.out(str(output))
    raise typer.Exit(result.exit_code)


def fuse(
    features: Annotated[Path, typer.Argument(metavar="FEATURES", help="A features folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FEATURES", help="The folder to write.")],
    fusion: Annotated[str | None, typer.Option(
        "--fusion", "-f", metavar="FUSION", help="Without weights: concat, cca; of equal widths also sum, mean, max.")] = None,
    model: Annotated[Path | None, typer.Option("--model", "-m", metavar="MODEL", help="The learned fusion of a model.")] = None,
    as_json: opt.Json = False, quiet: opt.Quiet = False, debug: opt.Debug = False,
) -> None:
    """Make one input, `fused`, of all inputs of a features folder."""
    opt.prepare(quiet, allow_download=False)
    from mmtool.fused import fuse

    fuse(features, output, fusion, model)
    console.out_json({"features": str(output)}) if as_json else console.out(str(output))


def evaluate_verb(
    what: Annotated[Path, typer.Argument(metavar="MODEL|PREDICTIONS", help="A model file, or JSON lines of predictions.")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="Features or a manifest; for predictions, the manifest.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="REPORT", help="The folder to write.")],
    split: Annotated[str, typer.Option("--split", metavar="test|all", help="The rows to score with a model.")] = "test",
    target: Annotated[str | None, typer.Option("--target", "-t", metavar="COLUMN[=TASK]", help="For predictions.")] = None,
    by_input: Annotated[bool, typer.Option("--by-input", help="What is each input worth (exact Shapley values)?")] = False,
    metric: Annotated[str | None, typer.Option("--metric", metavar="NAME", help="Of --by-input; the task's main one.")] = None,
    coverage: opt.Coverage = None, abstain_below: opt.AbstainBelow = None,
    weights: opt.Weights = None,
    max_bad: opt.MaxBad = "1%",
    max_megapixels: opt.MaxPixels = 64.0, max_seconds: opt.MaxSeconds = 600.0, max_cell_mb: opt.MaxCellMb = 256.0,
    device: opt.Device = "auto", backend: opt.Backend = "auto", batch_size: opt.BatchSize = "auto", workers: opt.Workers = None,
    allow_download: opt.AllowDownload = False, no_cache: opt.NoCache = False, seed: opt.Seed = 0,
    as_json: opt.Json = False, quiet: opt.Quiet = False, debug: opt.Debug = False,
) -> None:
    """Score a model, or predictions of any tool, with intervals and baselines."""
    opt.prepare(quiet, allow_download)
    with opt.importing():
        from mmtool import report
        from mmtool.evaluate import Settings, evaluate
        from mmtool.extract import Settings as ExtractSettings

    if metric is not None and not by_input:
        raise UsageError("--metric belongs to --by-input", "say --by-input, too; metrics.json has every metric anyhow")
    extraction = ExtractSettings(weights=tuple(weights or ()), max_bad=max_bad, kept=False, device=device,
                                 backend=backend, batch_size=batch_size, workers=workers, use_cache=not no_cache, seed=seed,
                                 limits=opt.limits(max_megapixels, max_seconds, max_cell_mb))
    result = evaluate(what, data, output, Settings(split=split, target=target, by_input=by_input, metric=metric, seed=seed,
                                                   extraction=extraction, coverage=coverage, abstain_below=abstain_below))
    console.say(f"scored: {result.metrics['rows']} rows ({result.metrics['scored']})")
    report.show_all(result.metrics, report.SHOWN)
    report.tell_doubt(result.metrics)
    console.say(f"the page: {output / report.PAGE}")
    console.out_json({"report": str(output), **result.metrics}) if as_json else console.out(str(output))
    raise typer.Exit(result.exit_code)


def info(path: Annotated[Path, typer.Argument(metavar="FILE", help="A model, a features folder or a report.")],
         as_json: opt.Json = False, quiet: opt.Quiet = False, debug: opt.Debug = False) -> None:
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
        report.show_all(metrics, report.SHOWN, to_stdout=True)
    if compared := facts["targets"] if facts["kind"] == "comparison" else facts.get("comparison"):
        report.show_comparison(compared, to_stdout=True)
