"""Training by gradient descent: shuffled batches, schedules, clipping, modality dropout, early stopping.

All chance is a function of seed, epoch and step, so a run that goes on from a checkpoint draws what it would have drawn.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmtool import devices
from mmtool.api import Tokens
from mmtool.bounded import check_state
from mmtool.errors import MMToolError
from mmtool.strictjson import Unsound
from mmtool.training.batches import Source, shuffled
from mmtool.training.data import Part
from mmtool.training.graph import Graph, answers_on, encode, held_losses
from mmtool.training.keeping import Keeper
from mmtool.training.live import Feed
from mmtool.training.recipe import Recipe, make_optimizer, rate
from mmtool.training.watching import Watcher

LOSS = "E_LOSS"
"""The code of a loss, a gradient or a step that is no number."""
WINDOW = 16
"""Batches."""


@dataclass
class State:
    """Where a training stands."""

    epoch: int = 1
    step: int = 0
    total: float = 0.0
    best: float = float("inf")
    best_epoch: int = 0
    curve: list[list[float]] = field(default_factory=list)
    """An epoch each: mean fit loss, and held-out loss where there is one."""


@dataclass(frozen=True)
class Outcome:
    """The best epoch, its held-out loss, and the losses of every epoch; the graph holds its weights."""

    best_epoch: int
    best: float
    curve: list[list[float]]


def train(graph: Graph, part: Part, feed: Feed, recipe: Recipe, device: torch.device, watcher: Watcher, keeper: Keeper,
          ids: Sequence[str], metric: Callable[[dict[str, Tensor]], tuple[str, float] | None], *, begun: bool) -> Outcome:
    """Train in place on the part's `fit` rows; with held-out rows, keep the epoch with the least loss there.

    `begun`: the graph knows something already, so that the weights before the first epoch (0) may be the best. Raises
    DeviceError, and MMToolError for a loss or a gradient that is no number; the keeper then has the last good state.
    """
    lower = f"lower --batch-rows, which is {recipe.batch_size}, or use " + \
        ("a smaller encoder" if device.type == "cpu" else "--device cpu")
    with devices.watched("training", lower):
        graph.to(device)
    optimizer = make_optimizer(graph, recipe)
    batches, steps = _count(len(part.fit), recipe.batch_size), steps_of(len(part.fit), recipe)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps, recipe))
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
    best_state: dict[str, Tensor] = {}
    state = State(best_epoch=recipe.epochs)
    with devices.watched("training", lower):
        source = Source(part.table.inputs, device)
    if (kept := keeper.load()) is not None:
        state, best_state = _restore(kept, graph, optimizer, schedule, scaler)
        watcher.skip(schedule.last_epoch)

    def keep() -> None:
        with suppress(Unsound):  # the one kept before is the last good one
            check_state(graph, graph.state_dict())
            keeper.keep(*_snapshot(graph, optimizer, schedule, scaler, state, best_state))

    def judge(epoch: int) -> tuple[float, tuple[str, float] | None]:
        nonlocal best_state
        inputs = encode(graph, feed, part.table, part.held, recipe.batch_size, device)
        held, outputs = held_losses(graph, inputs, part.table, part.held, device)
        if not math.isfinite(held):
            raise MMToolError(f"the held-out loss is {held} after epoch {epoch}", "lower --lr", code=LOSS)
        if held < state.best:
            state.best, state.best_epoch = held, epoch
            best_state = copy.deepcopy({k: v.cpu() for k, v in graph.state_dict().items()})
        return held, metric(outputs)

    def go() -> None:
        if begun and part.held and kept is None:
            judge(0)
        while state.epoch <= recipe.epochs and not (part.held and state.epoch - 1 - state.best_epoch >= recipe.patience):
            for loss in _epoch(graph, part, source, feed, recipe, optimizer, schedule, scaler, state, ids):
                watcher.step(loss)
                if keeper.due():
                    keep()
            held = None
            measured = None
            if part.held:
                held, measured = judge(state.epoch)
            fit = state.total / batches
            state.curve.append([fit] if held is None else [fit, held])
            watcher.epoch(state.epoch, fit, held, measured)
            state.epoch, state.step, state.total = state.epoch + 1, 0, 0.0
            if keeper.due():
                keep()

    try:
        with torch.random.fork_rng(devices=[]), devices.watched("training", lower):
            go()
    except MMToolError as error:
        if error.code == LOSS:
            keep()
        raise
    if best_state:
        graph.load_state_dict(best_state)
    graph.to("cpu").eval()
    return Outcome(state.best_epoch, state.best, state.curve)


def _epoch(graph: Graph, part: Part, source: Source, feed: Feed, recipe: Recipe, optimizer: torch.optim.Optimizer,
           schedule: torch.optim.lr_scheduler.LambdaLR, scaler: Any, state: State, ids: Sequence[str]) -> Iterator[float]:
    """The rest of an epoch; yields the loss after every step of the optimizer, when the state can be kept."""
    graph.train()
    device = source.device
    chance = chance_of(recipe.seed, state.epoch, 0)
    order = shuffled(part.fit, chance, part.table.inputs)
    batches = _by_length(order, recipe.batch_size, feed.lengths, chance) if graph.live else _split(order, recipe.batch_size)
    prepared = feed.batches([at.tolist() for at in batches[state.step :]], state.epoch) if graph.live else None
    sizes = range(0, len(batches), recipe.accumulate)
    lasts = {min(start + recipe.accumulate, len(batches)) for start in sizes}
    gathered = 0.0
    left = batches[state.step :]
    for at, inputs in zip(left, source.batches(left), strict=True):
        chance = chance_of(recipe.seed, state.epoch, state.step + 1)
        torch.manual_seed(chance.initial_seed())  # dropout, and whatever an encoder draws in training
        if prepared is not None:
            with _autocast(device, recipe):
                inputs |= graph.tokens(next(prepared), device)
        inputs = drop_inputs(inputs, recipe.modality_dropout, chance)
        with _autocast(device, recipe):
            losses = graph.losses(inputs, answers_on(part.table.answers, at, device))
            loss = graph.weigh(losses)
            if recipe.l1:
                loss = loss + recipe.l1 * graph.l1()
        value = float(losses.detach().sum())
        first = state.step - state.step % recipe.accumulate
        if not math.isfinite(value):
            state.step = first  # where the optimizer stepped last
            raise not_finite("loss", value, state.epoch, [ids[i] for i in at.tolist()])
        share = min(first + recipe.accumulate, len(batches)) - first
        scaler.scale(loss / share).backward()
        gathered += value
        state.step += 1
        if state.step in lasts:
            scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(graph.parameters(), recipe.clip or math.inf)
            if not scaler.is_enabled() and not math.isfinite(norm):  # fp16 overflows now and then, and skips the step
                state.step = first
                raise not_finite("gradient", float(norm), state.epoch, [ids[i] for i in at.tolist()])
            _take_step(scaler, optimizer, recipe)
            scaler.update()
            optimizer.zero_grad()
            schedule.step()
            state.total += gathered
            gathered = 0.0
            yield value


def _take_step(scaler: Any, optimizer: torch.optim.Optimizer, recipe: Recipe) -> None:
    try:
        scaler.step(optimizer)
    except RuntimeError as error:
        if "without overflow" not in str(error):
            raise
        raise MMToolError(f"a step of --lr {recipe.lr} is no float32 number", "lower --lr", code=LOSS) from error


def not_finite(what: str, value: float, epoch: int, rows: Sequence[str]) -> MMToolError:
    """The error that names the rows of a batch."""
    named = ", ".join(map(repr, rows[:5])) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")
    return MMToolError(f"the {what} is {value} in epoch {epoch}, in the batch of the rows {named}",
                       "lower --lr, or look at these rows", code=LOSS)


def drop_inputs(inputs: dict[str, Tokens], share: float, generator: torch.Generator) -> dict[str, Tokens]:
    """Each input of each row is missing with probability `share`; a row never loses its last one."""
    masks = drop_masks({n: t.mask for n, t in inputs.items()}, share, generator)
    return {n: Tokens(t.values, masks[n]) for n, t in inputs.items()}


def drop_masks(masks: dict[str, Tensor], share: float, generator: torch.Generator) -> dict[str, Tensor]:
    """The same of masks `[..., B, T_i]`, with one draw for all that stands before B."""
    if not share or len(masks) < 2:
        return masks
    names = sorted(masks)
    present = torch.stack([masks[n].any(-1) for n in names], -1)  # [..., B, M]
    kept = present & (torch.rand(present.shape[-2:], generator=generator) >= share).to(present.device)
    kept = torch.where(kept.any(-1, keepdim=True), kept, present)
    return {n: masks[n] & kept[..., i : i + 1] for i, n in enumerate(names)}


def chance_of(seed: int, epoch: int, step: int) -> torch.Generator:
    """The generator of one step; step 0 orders the rows of the epoch."""
    mixed = (seed * 1_000_003 + epoch) * 1_000_003 + step
    return torch.Generator().manual_seed(mixed % (1 << 63))


def _by_length(order: Tensor, size: int, lengths: Tensor, chance: torch.Generator) -> list[Tensor]:
    """Batches of rows of about one length: each run of `WINDOW` batches is sorted, then all batches are shuffled."""
    if len(set(lengths.tolist())) < 2:
        return _split(order, size)
    windows = torch.split(order, WINDOW * size)
    batches = _split(torch.cat([w[lengths[w].argsort(stable=True)] for w in windows]), size)
    return [batches[i] for i in torch.randperm(len(batches), generator=chance).tolist()]


def _split(order: Tensor, size: int) -> list[Tensor]:
    return list(torch.split(order, split_sizes(len(order), size)))


def split_sizes(rows: int, size: int) -> list[int]:
    """Rows of each batch; a single row left over joins the last one, since a batch norm can do nothing with it."""
    whole, rest = divmod(rows, size)
    if whole and rest == 1:
        return [size] * (whole - 1) + [size + 1]
    return [size] * whole + ([rest] if rest else [])


def steps_of(rows: int, recipe: Recipe) -> int:
    """Steps of the optimizer in all epochs."""
    return recipe.epochs * math.ceil(_count(rows, recipe.batch_size) / recipe.accumulate)


def _count(rows: int, size: int) -> int:
    return max(1, len(split_sizes(rows, size)))


def _autocast(device: torch.device, recipe: Recipe) -> contextlib.AbstractContextManager[object]:
    if recipe.precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if recipe.precision == "bf16" else torch.float16)


def _snapshot(graph: Graph, optimizer: torch.optim.Optimizer, schedule: Any, scaler: Any, state: State,
              best: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors = {f"graph/{k}": v for k, v in graph.state_dict().items()}
    tensors |= {f"best/{k}": v for k, v in best.items()}
    moments = optimizer.state_dict()["state"]
    tensors |= {f"optimizer/{number}/{k}": v for number, found in moments.items() for k, v in found.items() if v is not None}
    return tensors, {"state": state.__dict__, "steps": schedule.last_epoch, "scaler": scaler.state_dict()}


def _restore(kept: dict[str, Any], graph: Graph, optimizer: torch.optim.Optimizer, schedule: Any,
             scaler: Any) -> tuple[State, dict[str, Tensor]]:
    def under(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in kept["tensors"].items() if k.startswith(prefix)}

    graph.load_state_dict(under("graph/"))
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in under("optimizer/").items():
        number, _, name = key.partition("/")
        moments.setdefault(int(number), {})[name] = value
    facts = kept["facts"]
    schedule.last_epoch = facts["steps"]
    for group, base, factor in zip(optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
        group["lr"] = base * factor(facts["steps"])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    scaler.load_state_dict(facts["scaler"])
    return State(**facts["state"]), under("best/")
