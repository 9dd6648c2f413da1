"""After a model is fitted: scores of the rows that were kept apart, and what new rows' features are compared with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mmtool import conformal, console, fused
from mmtool.api import Encoder, Tokens
from mmtool.errors import DataError
from mmtool.model import Model
from mmtool.network import having, key_of, only, subsets, take
from mmtool.reference import FIT_ROWS, HELD_ROWS, LEAST_HELD, Reference
from mmtool.training import cellstore
from mmtool.training.data import Table, inputs_of
from mmtool.training.fit import Fitted, Result
from mmtool.training.keeping import Place
from mmtool.training.live import Live
from mmtool.training.measure import used_in
from mmtool.training.solve import one_thread

if TYPE_CHECKING:
    from mmtool.training.trainer import Trainer

MOST_PATTERNS = 32
"""Combinations of inputs that calibration rows have, besides those that are measured."""


def calibrate(trainer: Trainer, model: Model, fitted: Result, table: Table, lives: Sequence[Live], place: Place,
              groups: Sequence[str] | None) -> None:
    """Fill the model's `conformal` scores, where rows were kept apart, and its `references`.

    `groups`: that of each such row, where rows have some.
    """
    rows = trainer.split.calib
    names = sorted(table.inputs) if not lives else model.inputs
    tokens = _tokens(trainer, fitted, table, lives, place) if rows else {}
    with one_thread():
        if rows:
            _score(trainer, model, tokens, rows, groups)
        found = {name: _reference(trainer, fitted, table, lives, name, tokens.get(name)) for name in names}
    model.references = {name: r for name, r in found.items() if r is not None}
    model.header["reference"] = {name: {"held": len(r.known)} for name, r in model.references.items()}


def _tokens(trainer: Trainer, fitted: Result, table: Table, lives: Sequence[Live], place: Place) -> dict[str, Tokens]:
    """Every input of the rows that were kept apart, through the encoders as they came out."""
    rows, features = trainer.split.calib, trainer.opened.features
    frozen = sorted(set(table.inputs) - {live.name for live in lives})
    found = {} if features is None or not frozen else inputs_of(features, frozen, rows, trainer.takes)
    folder = place.folder / "calibration"
    folder.mkdir(exist_ok=True)
    for live in lives:
        raws = partial(trainer.opened.raws, live.item, live.store.source.modality, rows)
        with console.progress(f"read {live.name} to calibrate", len(rows)) as advance:
            store = cellstore.read(folder, live.name, raws, live.store.source, live.built.encoder, advance=advance,
                                   prepared=False, workers=trainer.workers([live.store.source.modality]))
        found[live.name] = replace(live, store=store).features(fitted.encoders[live.name], trainer.device, 32)
    return found


def _score(trainer: Trainer, model: Model, tokens: Mapping[str, Tokens], rows: Sequence[int],
           groups: Sequence[str] | None) -> None:
    """The scores of each target for each subset of inputs, the others hidden (Zaffran et al., 2023).

    So a prediction from one input has a threshold of its own, valid as long as cells are missing for no reason that has to do
    with the target. Rows of a group are not independent: of each group one row counts, drawn by chance (Dunn et al., 2022).
    """
    cells = {c: [trainer.truth[c][r] for r in rows] for c in trainer.targets}
    order = np.random.default_rng([trainer.settings.seed, 2]).permutation(len(rows)).tolist()
    for column, task in model.tasks.items():
        model.conformal[column] = {}
        for key, at, inputs, used in _subsets(trainer, model, tokens, rows) if task.conformal else ():
            place = {row: i for i, row in enumerate(at)}
            there = [i for i in order if i in place and cells[column][i] is not None]
            if groups is not None:
                there = list({groups[i]: i for i in reversed(there)}.values())
            truth = [cell for i in sorted(there) if (cell := cells[column][i]) is not None]
            if truth:
                outputs = model.outputs(inputs, used)[0][column][[place[i] for i in sorted(there)]]
                model.conformal[column][key] = task.nonconformity(outputs, truth).double().sort().values
    counts = {column: {key: len(s) for key, s in found.items()} for column, found in model.conformal.items()}
    model.header["conformal"] = {"rows": counts}
    most = max((n for found in counts.values() for n in found.values()), default=0)
    if most < conformal.fewest(0.9):
        console.warn(f"{most} rows calibrate, and a coverage of 0.9 needs {conformal.fewest(0.9)}: keep more apart")
    else:
        console.say(f"{len(rows)} rows took no part in training; their scores are kept for `predict --coverage`")


def _subsets(trainer: Trainer, model: Model, tokens: Mapping[str, Tokens],
             rows: Sequence[int]) -> list[tuple[str, list[int], dict[str, Tokens], list[list[str]] | None]]:
    """For each subset of inputs its key, the places in `rows` that have it, and their tokens with the others hidden."""
    if model.upstream is not None:  # what is fused cannot be hidden: rows are told apart by what they had
        used = fused.used_inputs(trainer.opened, rows)
        keys = sorted({key_of(u) for u in used if u})
        each = [(key, [i for i, u in enumerate(used) if key_of(u) == key]) for key in keys]
        return [(key, at, take(tokens, at), [used[i] for i in at]) for key, at in each]
    natural = Counter(tuple(u) for u in used_in(tokens) if u)
    wanted = dict.fromkeys([*subsets(model.inputs), *(p for p, _ in natural.most_common(MOST_PATTERNS))])
    found = [(subset, having(tokens, subset).tolist()) for subset in wanted]
    return [(key_of(subset), at, only(take(tokens, at), subset), None) for subset, at in found if at]


def _reference(trainer: Trainer, fitted: Result, table: Table, lives: Sequence[Live], name: str,
               apart: Tokens | None) -> Reference | None:
    """Fitted on the learning rows, compared with the rows kept apart, or else with rows of the held-out parts.

    A held-out row is compared with a reference of its own part's fit rows, so that nothing is compared with itself; that of
    the model knows some more rows, which makes new rows seem a little nearer (cross-conformal, Vovk, 2015).
    """
    live = next((live for live in lives if live.name == name), None)
    everyone, seed = range(len(table)), trainer.settings.seed
    final = fitted.encoders.get(name)
    single = len(fitted.parts) == 1 and fitted.network is fitted.parts[0].network
    known: list[tuple[Fitted | None, Tokens]] = []
    if apart is not None:
        known.append((None, apart))
    else:
        known += [(part, part.held.inputs[name]) for part in fitted.parts]
    count = sum(int(held.present.sum()) for _, held in known)
    some = set(np.random.default_rng([seed, 4]).permutation(count)[:HELD_ROWS].tolist())
    distances: list[Tensor] = []
    reference, before = None, 0
    for part, held in known:
        if part is None or single:
            reference = fit = _fit(trainer, table, live, final, everyone if part is None else _rest(everyone, part.rows), name)
        else:
            fit = _fit(trainer, table, live, part.encoders.get(name), _rest(everyone, part.rows), name)
        there = held.present.nonzero().flatten().tolist()
        at = [row for place, row in enumerate(there, before) if place in some]
        before += len(there)
        if fit is not None:
            distances.append(fit.distances(held.take(torch.tensor(at, dtype=torch.int64)).mean()))
    if reference is None and distances:
        reference = _fit(trainer, table, live, final, everyone, name)
    found = torch.cat(distances) if distances else torch.zeros(0)
    if reference is None or len(found) < LEAST_HELD:
        return None
    return Reference(**{**reference.tensors(), "known": found.sort().values})


def _rest(everyone: Sequence[int], held: Sequence[int]) -> list[int]:
    out = set(held)
    return [i for i in everyone if i not in out]


def _fit(trainer: Trainer, table: Table, live: Live | None, encoder: Encoder | None, rows: Sequence[int],
         name: str) -> Reference | None:
    """On some of the rows that have the input, at most FIT_ROWS."""
    there = table.inputs[name].present.tolist() if live is None else [s == "ok" for s in live.store.statuses]
    usable = [r for r in rows if there[r]]
    some = sorted(np.random.default_rng([trainer.settings.seed, 3]).permutation(usable)[:FIT_ROWS].tolist())
    if len(some) < 2:
        return None
    if live is None:
        x = take({name: table.inputs[name]}, some)[name].mean()
    else:
        assert encoder is not None
        store = replace(live.store, statuses=["ok"] * len(some), places=[live.store.places[r] for r in some],
                        raws={i: live.store.raws[r] for i, r in enumerate(some) if r in live.store.raws})
        tokens = replace(live, store=store).features(encoder, trainer.device, 32)
        x = tokens.mean()[tokens.present]
    return Reference.fit(x, trainer.settings.seed) if len(x) > 1 else None


def check_apart(trainer: Trainer, entries: Mapping[str, Mapping[str, object]], *, learned: bool) -> None:
    """Raises MMToolError where features have learned from the rows that were to be kept apart."""
    if not trainer.split.calib or trainer.opened.features is None:
        return
    drawn = trainer.settings.conformal is not None
    fitted = [name for name, entry in entries.items() if entry.get("fitted")]
    if drawn and fitted and "split" in trainer.opened.columns:
        raise DataError(f"input {fitted[0]!r} of these features learned from the rows with split train, and --conformal "
                        "draws among them",
                        "mark rows with `calib` in the column split and extract again, or train on the manifest")
    if learned:
        console.warn("these features were made by weights that a model learned: if its rows were among the calibration rows, "
                     "what --coverage promises does not hold")
