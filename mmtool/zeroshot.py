"""Zero-shot classification: labels and inputs meet in a space that their encoders share.

For an input m with vector v_m and a label with vector u_k, the evidence is s_mk = cos(v_m, u_k) / t_m, where t_m is the
temperature that the encoder states. Evidence adds up over the inputs that are there, p = softmax(sum_m s_m): a product
of experts with equal priors. An input's contribution to label k is s_mk minus its mean over the labels, in nats.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtool import encoding
from mmtool.engine import Engine, choose_batch_size
from mmtool.errors import UsageError
from mmtool.extraction import sources
from mmtool.extraction.blocks import Encoded, run_blocks
from mmtool.extraction.sources import Reading
from mmtool.features.format import numerics
from mmtool.features.part import Part
from mmtool.inference.choice import choose_backend
from mmtool.inputs import STARTER, Input, default_encoder
from mmtool.manifest.open import Manifest
from mmtool.manifest.rows import Row
from mmtool.media.limits import Limits
from mmtool.readers import Kept

BATCH_SIZE = 32
LABELS = "=labels"
"""The name under which labels are encoded; no input can have it."""


@dataclass(frozen=True)
class Guess:
    """One row's outcome. `probabilities [K]` and `contributions` (nats for the best label) are None without an input."""

    id: str
    probabilities: Tensor | None
    contributions: dict[str, float]
    errors: dict[str, str]


class ZeroShot:
    """Inputs, labels and the space they share, loaded once."""

    def __init__(self, inputs: Sequence[Input], labels: Sequence[str] | None, *, base: Path, device: torch.device,
                 limits: Limits, seed: int, use_cache: bool) -> None:
        self.base, self.device, self.limits, self.seed, self.use_cache = base, device, limits, seed, use_cache
        self.readings: list[Reading] = []
        self.engines: dict[str, Engine] = {}
        self._known: dict[str, tuple[Reading, Engine]] = {}
        self.kept: Kept | None = None
        """Readers that stay from one call of `guess` to the next."""
        for item in inputs:
            self.add(item)
        labeller = self._labeller()
        self.labels = list(labels or self.readings[0].built.encoder.labels or labeller.built.encoder.labels)
        if len(self.labels) < 2:
            raise UsageError("there are fewer than two labels to choose from", "give them: --labels cat,dog,car")
        self.vectors = self._label_vectors(labeller)  # [K, S]

    @property
    def space(self) -> str | None:
        """The space in which everything is compared."""
        return self.readings[0].built.encoder.space

    def add(self, item: Input) -> None:
        """One more input. Raises UsageError where its encoder states no space, or another one."""
        reading = self._reading(item)
        if self.readings and reading.built.encoder.space != self.space:
            raise UsageError(f"{self.readings[0].built.spec} works in space {self.space!r}, {reading.built.spec} in "
                             f"{reading.built.encoder.space!r}: they cannot be compared",
                             "choose encoders of one space with -e")
        self.readings.append(reading)

    def _reading(self, item: Input) -> Reading:
        if item.encoder not in self._known:  # labels and texts, most often, go through one encoder
            built = encoding.build(item.encoder, seed=self.seed)
            if built.encoder.space is None:
                raise UsageError(f"encoder {built.spec} states no space, so it cannot be compared with labels",
                                 f"use one that does ({STARTER}), or train a model")
            reading = sources.finish(item, built, Manifest("", self.base, (), lambda: iter(())), keep="space",
                                     limits=self.limits, allow_random=True, device=self.device, assets=None)
            size = choose_batch_size("auto", self.device, reading.source.modality)
            self._known[item.encoder] = reading, Engine(reading.built.encoder, self.device, "fp32", size)
        reading, self.engines[item.name] = self._known[item.encoder]
        return replace(reading, input=item)

    def _labeller(self) -> Reading:
        for reading in self.readings:
            if reading.source.modality == "text":
                return self._reading(Input(LABELS, (LABELS,), reading.input.encoder))
        name = default_encoder("text")
        if name is None:
            raise UsageError(f"no text encoder of space {self.space!r} is installed to read the labels",
                             "install one, such as the starter's, or name one with -e text=ENCODER")
        reading = self._reading(Input(LABELS, (LABELS,), name))
        if reading.built.encoder.space != self.space:
            raise UsageError(f"{name} works in space {reading.built.encoder.space!r}, not {self.space!r}: it cannot read the "
                             "labels", "name a text encoder of that space with -e text=ENCODER")
        return reading

    def _label_vectors(self, labeller: Reading) -> Tensor:
        rows: list[tuple[str, Row]] = [(str(i), {LABELS: label}) for i, label in enumerate(self.labels)]
        caching = self.use_cache and len(rows) > BATCH_SIZE  # few labels are faster encoded than looked up
        vectors: list[Tensor] = []
        for _, encoded in self._run([labeller], rows, len(rows), workers=0, caching=caching):
            for label, row, status in zip(self.labels[len(vectors):], encoded[LABELS].rows, encoded[LABELS].statuses,
                                          strict=False):
                if row is None:
                    raise UsageError(f"label {label!r} cannot be read: {status}")
                vectors.append(row[0])
        return torch.nn.functional.normalize(torch.stack(vectors).float(), dim=-1)

    def _run(self, readings: Sequence[Reading], rows: Iterable[tuple[str, Row]], total: int, *, caching: bool,
             workers: int | None = None) -> Iterator[tuple[Part, dict[str, Encoded]]]:
        backend = choose_backend("auto", self.device, "fp32", total)
        stamp = numerics(self.device, "fp32", backend)
        stamps = {r.name: r.stamp(stamp) for r in readings} if caching else None
        return run_blocks(readings, self.engines, rows, total, workers=workers, stamps=stamps, kept=self.kept,
                          backend=backend)

    def guess(self, rows: Iterable[tuple[str, Row]], total: int, *, caching: bool = False) -> Iterator[Guess]:
        """The guesses for `total` rows, in their order."""
        for part, encoded in self._run(self.readings, rows, total, caching=caching and self.use_cache):
            for at, name in enumerate(part.ids):
                yield self._combine(name, at, encoded)

    def _combine(self, name: str, at: int, encoded: dict[str, Encoded]) -> Guess:
        evidence: dict[str, Tensor] = {}
        errors: dict[str, str] = {}
        for reading in self.readings:
            row, status = encoded[reading.name].rows[at], encoded[reading.name].statuses[at]
            if row is None:
                if status != "missing":
                    errors[reading.name] = status
                continue
            evidence[reading.name] = self.evidence(reading, row)
        if not evidence:
            return Guess(name, None, {}, errors)
        total = torch.stack(list(evidence.values())).sum(0)  # [K]
        best = int(total.argmax())
        return Guess(name, total.softmax(0), {n: float(e[best]) for n, e in evidence.items()}, errors)

    def evidence(self, reading: Reading, row: Tensor) -> Tensor:
        """What an encoded cell `[1, S]` says for each label, `[K]`, in nats."""
        v = torch.nn.functional.normalize(row[0].float(), dim=-1)  # [S]
        scores: Tensor = self.vectors @ v / reading.built.encoder.space_temperature  # [K]
        return scores - scores.mean()


def as_json(guess: Guess, labels: Sequence[str], top: int) -> dict[str, Any]:
    """A guess as an object of a predictions file; `probabilities` holds the best `top` labels."""
    found: dict[str, Any] = {"id": guess.id, "prediction": None, "probability": None, "probabilities": {},
                             "inputs": sorted(guess.contributions), "contributions": {}}
    if guess.probabilities is not None:
        best = torch.topk(guess.probabilities, min(top, len(labels)))
        pairs = [(labels[i], round(p, 6)) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)]
        found |= {"prediction": pairs[0][0], "probability": pairs[0][1], "probabilities": dict(pairs),
                  "contributions": {n: round(c, 4) for n, c in guess.contributions.items()}}
    if guess.errors:
        found["errors"] = guess.errors
    return found
