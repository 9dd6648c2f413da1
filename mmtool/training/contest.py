"""Candidates on the same features, the same folds and the same budget: what each predicts for rows that it did not learn.

Shapes: N held-out rows, K outputs of a task.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from mmtool import console, devices, encoding
from mmtool.allocator import keep_memory
from mmtool.api import Encoder, Fusion, Tokens
from mmtool.errors import DataError, Interrupted, MMToolError
from mmtool.mapped import is_mapped
from mmtool.metrics.grouping import Array
from mmtool.network import Head, Network, take
from mmtool.ragged import is_ragged
from mmtool.settings import Settings
from mmtool.training import candidates, measure, together, workers
from mmtool.training.candidates import Candidate
from mmtool.training.data import Data, Part, Table, as_one
from mmtool.training.fit import Run
from mmtool.training.solve import one_thread

TIMED = 5


@dataclass(frozen=True)
class Held:
    """The held-out rows of one target that have an input, fold after fold: their numbers, and where each fold's lie."""

    parts: list[Data]
    rows: list[int]

    @property
    def by_fold(self) -> list[list[int]]:
        """The numbers of each fold's rows."""
        return [self.rows[at.start : at.stop] for at in self.folds]

    @property
    def folds(self) -> list[range]:
        """Positions of each fold's rows."""
        ends = [sum(len(p) for p in self.parts[: at + 1]) for at in range(len(self.parts))]
        return [range(end - len(p), end) for end, p in zip(ends, self.parts, strict=True)]


@dataclass(frozen=True)
class Answer:
    """What a candidate says of one target's held-out rows: calibrated outputs `[N, K]`, predictions, the mean loss.

    Where a row has none of the candidate's inputs, the baseline is predicted; there is no loss of that, and so none at all,
    since a mean over fewer rows could not be compared.
    """

    outputs: Array
    predictions: list[dict[str, Any]]
    loss: float | None


@dataclass(frozen=True)
class Entry:
    """A candidate that was tried."""

    candidate: Candidate
    answers: dict[str, Answer]
    parameters: int
    train_seconds: float
    predict_ms_per_row: float


def changed(settings: Settings, candidate: Candidate) -> Settings:
    """The settings of a run of this candidate."""
    changes = dict(candidate.changes)
    given = {**settings.given, **changes.pop("given", {})}
    return replace(settings, fusion=candidate.fusion, hidden=candidate.hidden, given=given, **changes)


class Contest:
    """`run` knows the rows, the targets and the settings; `pairs` are the folds as (fit, held-out) rows."""

    def __init__(self, run: Run, pairs: Sequence[tuple[list[int], list[int]]]) -> None:
        if run.learning:
            raise DataError(f"the encoder of input {run.learning[0].name!r} is trained: there are no features to compare on",
                            "compare with frozen encoders, or with features of a model: extract -m MODEL")
        self.run = run
        with one_thread():
            self.parts: list[tuple[Part, dict[str, Encoder]]] = [run.part(fit, held) for fit, held in pairs]
        self.inputs = self._inputs()
        self.names = sorted(self.parts[0][0].table.inputs)
        self.held = {column: self._held(column) for column in sorted(run.table.answers)}
        keep_memory()

    def _inputs(self) -> dict[str, list[dict[str, Tokens]]]:
        """Each fold's inputs as the fusions take them; folds share what they have in common."""
        made: dict[int, Tokens] = {}

        def one(name: str, tokens: Tokens) -> Tokens:
            if id(tokens) not in made:
                made[id(tokens)] = as_one({name: tokens})[name]
            return made[id(tokens)]

        own = [part.table.inputs for part, _ in self.parts]
        return {"tokens": own, "pooled": [{n: one(n, t) for n, t in inputs.items()} for inputs in own]}

    def _held(self, column: str) -> Held:
        parts, rows = [], []
        for part, _ in self.parts:
            data, at = part.table.of(column, part.held)
            there = torch.stack([t.present for t in data.inputs.values()]).any(0).nonzero().flatten().tolist()
            parts.append(replace(data, inputs={}).rows(there))
            rows += [at[i] for i in there]
        if not rows:
            raise DataError(f"no row with a {column} has any input", "leave that target out, or check its rows")
        return Held(parts, rows)

    def go(self, chosen: Sequence[Candidate]) -> tuple[list[Entry], list[dict[str, str]]]:
        """Try them all, each on one thread, as many at once as there are cores; those that fail, with why.

        What comes out does not depend on the number of cores.
        """
        found: dict[int, Entry | str] = {}
        with console.progress("compare", len(chosen)) as advance:
            for number, result in workers.each(self.attempt, list(enumerate(chosen)), self.run.device):
                found[number] = result
                advance(1)
        entries = [e for n in sorted(found) if isinstance(e := found[n], Entry)]
        return entries, [{"name": chosen[n].name, "why": why} for n in sorted(found) if isinstance(why := found[n], str)]

    def attempt(self, job: tuple[int, Candidate]) -> Entry | str:
        """A candidate's entry, or why there is none."""
        try:
            return self.enter(job[1])
        except Interrupted:
            raise
        except MMToolError as error:
            if error.code == devices.FAILED:  # no other candidate can be tried on it
                raise
            return str(error)
        except (MemoryError, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError) as error:
            told = devices.device_error(error)
            if told is not None and told.code == devices.FAILED:
                raise told from error
            return f"{type(error).__name__}: {error}" if told is None else told.message

    def networks(self, candidate: Candidate) -> tuple[Run, list[Part], list[Network]]:
        """A candidate's run, and for each fold its rows and a new network."""
        cls, options = candidates.fusion_of(candidate.fusion, self.run.make_tasks())
        run = self._run(candidate, lambda dims: cls(dims, **options))
        parts = [replace(part, table=Table({n: t for n, t in inputs.items() if n in candidate.inputs}, part.table.answers))
                 for (part, _), inputs in zip(self.parts, self.inputs[cls.takes], strict=True)]
        return run, parts, [run.prepare(part, own) for part, (_, own) in zip(parts, self.parts, strict=True)]

    def enter(self, candidate: Candidate) -> Entry:
        """Train a candidate on every fold, and ask it for the rows that it did not see."""
        run, parts, networks = self.networks(candidate)
        start = time.perf_counter()
        if run.settings.optimizer == "auto" and run.solvable(networks[0]):
            with one_thread():
                run.heads(parts, networks, None, parts[0])
        else:
            self._descend(candidate, run, parts, [own for _, own in self.parts], networks)
        seconds = time.perf_counter() - start
        answers = {column: self._answer(held, [Head(n, column) for n in networks], [p.table.inputs for p in parts])
                   for column, held in self.held.items()}
        return Entry(candidate, answers, sum(p.numel() for p in networks[0].parameters()), round(seconds, 3),
                     round(1000 * self._seconds_per_row(networks[0], parts[0]), 4))

    def _run(self, candidate: Candidate, make: Callable[[dict[str, int]], Fusion]) -> Run:
        settings = changed(self.run.settings, candidate)
        return replace(self.run, settings=settings, make_fusion=make,
                       table=Table({n: t for n, t in self.run.table.inputs.items() if n in candidate.inputs},
                                   self.run.table.answers),
                       lives=[live for live in self.run.lives if live.name in candidate.inputs])

    def _descend(self, candidate: Candidate, run: Run, parts: Sequence[Part], encoders: Sequence[dict[str, Encoder]],
                 networks: Sequence[Network]) -> None:
        recipe = run.recipe()
        lazy = is_ragged(parts[0].table.inputs) or is_mapped(parts[0].table.inputs)
        if together.applies(recipe) and not lazy:
            together.train([together.One(n, p, recipe, run.ids) for n, p in zip(networks, parts, strict=True)], run.device)
            return
        name = encoding.fingerprint(asdict(candidate))[:16]  # of its checkpoints, which no other candidate may go on from
        for number, (part, own, network) in enumerate(zip(parts, encoders, networks, strict=True), 1):
            title = f"{run.settings.fusion}, fold {number} of {len(parts)}"
            run.train_part(f"{name}-{number}", title, part, own, network, recipe, begun=False)

    def _answer(self, held: Held, heads: list[Head], tables: list[dict[str, Tokens]]) -> Answer:
        task = heads[0].task
        inputs = [take(table, rows) for table, rows in zip(tables, held.by_fold, strict=True)]
        with torch.no_grad():
            outputs = torch.cat([head(x).double() for head, x in zip(heads, inputs, strict=True)])  # [N, K]
        present = torch.cat([torch.stack([t.present for t in x.values()]).any(0) for x in inputs])  # [N]
        if not bool(torch.isfinite(outputs[present]).all()):
            raise DataError("its outputs are no numbers")
        y, lengths = torch.cat([d.y for d in held.parts]), torch.cat([d.lengths for d in held.parts])
        whole = Data({}, y[present], lengths[present])
        if task.calibrated and len(whole):
            outputs = outputs / measure.temperature(task, outputs[present], [whole])
        if len(whole):
            task.settle(outputs[present], whole.y)
        predictions = [p if there else task.baseline()
                       for p, there in zip(task.decode(outputs), present.tolist(), strict=True)]
        loss = float(whole.loss(task, outputs[present]).mean()) if len(whole) == len(outputs) else None
        return Answer(outputs.numpy(), predictions, loss)

    @staticmethod
    def _seconds_per_row(network: Network, part: Part) -> float:
        """Of one pass over held-out rows, the middle one of a few."""
        inputs, took = take(part.table.inputs, part.held), []
        with torch.no_grad():
            for _ in range(TIMED):
                start = time.perf_counter()
                for head in network.heads():
                    head(inputs)
                took.append(time.perf_counter() - start)
        return sorted(took)[TIMED // 2] / max(1, len(part.held))
