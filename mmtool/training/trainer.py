"""One run of `train`: what is learned from which rows, then the fitting, then what it is worth."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from mmtool import console, encoding, fused, opening, plugins, settings, specs
from mmtool.api import Fusion, Task
from mmtool.cells import Source
from mmtool.errors import TOO_MANY_BAD, MMToolError, UsageError
from mmtool.extract import default_workers, parse_max_bad
from mmtool.media import augment
from mmtool.model import Model
from mmtool.network import Front
from mmtool.opening import Opened
from mmtool.settings import Settings
from mmtool.training import calibrate, cellstore, checks, measure, recording, splits, targets
from mmtool.training.data import Table, answers_of, pooled
from mmtool.training.fit import Result, Run
from mmtool.training.keeping import Place
from mmtool.training.live import Live
from mmtool.training.solve import one_thread
from mmtool.training.splits import Split
from mmtool.training.targets import Asked

INNER_FOLDS = 5
FOLD_ROWS = 5000
"""Up to so many training rows, held-out rows come from folds, so that every row is used; above, one part is enough."""


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
        self.fusion = plugins.find(specs.parse(asked.fusion).name, "fusion")
        self.fusion_class = plugins.load(self.fusion)
        self.fusion_options = specs.bind(self.fusion_class, specs.parse(asked.fusion))
        if asked.bundle:
            checks.check_bundle([*opened.to_extract, *(w.item for w in opened.wanted)], asked.seed)
        checks.check_fit(asked.fusion, self.fusion_class, {c: a.task for c, a in self.targets.items()})
        self.exit_code = 0

    @property
    def plugins(self) -> list[Any]:
        """What tells fusion and tasks, as they are installed, from others."""
        tasks = [[c, a.name, a.package, encoding.plain_options(a.options), encoding.source_sha256(a.task)]
                 for c, a in self.targets.items()]
        return [tasks, self.fusion.name, self.fusion.package, encoding.plain_options(self.fusion_options)]

    def _targets(self) -> dict[str, Asked]:
        found: dict[str, Asked] = {}
        unused = set(self.settings.task_options)
        for text in self.settings.targets:
            column, task = targets.parse(text, self.opened.columns)
            if task == "auto" and self.settings.task is not None:
                task = self.settings.task
            if column in found:
                raise UsageError(f"--target {column!r} is given twice")
            present = [c for c in self.opened.column(column) if not targets.is_empty(c)]
            found[column] = targets.build(column, task, [c for c in present if c is not None], self.settings.task_options)
            unused -= set(found[column].options)
        if unused:
            names = ", ".join(sorted({a.name for a in found.values()}))
            raise UsageError(f"{names} has no option {min(unused)!r}", "leave it out")
        return dict(sorted(found.items()))  # the order in which they were said must change nothing

    def go(self, place: Place) -> Model:
        """Everything that takes time."""
        upstream, entries, names = self._inputs(place)
        lives = self._lives(place)
        self.exit_code = self._judge(lives)
        frozen = {} if self.opened.features is None or not names else pooled(self.opened.features, names, self.learning)
        cells = {c: [self.truth[c][r] for r in self.learning] for c in self.targets}
        table = Table(frozen, answers_of({c: a.task for c, a in self.targets.items()}, cells))
        for name, tokens in frozen.items():
            if not bool(tokens.present.any()):
                raise MMToolError(f"input {name!r} is missing in every training row", "leave it out, or check its column")
        run = Run(self.settings, table, lives, self._fusion, self._tasks, cells, [self.opened.ids[r] for r in self.learning],
                  self.device, self._workers(), place)
        with contextlib.nullcontext() if run.learning else one_thread():
            pairs, how = self._pairs(run.solved)
            fitted = run.go(pairs, how)
            patterns = None if upstream is None else fused.patterns(self.opened, self.learning)
            metrics, temperatures = self._measure(fitted, cells, patterns)
        model = recording.model(self, fitted, metrics, temperatures, how, entries, lives, upstream)
        calibrate.check_apart(self, entries, learned=model.header["data"]["upstream_learned"])
        calibrate.calibrate(self, model, fitted, table, lives, place, self._groups(self.split.calib))
        return model

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
                store = cellstore.read(folder, item.name, raws, source, encoder, workers=self._workers(), advance=advance,
                                       prepared=policy is None and not encoder.needs_fit())
            cellstore.check_usable(item.name, store)
            bad = [s for s in store.statuses if s not in ("ok", "missing")]
            if bad:
                console.warn(f"input {item.name!r}: {len(bad)} of {len(store.statuses)} cells are bad and left out; "
                             f"the first: {bad[0]}")
            live = Live(item, wanted.built, store, True, self.settings.seed, policy)
            if live.fitted:
                fitted = live.encoder(range(len(self.learning)))
                if wanted.finetune and not any(p.requires_grad for p in fitted.parameters()):
                    raise opening.no_weights(item.name, wanted.built)
                live.trained = wanted.finetune or not fitted.pretrained
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
        if len(bad) <= parse_max_bad(allowed)(len(self.opened.ids)):
            return 0
        console.error(f"{len(bad)} of {len(self.opened.ids)} rows have a bad cell, more than --max-bad {allowed}",
                      "the model is trained all the same; mend the cells and run again, or raise --max-bad")
        return TOO_MANY_BAD

    def _workers(self) -> int:
        said = self.settings.extraction.workers
        return default_workers(len(self.learning)) if said is None else said

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
        rows, strata = self.rows, self._strata(self.rows)
        if "split" in self.opened.columns:
            split = splits.read(self.opened.column("split"), rows)
            self._warn_of_torn(split)
            return self._apart(split)
        if self.settings.folds is not None:
            return self._apart(Split(rows, [], [], made=True))
        parts = splits.folds(rows, strata, self._groups(rows), splits.TEST_SHARE, self.settings.seed)
        console.say(f"no column 'split': {len(parts[0])} of {len(rows)} rows are kept for the test")
        return self._apart(Split(sorted(r for part in parts[1:] for r in part), [], sorted(parts[0]), made=True))

    def _apart(self, split: Split) -> Split:
        share = self.settings.conformal
        if share is None:
            return split
        if split.calib:
            raise UsageError("--conformal draws calibration rows, but the column split names some", "leave it out")
        return splits.apart(split, self._groups(sorted(split.train + split.val)), share, self.settings.seed)

    def _warn_of_torn(self, split: Split) -> None:
        """A column `split` may part a group, which --group forbids."""
        parts = [set(groups) for rows in (split.train + split.val, split.test) if (groups := self._groups(rows)) is not None]
        if len(parts) == 2 and (torn := sorted(parts[0] & parts[1])):
            console.warn(f"column 'split' tears {len(torn)} groups of {self.settings.group!r}, such as "
                         f"{torn[0].partition(' ')[2]!r}: rows of one group both train and test")

    def _strata(self, rows: Sequence[int]) -> list[str]:
        found = [{c: a.task.stratum(cell) for c, a in self.targets.items() if (cell := self.truth[c][r]) is not None}
                 for r in rows]
        return ["\0".join(strata.get(c, "") for c in self.targets) for strata in found]

    def _groups(self, rows: Sequence[int]) -> list[str] | None:
        column = self.settings.group
        if column is None:
            return None
        if column not in self.opened.columns:
            raise UsageError(f"--group: there is no column {column!r}", f"columns: {', '.join(self.opened.columns)}")
        cells = self.opened.column(column)
        return [f"row {r}" if cells[r] is None else f"group {cells[r]}" for r in rows]

    def _pairs(self, solved: bool) -> tuple[list[tuple[list[int], list[int]]], str]:
        """Pairs of (fit, held-out) positions in `learning`, and what the held-out rows are."""
        learning, split = self.learning, self.split
        everyone = list(range(len(learning)))
        groups = self._groups(learning)
        members = len(learning) if groups is None else len(set(groups))
        k = self.settings.folds
        if k is None and split.val and (not solved or len(learning) > FOLD_ROWS):
            val = set(split.val)
            fit = [i for i in everyone if learning[i] not in val]
            return [(fit, [i for i in everyone if learning[i] in val])], f"{len(val)} validation rows"
        if k is None and solved and len(learning) <= FOLD_ROWS:
            k = max(2, min(INNER_FOLDS, members))
        parts = splits.folds(everyone, self._strata(learning), groups, k or max(2, min(splits.VAL_SHARE, members)),
                             self.settings.seed)
        held = parts if k else parts[:1]
        how = f"out of fold, {k} folds" if k else f"{len(parts[0])} validation rows, made"
        return [([i for i in everyone if i not in out], part) for part in held for out in [set(part)]], how

    def _measure(self, fitted: Result, cells: dict[str, list[str | None]],
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
