"""What gradient descent trains: the network, and the encoders in front of it whose weights change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mmtool.api import Encoder, Tokens
from mmtool.network import Network, take
from mmtool.ragged import Ragged, chunks, padded
from mmtool.training.data import Answers, Table
from mmtool.training.live import Feed, Keep, Prepared

CHUNK = 4096
"""Rows of frozen features that go through the network at once."""


class Graph(nn.Module):
    """Live encoders and the network behind them. `widths`, `keeps`: how wide and what each live encoder's output is."""

    def __init__(self, network: Network, encoders: Mapping[str, Encoder], widths: Mapping[str, int],
                 keeps: Mapping[str, Keep] | None = None, *, learned_weighting: bool = False) -> None:
        super().__init__()
        self.network = network
        self.live = sorted(encoders)
        self.encoders = nn.ModuleList(encoders[name] for name in self.live)
        self.widths, self.keeps = dict(widths), dict(keeps or {})
        self.log_variances = nn.Parameter(torch.zeros(len(network.columns))) if learned_weighting else None

    def encoder(self, name: str) -> Encoder:
        """One of the live encoders."""
        found = self.encoders[self.live.index(name)]
        assert isinstance(found, Encoder)
        return found

    def tokens(self, prepared: Mapping[str, Prepared], device: torch.device) -> dict[str, Tokens]:
        """Prepared cells through their encoders."""
        return {name: prepared[name].encode(self.encoder(name), device, self.widths[name], self.keeps.get(name, "pooled"))
                for name in self.live}

    def losses(self, inputs: Mapping[str, Tokens], answers: Mapping[str, Answers]) -> Tensor:
        """The mean loss of each target over the rows that have it, `[T]`; towers learn each by itself, where they are there."""
        outputs = self.network(inputs)
        present = {name: tokens.present for name, tokens in inputs.items()}
        total = []
        for head in self.network.heads():
            found = answers[head.column]
            if self.network.has_towers:
                rows = torch.stack([found.loss(head.task, out).masked_fill(~present[name], 0)
                                    for name, out in outputs[head.column].items()]).sum(0)
            else:
                rows = found.loss(head.task, outputs[head.column]["fused"])
            total.append(rows.sum() / found.known.sum().clamp(min=1))
        return torch.stack(total)

    def l1(self) -> Tensor:
        """Σ|w| over all weights; biases are left free."""
        return torch.stack([p.abs().sum() for p in self.parameters() if p.ndim > 1]).sum()

    def weigh(self, losses: Tensor) -> Tensor:
        """One number to descend: the sum, or Σ exp(-s) L + s / 2 with a learned s = log σ² each (Kendall et al., 2018)."""
        if self.log_variances is None:
            return losses.sum()
        return ((-self.log_variances).exp() * losses + self.log_variances / 2).sum()


def encode(graph: Graph, feed: Feed, table: Table, rows: Sequence[int], batch_size: int,
           device: torch.device) -> dict[str, Tokens]:
    """Every input's tokens of some rows, on the CPU, the live ones by their encoders as they are now."""
    graph.eval()
    frozen = take(table.inputs, rows)
    if not graph.live:
        return frozen
    order = feed.lengths[torch.as_tensor(rows)].argsort(stable=True)  # of one length together
    batches = [[rows[i] for i in part.tolist()] for part in torch.split(order, batch_size)]
    found: dict[str, list[Tokens]] = {name: [] for name in graph.live}
    with torch.no_grad():
        for prepared in feed.batches(batches, None):
            for name, tokens in graph.tokens(prepared, device).items():
                found[name].append(Tokens(tokens.values.float().cpu(), tokens.mask.cpu()))
    back = order.argsort()
    live = {name: _join(parts).take(back) for name, parts in found.items()}
    return {**frozen, **live}


def _join(parts: Sequence[Tokens]) -> Tokens:
    """Batches as one; ragged where they have several tokens."""
    if all(t.mask.shape[1] == 1 for t in parts):
        return Tokens(torch.cat([t.values for t in parts]), torch.cat([t.mask for t in parts]))
    return Ragged.of([row.clone() for t in parts for row in t.rows()], parts[0].dim)


def held_losses(graph: Graph, inputs: Mapping[str, Tokens], table: Table, rows: Sequence[int],
                device: torch.device) -> tuple[float, dict[str, Tensor]]:
    """The sum over targets of the mean loss on held-out rows, and each target's outputs `[n, K]` on the CPU."""
    graph.eval()
    total = 0.0
    outputs: dict[str, Tensor] = {}
    with torch.no_grad():
        for head in graph.network.heads():
            answers = table.answers[head.column].at(torch.as_tensor(rows))
            parts = [head(to_device(take(inputs, part), device)).cpu() for part in chunks(inputs, CHUNK)]
            outputs[head.column] = torch.cat(parts)
            loss = answers.loss(head.task, outputs[head.column].to(torch.float32))
            total += float(loss.sum() / answers.known.sum().clamp(min=1))
    return total, outputs


def to_device(inputs: Mapping[str, Tokens], device: torch.device) -> dict[str, Tokens]:
    """Tokens on a device, padded."""
    inputs = padded(inputs)
    if device.type == "cpu":
        return inputs
    return {name: Tokens(t.values.to(device, non_blocking=True), t.mask.to(device, non_blocking=True))
            for name, t in inputs.items()}


def answers_on(answers: Mapping[str, Answers], at: Tensor, device: torch.device) -> dict[str, Answers]:
    """The answers of a batch, on a device."""
    picked = {column: a.at(at) for column, a in answers.items()}
    return {column: Answers(a.y.to(device), a.lengths.to(device), a.known.to(device)) for column, a in picked.items()}
