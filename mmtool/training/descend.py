"""Training by gradient descent: shuffled batches, warm-up and cosine, clipping, modality dropout, early stopping."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmtool.api import Tokens
from mmtool.network import Network
from mmtool.training.data import Data

OPTIMIZERS = ("adamw", "adam", "sgd")
MAX_NORM = 1.0
WARM_UP = 0.1


@dataclass(frozen=True)
class Recipe:
    """How to descend. `patience`: epochs without a better held-out loss before it ends."""

    optimizer: str = "adamw"
    epochs: int = 100
    lr: float = 1e-3
    weight_decay: float = 0.05
    batch_size: int = 64
    patience: int = 15
    modality_dropout: float = 0.1
    seed: int = 0


def train(network: Network, fit: Data, held: Data | None, recipe: Recipe) -> tuple[Network, int, float]:
    """Train in place on `fit`; with `held`, keep the epoch with the least loss there. Returns that epoch and that loss."""
    network.fit_scales(fit.inputs)
    optimizer = _optimizer(network, recipe)
    steps = recipe.epochs * math.ceil(len(fit) / recipe.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    generator = torch.Generator().manual_seed(recipe.seed)
    best, best_epoch, best_state = float("inf"), recipe.epochs, None
    for epoch in range(1, recipe.epochs + 1):
        network.train()
        for at in torch.split(torch.randperm(len(fit), generator=generator), recipe.batch_size):
            batch = fit.rows(at)
            inputs = drop_inputs(batch.inputs, recipe.modality_dropout, generator)
            optimizer.zero_grad()
            loss_of(network, inputs, batch).mean().backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), MAX_NORM)
            optimizer.step()
            schedule.step()
        if held is None:
            continue
        network.eval()
        with torch.no_grad():
            loss = float(held.loss(network.task, network(held.inputs)).mean())
        if loss < best:
            best, best_epoch, best_state = loss, epoch, copy.deepcopy(network.state_dict())
        elif epoch - best_epoch >= recipe.patience:
            break
    if best_state is not None:
        network.load_state_dict(best_state)
    return network.eval(), best_epoch, best


def loss_of(network: Network, inputs: Mapping[str, Tokens], batch: Data) -> Tensor:
    """The loss of each row, `[B]`; towers learn each by itself, where their input is there."""
    outputs, present = network.towers(inputs)
    if network.fusion.returns != "towers":
        return batch.loss(network.task, outputs["fused"])
    losses = [batch.loss(network.task, out).masked_fill(~present[name], 0) for name, out in outputs.items()]
    return torch.stack(losses).sum(0)


def drop_inputs(inputs: dict[str, Tokens], share: float, generator: torch.Generator) -> dict[str, Tokens]:
    """Each input of each row is missing with probability `share`; a row never loses its last one."""
    if not share or len(inputs) < 2:
        return inputs
    names = sorted(inputs)
    present = torch.stack([inputs[n].present for n in names], 1)  # [B, M]
    kept = present & (torch.rand(present.shape, generator=generator) >= share)
    kept = torch.where(kept.any(1, keepdim=True), kept, present)
    return {n: Tokens(inputs[n].values, inputs[n].mask & kept[:, i : i + 1]) for i, n in enumerate(names)}


def _optimizer(network: Network, recipe: Recipe) -> torch.optim.Optimizer:
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]  # biases are not decayed
    groups = [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.lr)


def _rate(step: int, steps: int) -> float:
    warm = max(1, int(WARM_UP * steps))
    return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
