"""The report folder, and metrics for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmtool import console, files, folders
from mmtool.errors import StorageError

if TYPE_CHECKING:
    from mmtool.api import Task
    from mmtool.manifest.rows import Row

METRICS, PREDICTIONS, PAGE, PLOTS, COMPARISON = "metrics.json", "predictions.jsonl", "report.html", "plots", "comparison.json"
PLOT_KINDS = ("comparison", "confusion", "counts", "curves", "inputs", "pr", "reliability", "residuals", "roc", "selective",
              "tags", "truth", "worth")
"""How the names of plots end: `COLUMN-KIND.svg`."""
KINDS = ("overall", "by_inputs", "baselines", "doubt", "worth")
SHOWN = ("accuracy", "f1_micro", "f1_macro", "subset_accuracy", "roc_auc", "log_loss", "r2", "rmse", "mae")
"""What has room in a terminal; the rest is in metrics.json."""


@dataclass(frozen=True)
class Part:
    """What came of one target: the table of metrics, and the scored rows with their predictions and their truth."""

    task: Task
    found: dict[str, Any]
    ids: list[str]
    predictions: list[dict[str, Any]]
    truth: list[str]


@dataclass(frozen=True)
class Scored:
    """All that was scored. `several`: does the model have more than one target?"""

    parts: dict[str, Part]
    rows: int
    which: str
    notes: list[str]
    several: bool

    @property
    def metrics(self) -> dict[str, Any]:
        """As metrics.json has them: one level more, the target, where there are several."""
        facts = {"rows": self.rows, "scored": self.which}
        if not self.several:
            return {**next(iter(self.parts.values())).found, **facts}
        kinds = [kind for kind in KINDS if any(kind in p.found for p in self.parts.values())]
        return {**{kind: {c: p.found[kind] for c, p in self.parts.items() if kind in p.found} for kind in kinds}, **facts}

    @property
    def lines(self) -> list[dict[str, Any]]:
        """As predictions.jsonl has them: each scored row with its target."""
        if not self.several:
            part = next(iter(self.parts.values()))
            return [{**p, "id": i, "target": t} for i, p, t in zip(part.ids, part.predictions, part.truth, strict=True)]
        lines: dict[str, dict[str, Any]] = {}
        for column, part in self.parts.items():
            for name, prediction, truth in zip(part.ids, part.predictions, part.truth, strict=True):
                own = {k: v for k, v in prediction.items() if k != "inputs"}
                line = lines.setdefault(name, {"id": name, "inputs": prediction["inputs"], "targets": {}})
                line["targets"][column] = {**own, "target": truth}
        return list(lines.values())


@dataclass(frozen=True)
class About:
    """What the page says besides: facts as pairs, curves of the training, and where the rows' cells come from.

    `rows` gives the rows of some ids; `statuses` how their cells fared before, by id and input.
    """

    title: str
    facts: list[tuple[str, str]]
    inputs: Mapping[str, Mapping[str, Any]]
    rows: Callable[[set[str]], Mapping[str, Row]]
    base: Path
    tasks: Mapping[str, str]
    curves: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    statuses: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    comparison: Mapping[str, dict[str, Any]] = field(default_factory=dict)


def check_report(folder: Path) -> None:
    """May a report be written there? Raises StorageError for a file, or a folder that holds anything else."""
    if folder.is_file():
        raise StorageError(f"{folder} is a file", "choose another -o", code="E_OUTPUT")
    if not folder.absolute().parent.is_dir():
        raise StorageError(f"{folder}: the folder {folder.absolute().parent} does not exist", "make it, or choose another -o",
                           code="E_NOT_FOUND")
    if not folder.exists():
        return
    if folder.resolve() == Path.cwd() or folder.is_mount():
        raise StorageError(f"{folder} cannot be replaced as a whole", f"choose a folder inside it: -o {folder / 'report'}",
                           code="E_OUTPUT")
    others = {p.name for p in folder.iterdir() if not p.name.startswith(files.PREFIX)}
    others -= {METRICS, PREDICTIONS, PAGE, PLOTS, COMPARISON}
    others |= {f"{PLOTS}/{p.name}" for p in (folder / PLOTS).glob("*")
               if p.suffix != ".svg" or p.stem.rpartition("-")[2] not in PLOT_KINDS}
    if others:
        raise StorageError(f"{folder} holds other files, such as {min(others)}", "choose another -o; nothing was overwritten",
                           code="E_OUTPUT")


def write(folder: Path, scored: Scored, about: About) -> None:
    """metrics.json, predictions.jsonl, plots and report.html, in the place of an earlier report."""
    _check_replaced(folder, METRICS)
    with folders.replacing(folder) as fresh:
        files.write_bytes(fresh / PREDICTIONS, "".join(console.to_json(p) + "\n" for p in scored.lines).encode())
        files.write_json(fresh / METRICS, scored.metrics)
        _write_page(fresh, scored, about)


def _check_replaced(folder: Path, comes: str) -> None:
    check_report(folder)  # once more: what somebody put there in the meantime is not ours to remove
    goes, told = (COMPARISON, "comparison") if comes == METRICS else (METRICS, "report of scores")
    if (folder / goes).exists():
        console.warn(f"the {told} that was in {folder} is replaced")


def write_comparison(folder: Path, found: Mapping[str, Any], facts: list[tuple[str, str]], tasks: Mapping[str, str],
                     title: str) -> None:
    """comparison.json, plots and report.html of a comparison, which has an entry for each target."""
    from mmtool.page.contents import Page, TargetPart
    from mmtool.page.write import write

    _check_replaced(folder, COMPARISON)
    parts = [TargetPart(column, tasks[column], [], one["metric"], one["greater_is_better"], {}, [], [], [], comparison=one)
             for column, one in found.items()]
    with folders.replacing(folder) as fresh:
        files.write_json(fresh / COMPARISON, {"targets": dict(found)})
        write(fresh, Page(title, facts, [], parts, lambda _: []))


def show_comparison(found: Mapping[str, Any], *, to_stdout: bool = False) -> None:
    """The candidates of each target for people, the best first, and what follows in words."""
    from mmtool.page import comparison as told

    for column, one in found.items():
        heads, lines = told.terminal(one)
        if len(found) > 1:
            console.out(console.literal(f"{column}:")) if to_stdout else console.say(f"{column}:")
        console.table(heads, lines, to_stdout=to_stdout)
        last = column == [*found][-1]
        for sentence in [*told.sentences(one), *(told.legend(one) if last else [])]:
            console.out(console.literal(sentence)) if to_stdout else console.say(sentence)


def _write_page(folder: Path, scored: Scored, about: About) -> None:
    from mmtool.page.cells import shower
    from mmtool.page.contents import Curve, Page, TargetPart
    from mmtool.page.worst import worst_rows
    from mmtool.page.write import write

    labels = {"l2": "L2 strength", "epoch": "epoch"}
    targets = []
    for column, part in scored.parts.items():
        curves = [Curve(c["name"], c["at"], labels[c["x"]], c.get("fit"), c["held"], c["best"])
                  for c in about.curves.get(column, [])]
        lines = [{**p, "id": i, "target": t} for i, p, t in zip(part.ids, part.predictions, part.truth, strict=True)]
        targets.append(TargetPart(column, about.tasks[column], list(part.task.labels), part.task.main_metric,
                                  part.task.greater_is_better, part.found, lines, part.truth, curves,
                                  worth=part.found.get("worth"), comparison=about.comparison.get(column)))
    shown = {row.id for part in targets for row in worst_rows(part)[1]}
    cells = shower(about.inputs, about.rows(shown), about.base, about.statuses)
    write(folder, Page(about.title, about.facts, scored.notes, targets, cells))


def _baseline(key: str) -> str:
    """A key of `baselines` for people; the name of an input, which may follow, stays as it is."""
    kind, colon, name = key.partition(":")
    return kind.replace("_", " ") + (f": {name}" if colon else "")


def show(metrics: dict[str, Any], main: Sequence[str], *, title: str = "", to_stdout: bool = False) -> None:
    """The table for people, on stderr unless it is the result itself."""
    subsets = sorted(metrics["by_inputs"].items(), key=lambda item: (-item[0].count("+"), item[0]))  # JSON sorts by name
    baselines = sorted(metrics["baselines"].items(), reverse=True)  # without inputs, then the best single one
    lines = [("all rows", metrics["overall"]), *((f"only {k}", v) for k, v in subsets),
             *((_baseline(k), v) for k, v in baselines)]
    used = [m for m in dict.fromkeys(main) if m in metrics["overall"]
            and not (m == "f1_micro" and metrics["overall"].get("accuracy") == metrics["overall"][m])]  # of one label, the same
    console.table((title, *used), [(label, *(cell(found.get(m)) for m in used)) for label, found in lines],
                  to_stdout=to_stdout)


def show_all(metrics: dict[str, Any], main: Sequence[str], *, to_stdout: bool = False) -> None:
    """The same for a metrics.json, which may be that of several targets."""
    if all(set(m) == {"value", "low", "high"} for m in metrics["overall"].values()):
        show(metrics, main, to_stdout=to_stdout)
        show_worth(metrics.get("worth"), "", to_stdout=to_stdout)
        return
    for column in metrics["overall"]:
        part = {kind: metrics[kind].get(column, {}) for kind in KINDS if kind in metrics}
        show(part, main, title=column, to_stdout=to_stdout)
        show_worth(part.get("worth"), column, to_stdout=to_stdout)


def show_worth(worth: dict[str, Any] | None, title: str, *, to_stdout: bool = False) -> None:
    """What each input is worth and costs, and what follows in words."""
    if not worth:
        return
    from mmtool.page import worth as told

    console.table((f"{title} worth in {worth['metric']}".strip(), *told.HEADS[1:]), told.lines(worth), to_stdout=to_stdout)
    for sentence in told.sentences(worth):
        console.out(console.literal(sentence)) if to_stdout else console.say(sentence)


def tell_doubt(metrics: Mapping[str, Any]) -> None:
    """What a metrics.json says of coverage and abstaining, on stderr."""
    from mmtool.page.doubt import sentences

    found = metrics.get("doubt", {})
    several = not {"coverage", "abstain"} & set(found)
    for column, part in found.items() if several else [("", found)]:
        for sentence in sentences(part):
            console.say(f"{column}: {sentence}" if column else sentence)


def where(how: str) -> str:
    """`out of fold, 5 folds`, or `on 24 validation rows`."""
    return how if how.startswith("out of fold") else f"on {how}"


def cell(metric: dict[str, float] | None) -> str:
    """A metric with its interval."""
    return "" if metric is None else f"{metric['value']:.3f} [{metric['low']:.3f}, {metric['high']:.3f}]"
