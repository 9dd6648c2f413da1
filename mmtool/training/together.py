"""Training many networks of one architecture at once: folds, seeds and settings side by side in stacked parameters.

Each takes the steps that `descend.train` would take with it alone, on rows in the same order, with the same inputs and units
dropped; only the last bits of the sums differ. Frozen inputs only. Shapes: R networks, B rows of a batch, K outputs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmtool import devices
from mmtool.api import Tokens
from mmtool.errors import MMToolError
from mmtool.mapped import is_mapped
from mmtool.network import Network, take
from mmtool.ragged import is_ragged
from mmtool.training import affine, descend
from mmtool.training.batches import shuffled
from mmtool.training.data import Answers, Part
from mmtool.training.graph import Graph
from mmtool.training.recipe import Recipe, rate

LOWER = "free some, name fewer fusions, or use --device cpu"
MOST_BYTES = 1 << 29
"""Of inputs that are scaled ahead of the training."""


@dataclass
class One:
    """A network with its scales, the rows that it learns and is judged by, and how; trained in place.

    `ids`: what errors call the rows of the part's table.
    """

    network: Network
    part: Part
    recipe: Recipe
    ids: Sequence[str] = ()


def train(runs: Sequence[One], device: torch.device) -> list[descend.Outcome]:
    """Train them all, like with like together; each keeps its best epoch. Raises MMToolError for a loss that is no number.

    Each must hold out rows. A fusion or task that vmap cannot go through is trained one network after the other.
    """
    groups: dict[Any, list[int]] = {}
    for number, run in enumerate(runs):
        assert run.part.held, "what is compared is judged by held-out rows"
        groups.setdefault(_kind(run), []).append(number)
    found: dict[int, descend.Outcome] = {}
    for numbers in groups.values():
        some = [runs[n] for n in numbers]
        for n, outcome in zip(numbers, _train(some, device), strict=True):
            found[n] = outcome
    return [found[n] for n in range(len(runs))]


def applies(recipe: Recipe) -> bool:
    """Is it a recipe that this module knows? Others are descended one by one."""
    return recipe.accumulate == 1 and recipe.precision == "fp32"


def _kind(run: One) -> Any:
    """Equal for networks whose steps have equal shapes and equal chance."""
    shapes = tuple((k, v.shape) for k, v in run.network.state_dict().items())
    decays = 0.0 if run.recipe.optimizer == "adamw" else run.recipe.weight_decay
    recipe = {**run.recipe.__dict__, "weight_decay": decays}
    sizes = len(descend.split_sizes(len(run.part.fit), run.recipe.batch_size))
    return shapes, tuple(recipe.items()), sizes, tuple(t.dim for _, t in sorted(run.part.table.inputs.items()))


def _train(runs: list[One], device: torch.device) -> list[descend.Outcome]:
    if len(runs) > 1:
        begun = copy.deepcopy([run.network.state_dict() for run in runs])
        try:
            return _Stack(runs, device).go()
        except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
            if (failed := devices.device_error(error, "training", LOWER)) is not None:
                raise failed from error
            for run, state in zip(runs, begun, strict=True):
                run.network.load_state_dict(state)
    with devices.watched("training", LOWER):
        return [_Stack([run], device).go()[0] for run in runs]


class _Loss(nn.Module):
    """What is descended, and what the heads say; one module, so that one set of names serves both."""

    def __init__(self, network: Network, recipe: Recipe) -> None:
        super().__init__()
        learned = len(network.columns) > 1 and recipe.loss_weighting == "uncertainty"
        self.graph = Graph(network, {}, {}, learned_weighting=learned)
        self.l1 = recipe.l1

    def forward(self, inputs: dict[str, tuple[Tensor, Tensor]],
                answers: dict[str, tuple[Tensor, Tensor, Tensor]] | None) -> Any:
        tokens = {name: Tokens(*pair) for name, pair in inputs.items()}
        if answers is None:
            return {head.column: head(tokens) for head in self.graph.network.heads()}
        losses = self.graph.losses(tokens, {column: Answers(*a) for column, a in answers.items()})
        loss = self.graph.weigh(losses)
        if self.l1:
            loss = loss + self.l1 * self.graph.l1()
        return loss, losses.sum()


@dataclass
class _Stack:
    """R networks as one; those that are done leave it."""

    runs: list[One]
    device: torch.device
    active: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.recipe = self.runs[0].recipe
        self.active = list(range(len(self.runs)))
        modules = [_Loss(run.network, run.recipe).to(self.device).train() for run in self.runs]
        self.whole = modules
        self.base = copy.deepcopy(modules[0])
        self.scaled = self._scale_ahead()
        self.linear = affine.put_in(self.base) if len(modules) > 1 else set()
        params, buffers = stack_module_state(modules)
        self.params = {k: nn.Parameter(self._turned(k, v.detach())) for k, v in params.items()}
        self.buffers = {k: v.detach() for k, v in buffers.items()}
        self.optimizer = self._optimizer()
        self.best = {k: v.detach().clone() for k, v in self.params.items()}  # of all runs, done or not
        self.best_buffers = {k: v.clone() for k, v in self.buffers.items()}
        self.held = self._held_inputs()

    def _scale_ahead(self) -> dict[str, Tokens] | None:
        """Every network's inputs by its own scales, `[R N, T, D]`, once instead of in each step; None where they are many."""
        tables = [run.part.table.inputs for run in self.runs]
        lazy = is_ragged(tables[0]) or is_mapped(tables[0])
        size = MOST_BYTES if lazy else 4 * sum(t.values.numel() for table in tables for t in table.values())
        if size >= MOST_BYTES:
            return None
        found = {}
        for at, name in enumerate(self.runs[0].network.names):
            with torch.no_grad():
                each = [run.network.front.scales[at](table[name]) for run, table in zip(self.runs, tables, strict=True)]
            found[name] = Tokens(torch.cat([t.values for t in each]), torch.cat([t.mask for t in each]))
        self.base.graph.network.front.scales = nn.ModuleList(nn.Identity() for _ in found)
        return found

    def _turned(self, name: str, stacked: Tensor) -> Tensor:
        """Weights of linear layers are kept as `[R, D, H]`, which is how they are multiplied fastest; and back."""
        return (stacked.transpose(1, 2) if name in self.linear else stacked).contiguous()

    def _optimizer(self) -> torch.optim.Optimizer:
        """Over the stacked parameters. Where decay differs from network to network, it comes before the step."""
        decay = 0.0 if self._own_decay() else self.recipe.weight_decay
        groups = [{"params": [p for p in self.params.values() if p.ndim > 2], "weight_decay": decay},
                  {"params": [p for p in self.params.values() if p.ndim <= 2], "weight_decay": 0.0}]
        groups = [g for g in groups if g["params"]]
        if self.recipe.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=self.recipe.lr, momentum=0.9, nesterov=True)
        kind = torch.optim.AdamW if self.recipe.optimizer == "adamw" else torch.optim.Adam
        return kind(groups, lr=self.recipe.lr, fused=True)

    def _call(self, inputs: dict[str, tuple[Tensor, Tensor]], answers: dict[str, tuple[Tensor, Tensor, Tensor]] | None,
              some: Sequence[int]) -> Any:
        """The module on the batches of some of the active networks; what it gives, with their number in front."""
        buffers = self.buffers
        state: dict[str, Tensor] = {**self.params, **buffers}
        if len(self.runs) == 1:
            first = {k: v[0] for k, v in state.items()}
            found = functional_call(self.base, first, (_at(inputs), None if answers is None else _at(answers)))
            return {k: v.unsqueeze(0) for k, v in found.items()} if answers is None else tuple(f.unsqueeze(0) for f in found)
        if len(some) < len(self.active):
            index = torch.tensor(some, device=self.device)
            state = {k: v[index] for k, v in state.items()}
            buffers = {k: state[k] for k in buffers}
        state |= {k: state[k].transpose(1, 2) for k in self.linear}

        def one(params: Mapping[str, Tensor], x: Any, y: Any) -> Any:
            return functional_call(self.base, dict(params), (x, y))

        with _plain_attention():
            found = vmap(one, in_dims=(0, 0, None if answers is None else 0), randomness="same")(state, inputs, answers)
        if buffers is not self.buffers:  # what batch norms gathered
            for k, v in buffers.items():
                self.buffers[k][index] = v
        return found

    def go(self) -> list[descend.Outcome]:
        """Every epoch of every network, and its best weights put back into it."""
        states = [descend.State(best_epoch=self.recipe.epochs) for _ in self.runs]
        sizes = [descend.split_sizes(len(run.part.fit), self.recipe.batch_size) for run in self.runs]
        steps = descend.steps_of(len(self.runs[0].part.fit), self.recipe)
        taken = 0
        with torch.random.fork_rng(devices=[]):
            for epoch in range(1, self.recipe.epochs + 1):
                orders = {r: shuffled(self.runs[r].part.fit, descend.chance_of(self.recipe.seed, epoch, 0), {})
                          for r in self.active}
                totals = torch.zeros(len(self.active))
                for step in range(len(sizes[0])):
                    rows = [torch.split(orders[r], sizes[r])[step] for r in self.active]
                    totals += self._step(rows, epoch, step, rate(taken, steps, self.recipe))
                    taken += 1
                self._judge(states, epoch, totals / len(sizes[0]))
                if not self.active:
                    break
        for number, run in enumerate(self.runs):
            state = {k: self._turned(k, v[number : number + 1])[0] for k, v in self.best.items()}
            self.whole[number].load_state_dict(state | {k: v[number] for k, v in self.best_buffers.items()})
            run.network.to("cpu").eval()
        return [descend.Outcome(s.best_epoch, s.best, s.curve) for s in states]

    def _step(self, rows: list[Tensor], epoch: int, step: int, factor: float) -> Tensor:
        """One step of the optimizer, for each network on its own rows; the losses `[R]`."""
        told = torch.zeros(len(rows))
        self.base.train()
        for size in sorted({len(at) for at in rows}):  # of one size together, since units are dropped by position
            some = [at for at, own in enumerate(rows) if len(own) == size]
            chance = descend.chance_of(self.recipe.seed, epoch, step + 1)
            torch.manual_seed(chance.initial_seed())
            batch = torch.stack([rows[at] for at in some])  # [r, B]
            inputs = self._gather(batch, some)
            masks = descend.drop_masks({n: mask for n, (_, mask) in inputs.items()}, self.recipe.modality_dropout, chance)
            inputs = {n: (values, masks[n]) for n, (values, _) in inputs.items()}
            loss, losses = self._call(inputs, self._answers(batch, some), some)
            loss.sum().backward()
            told[some] = losses.detach().cpu()
        if not bool(torch.isfinite(told).all()):
            at = int((~torch.isfinite(told)).nonzero()[0])
            ids = self.runs[self.active[at]].ids
            raise descend.not_finite("loss", float(told[at]), epoch, [ids[i] if ids else str(i) for i in rows[at].tolist()])
        self._clip()
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.lr * factor
        if self._own_decay():
            self._decay(self.recipe.lr * factor)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return told

    def _gather(self, rows: Tensor, some: Sequence[int]) -> dict[str, tuple[Tensor, Tensor]]:
        """Every input's tokens of rows `[r, B]` of some of the active networks as `[r, B, T, D]`, with masks."""
        tables = [self.runs[self.active[at]].part.table for at in some]
        first = tables[0].inputs
        if self.scaled is not None:
            starts = torch.tensor([self.active[at] * len(tables[0]) for at in some]).unsqueeze(1)
            found = take(self.scaled, (rows + starts).flatten())
            return {n: (t.values.reshape(*rows.shape, *t.values.shape[1:]).to(self.device),
                        t.mask.reshape(*rows.shape, -1).to(self.device)) for n, t in found.items()}
        if all(table.inputs[n] is t for table in tables for n, t in first.items()):
            found = {n: t.padded() for n, t in take(first, rows.flatten()).items()}
            return {n: (t.values.reshape(*rows.shape, *t.values.shape[1:]).to(self.device),
                        t.mask.reshape(*rows.shape, -1).to(self.device)) for n, t in found.items()}
        parts = [{n: t.padded() for n, t in take(table.inputs, at).items()} for table, at in zip(tables, rows, strict=True)]
        return {n: (_stacked([p[n].values for p in parts]).to(self.device),
                    _stacked([p[n].mask for p in parts]).to(self.device)) for n in first}

    def _answers(self, rows: Tensor, some: Sequence[int]) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        found = {}
        for column in self.runs[0].part.table.answers:
            own = [self.runs[self.active[at]].part.table.answers[column].at(r) for at, r in zip(some, rows, strict=True)]
            found[column] = (torch.stack([a.y for a in own]).to(self.device),
                             torch.stack([a.lengths for a in own]).to(self.device),
                             torch.stack([a.known for a in own]).to(self.device))
        return found

    def _clip(self) -> None:
        """Each network's gradients to a norm of at most `clip`."""
        grads = [p.grad for p in self.params.values() if p.grad is not None]
        if not self.recipe.clip or not grads:
            return
        norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in grads]).norm(dim=0)  # [R]
        factors = (self.recipe.clip / (norms + 1e-6)).clamp(max=1)
        if bool((factors < 1).any()):
            for g in grads:
                g.mul_(factors.view(-1, *[1] * (g.ndim - 1)))

    def _own_decay(self) -> bool:
        return len({run.recipe.weight_decay for run in self.runs}) > 1

    def _decay(self, lr: float) -> None:
        decays = torch.tensor([self.runs[r].recipe.weight_decay for r in self.active], device=self.device)
        with torch.no_grad():
            for p in self.params.values():
                if p.ndim > 2:
                    p.mul_((1 - lr * decays).view(-1, *[1] * (p.ndim - 1)))

    def _held_inputs(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The held-out rows of the active networks, padded to the most, `[R, H, T, D]`."""
        most = max(len(self.runs[r].part.held) for r in self.active)
        rows = [self.runs[r].part.held for r in self.active]
        return self._gather(torch.tensor([[*at, *at[:1] * (most - len(at))] for at in rows]), range(len(rows)))

    def _judge(self, states: list[descend.State], epoch: int, fit: Tensor) -> None:
        """Held-out losses; the best weights are kept, and who has made no progress for long leaves."""
        self.base.eval()
        with torch.no_grad():
            outputs = self._call(self.held, None, range(len(self.active)))
        left = []
        better: list[tuple[int, int]] = []
        for at, number in enumerate(self.active):
            run, state = self.runs[number], states[number]
            held = 0.0
            for head in run.network.heads():
                answers = run.part.table.answers[head.column].at(torch.as_tensor(run.part.held))
                loss = answers.loss(head.task, outputs[head.column][at, : len(run.part.held)].float().cpu())
                held += float(loss.sum() / answers.known.sum().clamp(min=1))
            if not math.isfinite(held):
                raise MMToolError(f"the held-out loss is {held} after epoch {epoch}", "lower --lr", code=descend.LOSS)
            if held < state.best:
                state.best, state.best_epoch = held, epoch
                better.append((at, number))
            state.curve.append([float(fit[at]), held])
            if epoch - state.best_epoch < self.recipe.patience and epoch < self.recipe.epochs:
                left.append(at)
        self._keep(better)
        if len(left) < len(self.active):
            self._narrow(left)

    def _keep(self, better: Sequence[tuple[int, int]]) -> None:
        if better:
            at, number = (torch.tensor(x, device=self.device) for x in zip(*better, strict=True))
            for kept, current in ((self.best, self.params), (self.best_buffers, self.buffers)):
                for k, v in current.items():
                    kept[k][number] = v.detach()[at]

    def _narrow(self, left: list[int]) -> None:
        """Go on with some of the networks."""
        self.active = [self.active[at] for at in left]
        if not left:
            return
        index = torch.tensor(left, device=self.device)
        old = {k: (p, self.optimizer.state[p]) for k, p in self.params.items()}
        self.params = {k: nn.Parameter(p.detach()[index]) for k, p in self.params.items()}
        self.buffers = {k: v[index] for k, v in self.buffers.items()}
        self.optimizer = self._optimizer()
        for k, (before, state) in old.items():
            self.optimizer.state[self.params[k]] = {
                name: v[index] if isinstance(v, Tensor) and v.shape == before.shape else v for name, v in state.items()}
        self.held = {n: (values[index], mask[index]) for n, (values, mask) in self.held.items()}


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention in plain steps, which vmap goes through; the fused ones it would call network by network."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """`[B, T_r, ...]` of R networks -> `[R, B, T, ...]`, padded with zeros to the most tokens."""
    most = max(t.shape[1] for t in tensors)
    wide = [torch.cat([t, t.new_zeros(t.shape[0], most - t.shape[1], *t.shape[2:])], 1) for t in tensors]
    return torch.stack(wide)


def _at(nested: Mapping[str, tuple[Tensor, ...]]) -> Any:
    return {name: tuple(t[0] for t in tensors) for name, tensors in nested.items()}
