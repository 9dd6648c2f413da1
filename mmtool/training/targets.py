"""The target column: which task it asks for, and which rows have a target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmtool import console, plugins, specs
from mmtool.api import CellError, Task
from mmtool.errors import DataError, UsageError
from mmtool.tasks.codec import split_cell

FEW_NUMBERS = 20


@dataclass
class Asked:
    """A task with the name and options it was built from, for one column."""

    column: str
    name: str
    package: str
    options: dict[str, Any]
    task: Task


def parse(text: str, columns: Sequence[str]) -> tuple[str, str]:
    """`COLUMN[=TASK]` -> column and task (`auto` where none is said). Raises UsageError for an unknown column."""
    if text in columns:
        return text, "auto"
    column, equals, task = text.rpartition("=")
    while equals and column not in columns and "=" in column:  # an option of the task has its own
        column, _, more = column.rpartition("=")
        task = f"{more}={task}"
    if column in columns and task:
        return column, task
    raise UsageError(f"--target {text!r}: there is no column {(column or text)!r}", f"columns: {', '.join(columns)}")


def is_empty(cell: str | None) -> bool:
    """Is there no target in the cell? NaN, as tables write a missing number, is none either."""
    return cell is None or not cell.strip() or cell.strip().lower() == "nan"


def choose(targets: Sequence[str]) -> tuple[str, str]:
    """The task that a column asks for, and why. Raises MMToolError for free text."""
    distinct = set(targets)
    if len(targets) == 0:
        raise DataError("the target column is empty", "check --target", code="E_TARGET")
    numbers = all(_is_number(t) for t in distinct)
    whole = numbers and all(float(t).is_integer() for t in distinct)
    if numbers and not (whole and len(distinct) <= FEW_NUMBERS):
        return "regress", f"{len(distinct)} different numbers"
    several = sum("|" in t or t.strip().startswith("[") for t in targets)
    if several >= 0.2 * len(targets):
        parts = Counter(str(part) for t in targets for part in split_cell(t))
        if all(_is_number(part) for part in parts):
            return "regress", "several numbers a row"
        return "tag", f"{len(parts)} different tags, several a row"
    if len(distinct) > max(FEW_NUMBERS, 0.5 * len(targets)):
        raise DataError(f"the target has {len(distinct)} different values in {len(targets)} rows: no class to learn",
                        "name a column that repeats, or the task: --target COLUMN=classify", code="E_TARGET")
    return "classify", f"{len(distinct)} different values"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def build(column: str, text: str, targets: Sequence[str], extra: dict[str, str]) -> Asked:
    """The task, with those of the `extra` options that it knows put in; for `auto`, says what was decided."""
    if text == "auto":
        text, why = choose(targets)
        console.say(f"task: {column}={text} ({why}); another: --target {column}=TASK")
    spec = specs.parse(text)
    plugin = plugins.find(spec.name, "task")
    cls = plugins.load(plugin)
    known = {name: value for name, value in extra.items() if name in specs.signature(cls)}
    spec = specs.Spec(spec.name, spec.variant, {**spec.options, **known})
    options = specs.bind(cls, spec)
    return Asked(column, plugin.name, plugin.package, options, cls(**options))


def readable(task: Task, column: str, cells: Sequence[str | None], *, some: bool = True) -> list[int]:
    """The rows that have a target; says how many have none, and how many have one that the task cannot read.

    Raises MMToolError where there is none, but `some` are wanted.
    """
    rows, bad = [], []
    for number, cell in enumerate(cells):
        if cell is None or is_empty(cell):
            continue
        try:
            task.check(cell)
        except CellError as error:
            bad.append(f"row {number}: {error.status}")
        else:
            rows.append(number)
    empty = len(cells) - len(rows) - len(bad)
    if empty:
        console.say(f"{empty} of {len(cells)} rows have no {column} and are left out")
    if bad:
        console.warn(f"{len(bad)} rows have a {column} that cannot be read and are left out; the first: {bad[0]}")
    if some and not rows:
        raise DataError(f"no row has a {column} that {type(task).__name__} can read", "check --target", code="E_TARGET")
    return rows
