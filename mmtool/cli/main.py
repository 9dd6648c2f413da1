"""The `mmtool` command: its verbs, and the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmtool import __version__, console, stopping
from mmtool.cli import options as opt
from mmtool.cli.comparing import compare
from mmtool.cli.learning import evaluate_verb, fuse, info, train
from mmtool.cli.plugins import app as plugins_app
from mmtool.cli.sample import sample
from mmtool.devices import device_error
from mmtool.errors import Interrupted, MMToolError, OutputClosed, StorageError, UsageError, storage_error

if TYPE_CHECKING:
    from mmtool.extraction.sources import Headers

INTERRUPTED = Interrupted.exit_code

app = typer.Typer(
    name="mmtool", no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Turns a table of pictures, texts, sounds and numbers into features, predictions and models.")
app.add_typer(plugins_app, name="plugins")
app.command()(fuse)
app.command()(train)
app.command()(compare)
app.command("eval")(evaluate_verb)
app.command()(info)
app.command()(sample)


def _version(value: bool) -> None:
    if value:
        console.out(f"mmtool {__version__}")
        raise typer.Exit()


@app.callback()
def top(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True,
                                              help="Print the version and end.")] = False) -> None:
    """Options before the verb."""


@app.command()
def extract(
    manifest: Annotated[str, typer.Argument(help="CSV, TSV, JSONL, Parquet, folder, tar, or - for JSONL on stdin.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FEATURES", help="The folder to write.")],
    encode: opt.Encode = None,
    like: Annotated[Path | None, typer.Option("--like", metavar="FEATURES",
                                              help="The inputs, encoders and fitted assets of other features.")] = None,
    model: Annotated[Path | None, typer.Option("--model", "-m", metavar="MODEL",
                                               help="The encoders of a model, as trained.")] = None,
    weights: opt.Weights = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="Keep every token instead of one pooled vector.")] = False,
    max_bad: opt.MaxBad = "1%",
    allow_random: Annotated[bool, typer.Option("--allow-random", help="Accept encoders with random weights.")] = False,
    device: opt.Device = "auto", precision: opt.Precision = "fp32", backend: opt.Backend = "auto",
    batch_size: opt.BatchSize = "auto",
    workers: opt.Workers = None, allow_download: opt.AllowDownload = False, no_cache: opt.NoCache = False,
    max_megapixels: opt.MaxPixels = 64.0, max_seconds: opt.MaxSeconds = 600.0, max_cell_mb: opt.MaxCellMb = 256.0,
    seed: opt.Seed = 0, as_json: opt.Json = False, quiet: opt.Quiet = False, debug: opt.Debug = False,
) -> None:
    """Turn every cell of a manifest into features, in a folder that can be resumed and reused."""
    opt.prepare(quiet, allow_download)
    with opt.importing():
        from mmtool.extract import Settings, extract

    limits = opt.limits(max_megapixels, max_seconds, max_cell_mb)
    result = extract(manifest, output, Settings(
        encode=tuple(encode or ()), like=_headers(like, model), weights=tuple(weights or ()),
        tokens=tokens, max_bad=max_bad,
        allow_random=allow_random, device=device, precision=precision, backend=backend, batch_size=batch_size,
        workers=workers,
        use_cache=not no_cache, limits=limits, seed=seed))
    console.out_json(result.as_json()) if as_json else console.out(str(output))
    raise typer.Exit(result.exit_code)


def _headers(features: Path | None, model: Path | None) -> Headers | None:
    """Whose inputs `extract` takes."""
    from mmtool.extraction.sources import Headers

    if features is not None and model is not None:
        raise UsageError("--like and -m exclude each other", "give one of them")
    if model is not None:
        from mmtool.model import load

        loaded = load(model)
        return loaded.headers(loaded.inputs, str(model))
    return None if features is None else Headers.of(features)


@app.command()
def predict(
    files: Annotated[list[str] | None, typer.Argument(
        metavar="[FILE|MANIFEST|-]...", help="Pictures, sounds, text files, one manifest, or - for JSONL.")] = None,
    text: Annotated[str | None, typer.Option("--text", metavar="TEXT", help="A text that belongs to the files.")] = None,
    cells: Annotated[list[str] | None, typer.Option("--input", metavar="NAME=CELL",
                                                    help="A cell for a named input or modality.")] = None,
    labels: Annotated[str | None, typer.Option("--labels", metavar="A,B,C|@FILE",
                                               help="The labels to choose from; ImageNet's 1,000 by default.")] = None,
    model: Annotated[Path | None, typer.Option("--model", "-m", metavar="MODEL",
                                               help="A trained model; without one, zero-shot.")] = None,
    weights: opt.Weights = None,
    coverage: opt.Coverage = None, abstain_below: opt.AbstainBelow = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Labels to show.")] = 5,
    encode: opt.Encode = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="PREDICTIONS",
                                                help="Write JSONL (or .csv, .parquet) here.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Tell what each input contributes, and which words, seconds, "
                                          "columns and parts of pictures matter; takes seconds a row.")] = False,
    device: opt.Device = "auto", backend: opt.Backend = "auto", allow_download: opt.AllowDownload = False,
    no_cache: opt.NoCache = False,
    max_megapixels: opt.MaxPixels = 64.0, max_seconds: opt.MaxSeconds = 600.0, max_cell_mb: opt.MaxCellMb = 256.0,
    seed: opt.Seed = 0, as_json: opt.Json = False, quiet: opt.Quiet = False, debug: opt.Debug = False,
) -> None:
    """Predict for files, texts, features or a whole manifest, with a model or zero-shot."""
    opt.prepare(quiet, allow_download)
    with opt.importing():
        from mmtool.predict import Settings, predict
        if model is not None:
            import mmtool.predict_model  # noqa: F401

    limits = opt.limits(max_megapixels, max_seconds, max_cell_mb)
    raise typer.Exit(predict(files or [], Settings(
        text=text, cells=tuple(cells or ()), labels=labels, top=top, encode=tuple(encode or ()), output=output,
        device=device, backend=backend, use_cache=not no_cache, limits=limits, seed=seed, as_json=as_json, model=model,
        weights=tuple(weights or ()), coverage=coverage, abstain_below=abstain_below, explain=explain)))


def run(arguments: list[str] | None = None) -> int:
    """Run a command line and return its exit code; prints what went wrong, and a traceback only for our bugs."""
    with stopping.handled():
        return _run(arguments)


def _run(arguments: list[str] | None) -> int:
    try:
        code = app(args=arguments, standalone_mode=False)
    except KeyboardInterrupt:  # before typer could catch it
        code = INTERRUPTED
    except OutputClosed as e:
        return e.exit_code
    except Interrupted as e:
        console.warn(e.message)
        return e.exit_code
    except MMToolError as e:
        return _failed(e)
    except OSError as e:  # a full disk, a missing permission, a device that fails
        return _failed(storage_error(e))
    except Exception as e:
        if stopping.asked():  # some libraries turn the interruption of an import into an error of their own
            console.warn("interrupted")
            return INTERRUPTED
        if (failed := device_error(e)) is not None:
            return _failed(failed)
        if not hasattr(e, "format_message"):
            raise
        return _wrong_use(e)
    if code == INTERRUPTED:
        console.warn("interrupted")
    return code if isinstance(code, int) else 0


def _failed(error: MMToolError) -> int:
    console.error(error.message, error.hint, code=error.code)
    return error.exit_code


def _wrong_use(error: Any) -> int:
    """What typer says of a command line that cannot be parsed; without arguments its help."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        path = "mmtool" if context is None else context.command_path
        console.error(error.format_message(), f"see {path} --help", code=UsageError.code)
    return UsageError.exit_code


def main() -> None:
    """The console script."""
    code = run()
    try:
        sys.stdout.flush()
    except OSError:  # told already; or Python would complain once more and end with 120
        console.to_nowhere(sys.stdout.fileno())
        code = code or StorageError.exit_code
    if stopping.asked():  # it ends already; what Python tidies up before must not turn 130 into a death by the signal
        stopping.ignore()
        stopping.forget()
        stopping.leave(code)
    sys.exit(code)
