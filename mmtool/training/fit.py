"""Fitting every part of a run: solved where nothing but linear heads is learned, descended elsewhere."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmtool import console
from mmtool.allocator import keep_memory
from mmtool.api import Encoder, Fusion, Task
from mmtool.network import Front, Network, take
from mmtool.report import where
from mmtool.settings import Settings
from mmtool.training import descend, exact
from mmtool.training.data import Answers, Part, Table
from mmtool.training.graph import Graph, encode
from mmtool.training.keeping import Place
from mmtool.training.live import Feed, Live, width_of
from mmtool.training.recipe import Recipe, batch_size
from mmtool.training.watching import Watcher

FROZEN = {"epochs": 60, "patience": 10}
FROM_SCRATCH = {"epochs": 30, "patience": 8}
FINETUNED = {"epochs": 15, "patience": 5, "lr": 1e-4}
"""Defaults of a descent where encoders are frozen, begin with random weights, or are fine-tuned."""


@dataclass
class Fitted:
    """A part when it is done: its network, its encoders, and the tokens of its held-out rows."""

    network: Network
    encoders: dict[str, Encoder]
    held: Table
    rows: list[int]


@dataclass
class Result:
    """Every part's network and held-out rows, the final network and its encoders, and how it all went."""

    parts: list[Fitted]
    network: Network
    encoders: dict[str, Encoder]
    recipe: dict[str, Any]
    curves: list[exact.Curve]


@dataclass
class Run:
    """All that the parts of a run share. `table` has the frozen inputs of the N learning rows, `lives` the others."""

    settings: Settings
    table: Table
    lives: list[Live]
    make_fusion: Callable[[dict[str, int]], Fusion]
    make_tasks: Callable[[], dict[str, Task]]
    targets: Mapping[str, Sequence[str | None]]
    ids: Sequence[str]
    device: torch.device
    workers: int
    place: Place

    def __post_init__(self) -> None:
        self.learning = [live for live in self.lives if live.trained]

    def network(self, dims: dict[str, int]) -> Network:
        """A new one, drawn from the run's seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            return Network(Front(dims, self.make_fusion(dims)), self.make_tasks(), self.settings.hidden, self.settings.dropout)

    def part(self, fit: list[int], held: list[int]) -> tuple[Part, dict[str, Encoder]]:
        """The rows of a part with everything that is fitted on them, and the encoders."""
        encoders = {live.name: live.encoder(fit) for live in self.lives}
        tokens = dict(self.table.inputs)
        for live in self.lives:
            if not live.trained:
                tokens[live.name] = live.features(encoders[live.name], self.device, 32)
        return Part(Table(tokens, self.table.answers), fit, held), encoders

    def prepare(self, part: Part, encoders: Mapping[str, Encoder]) -> Network:
        """A new network whose front is fitted on the part's rows, for the widths that its encoders give."""
        dims = {name: t.dim for name, t in part.table.inputs.items()}
        dims |= {live.name: width_of(live, encoders[live.name]) for live in self.learning if live.name not in dims}
        network = self.network(dims)
        network.front.fit(take(part.table.inputs, part.fit))
        return network.eval()

    def solvable(self, network: Network) -> bool:
        """Can its heads be solved for, at least to begin with? Not where an encoder is random."""
        known = all(live.name in self.table.inputs for live in self.learning)
        return known and not self.settings.dropout and exact.applies(network)

    @cached_property
    def whole(self) -> tuple[Part, dict[str, Encoder]]:
        """Every learning row, to fit."""
        return self.part(list(range(len(self.table))), [])

    @cached_property
    def solved(self) -> bool:
        """Is nothing learned but heads that can be solved for?"""
        return self.settings.optimizer == "auto" and not self.learning and self.solvable(self.last)

    @cached_property
    def last(self) -> Network:
        """A new network for every learning row; whoever trains it is the only one to use it."""
        return self.prepare(*self.whole)

    def go(self, pairs: Sequence[tuple[list[int], list[int]]], how: str) -> Result:
        """Fit each pair of (fit, held-out) rows, and the final network."""
        parts = [self.part(fit, held) for fit, held in pairs]
        networks = [self.prepare(part, encoders) for part, encoders in parts]
        return self._solve(parts, networks, how) if self.solved else self._descend(parts, networks, how)

    def _solve(self, parts: list[tuple[Part, dict[str, Encoder]]], networks: list[Network], how: str) -> Result:
        final = self.last
        strengths, curves = self.heads([p for p, _ in parts], networks, final, self.whole[0])
        for column, found in strengths.items():
            of = f"{column}: " if len(strengths) > 1 else ""
            console.say(f"{of}solved by L-BFGS; L2 strength {exact.describe(found)}, chosen {where(how)}")
        if told := sorted([*self.settings.given, *(["tensorboard"] if self.settings.tensorboard else [])]):
            console.warn(f"nothing was descended, so {', '.join(told)} changed nothing "
                         "(--optimizer adamw descends)")
        fitted = [Fitted(network, encoders, _held(part), part.held)
                  for network, (part, encoders) in zip(networks, parts, strict=True)]
        recipe = {"optimizer": "lbfgs", "l2": strengths, "modality_dropout": self.settings.modality_dropout or 0.0}
        return Result(fitted, final, self.whole[1], recipe, curves)

    def heads(self, parts: list[Part], networks: list[Network], final: Network | None,
               whole: Part) -> tuple[dict[str, dict[str, float]], list[exact.Curve]]:
        strengths, curves = {}, []
        for column in networks[0].columns:
            strengths[column], found = exact.train(networks, final, parts, whole, column, self.settings.modality_dropout or 0.0)
            curves += [{"column": column, **curve} for curve in found]
        return strengths, curves

    def _descend(self, parts: list[tuple[Part, dict[str, Encoder]]], networks: list[Network], how: str) -> Result:
        recipe = self.recipe()
        begun = bool(self.learning) and self.settings.optimizer == "auto" and self.solvable(networks[0])
        if begun:
            self.heads([p for p, _ in parts], networks, None, parts[0][0])
            console.say(f"the heads begin where L-BFGS left them on frozen features, chosen {where(how)}")
        fitted, curves, epochs = [], [], []
        for number, ((part, encoders), network) in enumerate(zip(parts, networks, strict=True)):
            title = f"part {number + 1} of {len(parts)}"
            graph, feed, went = self.train_part(number, title, part, encoders, network, recipe, begun=begun)
            console.say(f"{title}: best epoch {went.best_epoch} of {len(went.curve)}, held-out loss {went.best:.4f}")
            held = encode(graph, feed, _without(part.table, graph.live), part.held, recipe.batch_size, self.device)
            fitted.append(Fitted(network, _all(encoders, graph), Table(held, _answers(part)), part.held))
            curves.append(_curve(title, went))
            epochs.append(went.best_epoch)
        network, chosen = fitted[0].network, fitted[0].encoders
        if len(parts) > 1:
            whole, encoders = self.whole
            network = self.prepare(whole, encoders)
            if begun:
                self.heads([whole], [network], None, whole)
            graph, _, _ = self.train_part(len(parts), "all rows", whole, encoders, network,
                                      replace(recipe, epochs=sorted(epochs)[len(epochs) // 2]), begun=begun)
            chosen = _all(encoders, graph)
        told = {**asdict(recipe), "dropout": self.settings.dropout, "best_epochs": epochs, "solved_start": begun,
                "threads": torch.get_num_threads()}
        return Result(fitted, network, chosen, told, curves)

    def train_part(self, name: int | str, title: str, part: Part, encoders: Mapping[str, Encoder], network: Network,
               recipe: Recipe, *, begun: bool) -> tuple[Graph, Feed, descend.Outcome]:
        names = [live.name for live in self.learning]
        if names and self.device.type == "cpu":
            keep_memory()
        learned = len(network.columns) > 1 and recipe.loss_weighting == "uncertainty"
        graph = Graph(network, {n: encoders[n] for n in names}, {n: network.front.fusion.dims[n] for n in names},
                      {live.name: live.keep for live in self.learning}, learned_weighting=learned)
        preparers = {n: copy.deepcopy(e) if self.device.type != "cpu" else e for n, e in encoders.items()}
        feed = Feed(self.learning, preparers, self.workers)
        slim = replace(part, table=_without(part.table, names))
        board: Path | None = self.settings.tensorboard
        with Watcher(title, recipe.epochs, descend.steps_of(len(part.fit), recipe), board) as watcher, self.place.signals():
            went = descend.train(graph, slim, feed, recipe, self.device, watcher, self.place.keeper(name), self.ids,
                                 lambda outputs: self._metric(network, part, outputs), begun=begun)
        return graph, feed, went

    def _metric(self, network: Network, part: Part, outputs: Mapping[str, Tensor]) -> tuple[str, float] | None:
        """The first target's main metric on the held-out rows."""
        head = network.heads()[0]
        known = self.table.answers[head.column].known[torch.tensor(part.held)].nonzero().flatten().tolist()
        truth = [cell for i in known if (cell := self.targets[head.column][part.held[i]]) is not None]
        if not truth:
            return None
        predictions = head.task.decode(outputs[head.column][known].double())
        found = head.task.metrics(predictions, truth, np.ones((1, len(truth)))).get(head.task.main_metric)
        return None if found is None else (head.task.main_metric, float(found[0]))

    def recipe(self) -> Recipe:
        """Of a descent: what was said, and defaults that fit what is trained."""
        random = any(live.name not in self.table.inputs for live in self.learning)
        frozen = {**FROZEN, "batch_size": batch_size(len(self.ids))}
        base = frozen if not self.learning else FROM_SCRATCH if random else FINETUNED
        optimizer = "adamw" if self.settings.optimizer == "auto" else self.settings.optimizer
        if "encoder_lr" in self.settings.given and not any(live.built.encoder.pretrained for live in self.learning):
            console.warn("no pretrained encoder is trained, so --encoder-lr changes nothing (--finetune INPUT trains one)")
        dropped = 0.1 if self.settings.modality_dropout is None else self.settings.modality_dropout
        return Recipe(**{**base, **self.settings.given, "optimizer": optimizer, "modality_dropout": dropped,
                         "seed": self.settings.seed})


def _without(table: Table, names: Sequence[str]) -> Table:
    """Without the inputs whose encoder is trained: their features are not what they were."""
    return Table({n: t for n, t in table.inputs.items() if n not in names}, table.answers)


def _answers(part: Part) -> dict[str, Answers]:
    return {column: a.at(torch.tensor(part.held, dtype=torch.int64)) for column, a in part.table.answers.items()}


def _held(part: Part) -> Table:
    return Table(take(part.table.inputs, part.held), _answers(part))


def _all(encoders: Mapping[str, Encoder], graph: Graph) -> dict[str, Encoder]:
    return {**encoders, **{name: graph.encoder(name).eval() for name in graph.live}}


def _curve(title: str, went: descend.Outcome) -> exact.Curve:
    return {"name": title, "x": "epoch", "at": list(range(1, len(went.curve) + 1)), "fit": [c[0] for c in went.curve],
            "held": [c[1] for c in went.curve if len(c) > 1], "best": went.best_epoch}
