"""One run of `train`: what is learned from which rows, then the fitting, then what it is worth."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch

from mmtool import console, encoding, fused, opening, plugins, settings, specs
from mmtool.api import Fusion, Task
from mmtool.cells import Source
from mmtool.errors import TOO_MANY_BAD, DataError, UsageError
from mmtool.extract import parse_max_bad
from mmtool.features.reader import Features
from mmtool.media import augment
from mmtool.model import Model
from mmtool.network import Front
from mmtool.opening import Opened
from mmtool.readers import default_workers
from mmtool.settings import Settings
from mmtool.training import (
    calibrate,
    candidates,
    cellstore,
    checks,
    comparing,
    contest,
    measure,
    recording,
    splits,
    targets,
)
from mmtool.training.candidates import Candidate
from mmtool.training.data import Table, answers_of, as_one, inputs_of
from mmtool.training.fit import Result, Run
from mmtool.training.keeping import Place
from mmtool.training.live import Keep, Live
from mmtool.training.solve import one_thread
from mmtool.training.splits import Split
from mmtool.training.targets import Asked

AUTO = "auto"
"""The fusion that is chosen by a comparison of all that are installed."""
INNER_FOLDS = 5
FOLD_ROWS = 5000
"""Up to so many training rows, held-out rows come from folds, so that every row is used; above, one part is enough."""


@dataclass(frozen=True)
class Prepared:
    """What a fitting begins with. `upstream` made fused features; `entries` are the frozen inputs' for the header."""

    run: Run
    upstream: Front | None
    entries: dict[str, dict[str, Any]]
    lives: list[Live]


class Trainer:
    """`learning`: numbers of the rows that train or validate, ascending; `truth`: readable target cells of every row."""

    def __init__(self, opened: Opened, asked: Settings, device: torch.device) -> None:
        self.opened, self.settings, self.device = opened, asked, device
        self.targets = self._targets()
        every = {c: targets.readable(a.task, c, opened.column(c)) for c, a in self.targets.items()}
        self.rows = sorted(set[int]().union(*every.values()))
        self.truth: dict[str, list[str | None]] = {}
        for column, rows in every.items():
            readable = set(rows)
            self.truth[column] = [cell if r in readable else None for r, cell in enumerate(opened.column(column))]
        self.split = self._split()
        self.learning = sorted(self.split.train + self.split.val)
        for column, found in self.targets.items():
            found.task.fit([cell for r in self.learning if (cell := self.truth[column][r]) is not None])
        self.undecided = asked.fusion == AUTO
        self._use(candidates.LINEAR if self.undecided else asked.fusion)
        if asked.bundle:
            checks.check_bundle([*opened.to_extract, *(w.item for w in opened.wanted)], asked.seed)
        sure = [w.item.name for w in opened.wanted if w.finetune or not w.built.encoder.needs_fit()]
        checks.check_frozen(asked.fusion, self.fusion_class, sure)
        self.comparison: dict[str, dict[str, Any]] | None = None
        """Of each target, where the fusion was chosen by one."""
        self.exit_code = 0

    def _use(self, fusion: str) -> None:
        self.fusion = plugins.find(specs.parse(fusion).name, "fusion")
        self.fusion_class, self.fusion_options = candidates.fusion_of(fusion, {c: a.task for c, a in self.targets.items()})

    @property
    def plugins(self) -> list[Any]:
        """What tells fusion and tasks, as they are installed, from others."""
        tasks = [[c, a.name, a.package, encoding.plain_options(a.options), encoding.source_sha256(a.task)]
                 for c, a in self.targets.items()]
        fusions = candidates.sources() if self.undecided else []
        return [tasks, self.fusion.name, self.fusion.package, encoding.plain_options(self.fusion_options), fusions]

    def _targets(self) -> dict[str, Asked]:
        found: dict[str, Asked] = {}
        unused = set(self.settings.task_options)
        for text in self.settings.targets:
            column, task = targets.parse(text, self.opened.columns)
            if task == "auto" and self.settings.task is not None:
                task = self.settings.task
            if column in found:
                raise UsageError(f"--target {column!r} is given twice")
            present = [c for c in self.opened.column(column) if c is not None and not targets.is_empty(c)]
            found[column] = targets.build(column, task, present, self.settings.task_options)
            unused -= set(found[column].options)
        if unused:
            names = ", ".join(sorted({a.name for a in found.values()}))
            raise UsageError(f"{names} has no option {min(unused)!r}", "leave it out")
        return dict(sorted(found.items()))  # the order in which they were said must change nothing

    def prepare(self, place: Place) -> Prepared:
        """Everything up to the fitting: extraction, reading, one table of the learning rows."""
        upstream, entries, names = self._inputs(place)
        lives = self._lives(place)
        self.exit_code = self._judge(lives)
        features = self.opened.features
        self._say_what_is_taken(features, names)
        frozen = {} if features is None or not names else inputs_of(features, names, self.learning, self.takes)
        cells = {c: [self.truth[c][r] for r in self.learning] for c in self.targets}
        table = Table(frozen, answers_of({c: a.task for c, a in self.targets.items()}, cells))
        for name, tokens in frozen.items():
            if not bool(tokens.present.any()):
                raise DataError(f"input {name!r} is missing in every training row", "leave it out, or check its column")
        run = Run(self.settings, table, lives, self._fusion, self._tasks, cells, self.opened.ids(self.learning),
                  self.device, self.workers(), place)
        return Prepared(run, upstream, entries, lives)

    def learned(self, ready: Prepared) -> bool:
        """Were the features made by weights that a model learned?"""
        features = self.opened.features
        return fused.learned(ready.upstream, {} if features is None else fused.tensors(features, list(ready.entries))[1])

    def go(self, place: Place) -> Model:
        """Everything that takes time."""
        ready = self.prepare(place)
        run = ready.run
        if self.undecided:
            self.comparison, chosen = comparing.compare(self, run, (), only_fusions=False, ensemble=False,
                                                        trials=self.settings.search)
            count = max(len(one["candidates"]) for one in self.comparison.values())
            console.say(f"chosen: {chosen.name}, of {count} candidates; `mmtool info MODEL` and the page of `mmtool eval` "
                        "show how they compare")
            run = self._decide(run, chosen)
            ready = replace(ready, run=run)
        with contextlib.nullcontext() if run.learning else one_thread():
            pairs, how = self.pairs(run.solved)
            fitted = run.go(pairs, how)
            patterns = None if ready.upstream is None else fused.patterns(self.opened, self.learning)
            metrics, temperatures = self._measure(fitted, run.targets, patterns)
        model = recording.model(self, fitted, metrics, temperatures, how, ready)
        calibrate.check_apart(self, ready.entries, learned=model.header["data"]["upstream_learned"])
        calibrate.calibrate(self, model, fitted, run.table, ready.lives, place, self.groups(self.split.calib))
        return model

    def _decide(self, run: Run, chosen: Candidate) -> Run:
        """The run of the candidate that was chosen."""
        self.undecided = False
        self._use(chosen.fusion)
        for live in run.lives:
            live.keep = self.keep
        table = run.table if self.takes == "tokens" else Table(as_one(run.table.inputs), run.table.answers)
        return replace(run, settings=contest.changed(run.settings, chosen), make_fusion=self._fusion, table=table)

    @property
    def takes(self) -> Literal["pooled", "tokens"]:
        """What the fusion takes; tokens as long as it may be any."""
        found: Literal["pooled", "tokens"] = "tokens" if self.undecided else self.fusion_class.takes
        return found

    @property
    def keep(self) -> Keep:
        """What the fusion gets of a cell that is read here."""
        return "pooled" if not self.settings.extraction.tokens else "tokens" if self.takes == "tokens" else "mean"

    def _say_what_is_taken(self, features: Features | None, names: Sequence[str]) -> None:
        """Whether tokens were kept, and whether the fusion has a use for them."""
        kept = self.settings.extraction.tokens or any(not features.header["inputs"][n]["pooled"] for n in names if features)
        if self.undecided:
            return
        if kept and self.fusion_class.takes == "pooled":
            console.say(f"fusion {self.settings.fusion!r} takes one vector an input: the mean of its tokens")
        elif not kept and self.fusion_class.takes == "tokens" and names != ["fused"]:
            console.say(f"fusion {self.settings.fusion!r} takes tokens, and each input has one: --tokens, of train or of "
                        "extract, keeps every token")

    def _inputs(self, place: Place) -> tuple[Front | None, dict[str, dict[str, Any]], list[str]]:
        """The front that made fused features, the entries of frozen inputs for the header, and the names that are read."""
        self.opened.extract(place.folder, self.settings.extraction)
        features = self.opened.features
        if features is None:
            return None, {}, []
        if features.header.get("upstream"):
            upstream, entries = fused.read(features)
            if len(opening.inputs_without(list(entries), entries, list(self.targets))) < len(entries):
                raise UsageError(f"{self.opened.name} is fused from an input that reads the target", "fuse others")
            return upstream, entries, ["fused"]
        names = opening.inputs_without(features.inputs, features.header["inputs"], list(self.targets))
        if not names and not self.opened.wanted:
            raise UsageError("every input reads a target", "extract another column")
        return None, {n: {**features.header["inputs"][n], "weights": "package"} for n in names}, names

    def _lives(self, place: Place) -> list[Live]:
        lives = []
        said = settings.parse_pairs(self.settings.augment, "--augment")
        for wanted in self.opened.wanted:
            encoder, item = wanted.built.encoder, wanted.item
            assert self.opened.manifest is not None
            source = Source(encoder.modality, self.opened.manifest.base, self.settings.extraction.limits)
            policy = augment.parse(said[item.name], encoder.modality) if item.name in said else None
            raws = partial(self.opened.raws, item, encoder.modality, self.learning)
            folder = place.folder / "cells"
            folder.mkdir(exist_ok=True)
            with console.progress(f"read {item.name}", len(self.learning)) as advance:
                store = cellstore.read(folder, item.name, raws, source, encoder, workers=self.workers([encoder.modality]),
                                       advance=advance, prepared=policy is None and not encoder.needs_fit())
            cellstore.check_usable(item.name, store)
            bad = [s for s in store.statuses if s not in ("ok", "missing")]
            if bad:
                console.warn(f"input {item.name!r}: {len(bad)} of {len(store.statuses)} cells are bad and left out; "
                             f"the first: {bad[0]}")
            live = Live(item, wanted.built, store, True, self.settings.seed, policy, self.keep)
            if live.fitted:
                fitted = live.encoder(range(len(self.learning)))
                if wanted.finetune and not any(p.requires_grad for p in fitted.parameters()):
                    raise opening.no_weights(item.name, wanted.built)
                live.trained = wanted.finetune or not fitted.pretrained
                checks.check_frozen(self.settings.fusion, self.fusion_class, [item.name] if live.trained else [])
            lives.append(live)
            if policy is not None and not live.trained:
                raise UsageError(f"--augment {item.name}: its encoder is not trained", f"add --finetune {item.name}")
        if absent := sorted(set(said) - {live.name for live in lives}):
            raise UsageError(f"--augment {absent[0]}: its encoder is not trained", f"add --finetune {absent[0]}")
        return lives

    def _judge(self, lives: Sequence[Live]) -> int:
        """The exit code: are there more rows with a bad cell than --max-bad?"""
        bad = set[int]()
        if self.opened.to_extract:
            for name in self.opened.frozen:
                bad |= {row for row, s in enumerate(self.opened.statuses(name)) if s not in ("ok", "missing")}
        for live in lives:
            bad |= {self.learning[i] for i, s in enumerate(live.store.statuses) if s not in ("ok", "missing")}
        allowed = self.settings.extraction.max_bad
        if len(bad) <= parse_max_bad(allowed)(len(self.opened)):
            return 0
        console.error(f"{len(bad)} of {len(self.opened)} rows have a bad cell, more than --max-bad {allowed}",
                      "training goes on without these cells; mend them and run again, or raise --max-bad",
                      code="E_TOO_MANY_BAD")
        return TOO_MANY_BAD

    def workers(self, modalities: Sequence[str] = ()) -> int:
        """Reader processes for cells of some modalities."""
        said = self.settings.extraction.workers
        return default_workers(len(self.learning), modalities) if said is None else said

    def _fusion(self, dims: dict[str, int]) -> Fusion:
        found: Fusion = self.fusion_class(dims, **self.fusion_options)
        return found

    def _tasks(self) -> dict[str, Task]:
        made = {}
        for column, asked in self.targets.items():
            made[column] = plugins.load(plugins.find(asked.name, "task"))(**asked.options)
            made[column].set_assets(asked.task.assets())
        return made

    def _split(self) -> Split:
        rows, strata = self.rows, self.strata(self.rows)
        if "split" in self.opened.columns:
            split = splits.read(self.opened.column("split"), rows)
            self._warn_of_torn(split)
            return self._apart(split)
        if self.settings.folds is not None:
            return self._apart(Split(rows, [], [], made=True))
        parts = splits.folds(rows, strata, self.groups(rows), splits.TEST_SHARE, self.settings.seed)
        console.say(f"no column 'split': {len(parts[0])} of {len(rows)} rows are kept for the test")
        return self._apart(Split(sorted(r for part in parts[1:] for r in part), [], sorted(parts[0]), made=True))

    def _apart(self, split: Split) -> Split:
        share = self.settings.conformal
        if share is None:
            return split
        if split.calib:
            raise UsageError("--conformal draws calibration rows, but the column split names some", "leave it out")
        return splits.apart(split, self.groups(sorted(split.train + split.val)), share, self.settings.seed)

    def _warn_of_torn(self, split: Split) -> None:
        """A column `split` may part a group, which --group forbids."""
        parts = [set(groups) for rows in (split.train + split.val, split.test) if (groups := self.groups(rows)) is not None]
        if len(parts) == 2 and (torn := sorted(parts[0] & parts[1])):
            console.warn(f"column 'split' tears {len(torn)} groups of {self.settings.group!r}, such as "
                         f"{torn[0].partition(' ')[2]!r}: rows of one group both train and test")

    def strata(self, rows: Sequence[int]) -> list[str]:
        known: dict[tuple[str | None, ...], str] = {}  # rows are many, and those of one stratum share its name
        columns = [self.truth[c] for c in self.targets]
        found = []
        for r in rows:
            cells = tuple(column[r] for column in columns)
            if cells not in known:
                known[cells] = "\0".join("" if cell is None else a.task.stratum(cell)
                                         for cell, a in zip(cells, self.targets.values(), strict=True))
            found.append(known[cells])
        return found

    def groups(self, rows: Sequence[int]) -> list[str] | None:
        column = self.settings.group
        if column is None:
            return None
        if column not in self.opened.columns:
            raise UsageError(f"--group: there is no column {column!r}", f"columns: {', '.join(self.opened.columns)}")
        cells = self.opened.column(column)
        return [f"row {r}" if cells[r] is None else f"group {cells[r]}" for r in rows]

    def pairs(self, solved: bool) -> tuple[list[tuple[list[int], list[int]]], str]:
        """Pairs of (fit, held-out) positions in `learning`, and what the held-out rows are."""
        learning, split = self.learning, self.split
        everyone = list(range(len(learning)))
        groups = self.groups(learning)
        members = len(learning) if groups is None else len(set(groups))
        k = self.settings.folds
        if k is None and split.val and (not solved or len(learning) > FOLD_ROWS):
            val = set(split.val)
            fit = [i for i in everyone if learning[i] not in val]
            return [(fit, [i for i in everyone if learning[i] in val])], f"{len(val)} validation rows"
        if k is None and solved and len(learning) <= FOLD_ROWS:
            k = max(2, min(INNER_FOLDS, members))
        parts = splits.folds(everyone, self.strata(learning), groups, k or max(2, min(splits.VAL_SHARE, members)),
                             self.settings.seed)
        held = parts if k else parts[:1]
        how = f"out of fold, {k} folds" if k else f"{len(parts[0])} validation rows, made"
        return [([i for i in everyone if i not in out], part) for part in held for out in [set(part)]], how

    def _measure(self, fitted: Result, cells: Mapping[str, Sequence[str | None]],
                 patterns: list[str] | None) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
        found, temperatures = {}, {}
        for column in self.targets:
            heads, held = [], []
            for part in fitted.parts:
                heads.append(next(h for h in part.network.heads() if h.column == column))
                data, at = part.held.of(column, range(len(part.rows)))
                there = torch.stack([t.present for t in data.inputs.values()]).any(0).nonzero().flatten().tolist()
                held.append((data.rows(there), [part.rows[at[i]] for i in there]))  # without an input nothing is predicted
            if not any(own for _, own in held):
                console.warn(f"no held-out row has a {column}: what the model is worth there is not known")
            final = next(h for h in fitted.network.heads() if h.column == column).task
            truth = {i: cell for i, cell in enumerate(cells[column]) if cell is not None}
            found[column], temperatures[column] = measure.on_held(heads, held, truth, self.settings.seed, final, patterns)
        if len(found) == 1:
            return next(iter(found.values())), temperatures
        kinds = ("overall", "by_inputs", "baselines")
        return {kind: {column: table[kind] for column, table in found.items()} for kind in kinds}, temperatures
