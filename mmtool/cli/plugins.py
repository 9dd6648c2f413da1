"""`mmtool plugins`: what is installed, what it takes, whether it keeps the contract, and how to add more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmtool import console
from mmtool.cli import options as opt

if TYPE_CHECKING:
    from mmtool.testing.checks import Outcome
    from mmtool.testing.runner import Report

app = typer.Typer(no_args_is_help=True, help="Find, check, write and install plugins.")


@app.command("list")
def list_(as_json: opt.Json = False, debug: opt.Debug = False) -> None:
    """List the installed plugins, without importing one."""
    from mmtool.installed import listing

    plugins = listing()
    console.out_json(plugins) if as_json else _print_plugins(plugins)


@app.command()
def info(name: Annotated[str, typer.Argument(metavar="NAME", help="A plugin, or DISTRIBUTION/NAME, or KIND/NAME.")],
         as_json: opt.Json = False, debug: opt.Debug = False) -> None:
    """Show what a plugin reads and which options it takes."""
    from mmtool.installed import info

    facts = info(name)
    console.out_json(facts) if as_json else _print_facts(facts)


@app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(
        metavar="[KIND/]NAME[:VARIANT,key=value]", help="Encoders, fusions and tasks; every installed one by default.")] = None,
    random: Annotated[bool, typer.Option("--random", help="Do not load encoders' pretrained weights.")] = False,
    allow_download: opt.AllowDownload = False, as_json: opt.Json = False, quiet: opt.Quiet = False, debug: opt.Debug = False,
) -> None:
    """Run the contract on plugins; ends with code 1 where a check fails. KIND is encoder, fusion or task."""
    opt.prepare(quiet, allow_download)
    from mmtool.testing.runner import check_plugins

    reports = check_plugins(names or [], load=not random, on_outcome=_print_outcome if names and not as_json else None,
                             on_report=None if as_json else _print_report)
    if as_json:
        console.out_json([r.as_json() for r in reports])
    passing = ("ok",) if names else ("ok", "skipped")
    raise typer.Exit(int(any(r.status not in passing for r in reports)))


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The plugin's name, such as colour-histogram.")],
    kind: Annotated[str, typer.Option("--kind", metavar="encoder|fusion|task", help="What it is.")] = "encoder",
    modality: Annotated[str | None, typer.Option("--modality", metavar="image|text|audio|table|...", help=(
        "What an encoder reads, by default image; another word gets the file's bytes."), show_default=False)] = None,
    folder: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where its folder is made.")] = Path(),
    as_json: opt.Json = False, quiet: opt.Quiet = False, debug: opt.Debug = False,
) -> None:
    """Write a plugin package that works as it is, to start from."""
    from mmtool.scaffold import write

    console.set_quiet(quiet)
    package = write(name, folder, kind=kind, modality=modality)
    console.out_json({"folder": str(package)}) if as_json else console.out(str(package))
    console.say(f"next: mmtool plugins install {package} && mmtool plugins check {name.removeprefix('mmtool-')}")


@app.command()
def install(packages: Annotated[list[str], typer.Argument(metavar="PACKAGE", help="Names, folders or wheels.")],
            as_json: opt.Json = False, debug: opt.Debug = False) -> None:
    """Install packages with pip, and say which plugins came with them."""
    from mmtool.installed import install

    plugins = install(packages)
    console.out_json(plugins) if as_json else _print_plugins(plugins)
    if not plugins:
        console.warn("no plugin is new; either they were installed already, or these packages hold none "
                     "(`mmtool plugins list` shows all)")


def _print_plugins(plugins: list[dict[str, Any]]) -> None:
    rows = [[p["kind"], p["name"], f"{p['distribution']} {p['version']}",
             f"ambiguous: write {p['distribution']}/{p['name']}" if p["ambiguous"] else ""] for p in plugins]
    if rows:
        console.table(["kind", "name", "package", ""], rows, to_stdout=True)


def _print_facts(facts: dict[str, Any]) -> None:
    about = f": {facts['about']}" if facts["about"] else ""
    console.out(console.literal(f"{facts['kind']} {facts['name']}{about}"))
    shown = [(key, str(facts[key])) for key in ("modality", "space", "needs", "returns", "api") if key in facts]
    console.table(("package", f"{facts['distribution']} {facts['version']}"), shown, to_stdout=True)
    if facts["options"]:
        console.table(["option", "type", "default"], [
            [o["name"], o["type"], "(required)" if o["required"] else _as_typed(o["default"])]
            for o in facts["options"]], to_stdout=True)


def _as_typed(value: object) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _print_outcome(plugin: str, outcome: Outcome) -> None:
    reason = f": {outcome.reason}" if outcome.reason else ""
    console.out(console.literal(f"{outcome.status:7}  {plugin} {outcome.check} ({outcome.seconds:.2f} s){reason}"))


def _print_report(report: Report) -> None:
    console.out(console.literal(f"{report.status:7}  {report.kind} {report.plugin} of {report.package}: {report.summary}"))
