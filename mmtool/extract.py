"""`mmtool extract`: every cell of a manifest through its encoder, into a features folder."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from mmtool import cache, console, encoding, inputs
from mmtool.cache import Cache
from mmtool.engine import Engine, check_precision, choose_batch_size, choose_device
from mmtool.errors import TOO_MANY_BAD, DataError, Interrupted, UsageError
from mmtool.extraction import sources
from mmtool.extraction.blocks import BlockLoop, Encoded, in_gear
from mmtool.extraction.folder import Partial
from mmtool.extraction.sources import Headers, Reading
from mmtool.features import format as layout
from mmtool.features.format import BLOCK_ROWS, ERRORS, FORMAT, check_target, numerics, shard_rows, status_column
from mmtool.features.part import Part
from mmtool.garbage import settled
from mmtool.inference.choice import choose_backend, tier
from mmtool.inference.lanes import FEW_ROWS, threads_a_lane
from mmtool.inference.paths import DTYPES
from mmtool.locks import locked
from mmtool.manifest.open import Manifest, Scan, ids_and_rows, open_aloud, scan
from mmtool.media.limits import Limits
from mmtool.readers import Readers, default_workers

MOST_SHOWN = 10
"""Bad cells that are named where the features do not stay."""


@dataclass(frozen=True)
class Settings:
    """What the command line says of a run. `encode` holds the texts of each -e."""

    encode: tuple[str, ...] = ()
    like: Headers | None = None
    weights: tuple[str, ...] = ()
    tokens: bool = False
    max_bad: str = "1%"
    kept: bool = True
    """Do the features stay, or go when the work that they are for is done?"""
    allow_random: bool = False
    device: str = "auto"
    precision: str = "fp32"
    backend: str = "auto"
    batch_size: str = "auto"
    workers: int | None = None
    use_cache: bool = True
    limits: Limits = field(default_factory=Limits)
    seed: int = 0


@dataclass(frozen=True)
class Result:
    """What came of it: counts for each input (ok, missing, bad, cached), and rows with a bad cell."""

    features: Path
    rows: int
    bad_rows: int
    counts: dict[str, dict[str, int]]
    exit_code: int
    paths: dict[str, str] = field(default_factory=dict)
    """How the encoder of each input ran, where it had to: plain, traced, compiled or openvino."""

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return {"features": str(self.features), "rows": self.rows, "bad_rows": self.bad_rows, "inputs": self.counts,
                "paths": self.paths}


def extract(data: str | Manifest, output: Path, settings: Settings) -> Result:
    """Read a manifest, encode it, write the features folder; resumes what a killed run left.

    `data`: its name, or what was opened before, since stdin is there only once.
    """
    started = time.monotonic()
    allowed_bad = parse_max_bad(settings.max_bad)
    check_target(output)
    device = choose_device(settings.device)
    choose_batch_size(settings.batch_size, device)
    check_precision(settings.precision)
    choose_backend(settings.backend, device, settings.precision, 0)
    with locked(output):
        result = _extract(data, output, settings, device)
    if result.bad_rows > allowed_bad(result.rows):
        result = replace(result, exit_code=TOO_MANY_BAD)
    _report(result, output, time.monotonic() - started, settings)
    return result


def _extract(data: str | Manifest, output: Path, settings: Settings, device: torch.device) -> Result:
    manifest = data if isinstance(data, Manifest) else open_aloud(data)
    about = scan(manifest)
    if taken := [c for c in about.columns if c.startswith(status_column(""))]:
        raise DataError(f"{manifest.name} has a column {taken[0]!r}, a name that features keep for themselves", "rename it",
                        code="E_MANIFEST")
    readings = _readings(manifest, about, settings, device)
    partial = Partial(output, pooled=all(r.keep == "pooled" for r in readings))
    run = _Run(manifest, about, settings, device, readings, partial)
    try:
        counts, bad_rows, cached = run.go()
    except KeyboardInterrupt:
        if not settings.kept:
            raise
        kept = f"{run.done} of {about.rows} rows are kept" if partial.folder.exists() else "nothing is kept"
        raise Interrupted(f"interrupted; the same command goes on where it stopped: {kept}") from None
    return Result(output, about.rows, bad_rows, {n: {**counts[n], "cached": cached[n]} for n in sorted(counts)}, 0,
                  run.paths)


def parse_max_bad(text: str) -> Callable[[int], float]:
    """`1%` or a number of rows -> a function of the rows of the manifest. Raises UsageError."""
    try:
        number = float(text.removesuffix("%"))
        if not 0 <= number < float("inf"):
            raise ValueError
    except ValueError:
        raise UsageError(f"--max-bad {text!r} is neither a number of rows nor a percentage",
                         "write --max-bad 5, or --max-bad 1%") from None
    return (lambda rows: number / 100 * rows) if text.endswith("%") else (lambda rows: number)


def _readings(manifest: Manifest, about: Scan, settings: Settings, device: torch.device) -> list[Reading]:
    weights = sources.parse_weights(settings.weights)
    if settings.like is not None:
        if settings.encode or settings.tokens:
            raise UsageError(f"--like and {'-e' if settings.encode else '--tokens'} exclude each other",
                             "--like takes the inputs, and what is kept of them, from the other features")
        return sources.like(settings.like, manifest, about.columns, weights, limits=settings.limits, seed=settings.seed,
                            device=device)
    if weights:
        raise UsageError("--weights belongs to --like", "with -e, write -e photo=timm:resnet18,weights=FILE")
    if settings.encode:
        chosen = inputs.parse_all(settings.encode, about.columns)
    else:
        chosen = inputs.choose_aloud(manifest, about.columns)
    return [sources.build(item, manifest, keep="tokens" if settings.tokens else "pooled", limits=settings.limits,
                          seed=settings.seed, allow_random=settings.allow_random, device=device) for item in chosen]


class _Run:
    """One run of the block loop into a partial folder."""

    def __init__(self, manifest: Manifest, about: Scan, settings: Settings, device: torch.device,
                 readings: list[Reading], partial: Partial) -> None:
        self.manifest, self.about, self.settings, self.device = manifest, about, settings, device
        self.readings = {r.name: r for r in sorted(readings, key=lambda r: r.name)}
        self.partial = partial
        self.backend = choose_backend(settings.backend, device, settings.precision, about.rows)
        if settings.backend not in ("auto", self.backend):
            console.warn(f"--backend {settings.backend}: {about.rows} rows do not repay its start, so PyTorch computes them; "
                         f"it needs more than {FEW_ROWS}")
        self.numerics = numerics(device, settings.precision, self.backend)
        self.paths: dict[str, str] = {}
        self.stamps = {n: r.stamp(self.numerics) for n, r in self.readings.items()}

    @property
    def done(self) -> int:
        """Rows that are written; the last shard is seldom full."""
        return min(self.partial.rows_done, self.about.rows)

    def go(self) -> tuple[dict[str, Counter[str]], int, Counter[str]]:
        """Fill the folder and put it in place; returns each input's counts, the bad rows, and each input's cached."""
        if self.settings.use_cache and not self.partial.folder.exists():  # a resumed run needs the packs it began with
            cache.evict(cache.home())
        packs = {n: cache.packs_of(cache.home() / stamp) for n, stamp in self.stamps.items()} if self.settings.use_cache else {}
        threads = threads_a_lane() if self.about.rows > FEW_ROWS else torch.get_num_threads()
        sizes = {n: choose_batch_size(self.settings.batch_size, self.device, r.source.modality)
                 for n, r in self.readings.items()}
        state = self.partial.begin({"plan": self._plan(), "batch_size": sizes, "threads": threads, "packs": packs})
        caches = self._caches(state["packs"])  # of a resumed run those that it began with: others have been added since
        known = self.partial.notes("path")
        if self.about.rows <= FEW_ROWS:
            torch.set_num_threads(state["threads"])
        for name, reading in self.readings.items():
            if reading.fitted:
                self.partial.write_tensors(name, layout.ASSETS, reading.built.encoder.assets())
            if reading.plain is not None:
                self.partial.write_tensors(name, layout.WEIGHTS, dict(reading.built.encoder.state_dict()))
        done = self.done
        self._check_space(self.about.rows - done)
        if done:
            console.say(f"{done} of {self.about.rows} rows were done before; going on")
        workers, modalities = self.settings.workers, [r.source.modality for r in self.readings.values()]
        loop_workers = default_workers(self.about.rows - done, modalities) if workers is None else workers
        loop = BlockLoop(list(self.readings.values()), {}, caches)
        # Readers before the engine touches a GPU, which does not survive a fork.
        with settled(), Readers(loop_workers, loop.jobs) as pool:
            loop.engines = {n: Engine(r.built.encoder, self.device, self.settings.precision, state["batch_size"][n],
                                      f"input {n!r}, encoder {r.built.spec}", known=known.get(n))
                            for n, r in self.readings.items()}
            with in_gear(list(loop.engines.values()), self.about.rows, self.backend, state["threads"]):
                self._fill(loop, pool, done, caches)
                self.paths = {n: e.path for n, e in loop.engines.items() if e.ran}
        return self._finish(state)

    def _check_space(self, rows: int) -> None:
        """Say before the work starts that the disk will be too small, as far as that can be known."""
        width = sum(r.built.encoder.dim for r in self.readings.values() if r.keep == "pooled")
        need = rows * width * DTYPES[self.settings.precision].itemsize
        free = shutil.disk_usage(self.partial.folder).free
        if need > free:
            from mmtool.page.worth import size

            console.warn(f"these features take up to {size(need)}, and {size(free)} are free on the disk of "
                         f"{self.partial.target}; when it is full, the rows that are done are kept")

    def _plan(self) -> str:
        return encoding.fingerprint([self.about.sha256, str(self.manifest.base.resolve()), self.stamps,
                                     {n: r.input.columns for n, r in self.readings.items()}, FORMAT])

    def _caches(self, packs: dict[str, list[str]]) -> dict[str, Cache | None]:
        if not self.settings.use_cache:
            return dict.fromkeys(self.readings)
        return {n: Cache(cache.home() / self.stamps[n], packs.get(n)) for n in self.readings}

    def _fill(self, loop: BlockLoop, pool: Readers, done: int, caches: dict[str, Cache | None]) -> None:
        rows = ids_and_rows(self.manifest, done)
        number = self.partial.shards_done
        part, encoded = Part(statuses={n: [] for n in self.readings}), {n: list[Encoded]() for n in self.readings}
        with console.progress("extract", self.about.rows, done) as advance:
            loop.advance = advance
            for block, results in loop.run(rows, self.about.rows - done, pool):
                part.ids += block.ids
                part.rows += block.rows
                for name, result in results.items():
                    part.statuses[name] += result.statuses
                    encoded[name].append(result)
                done += len(block.ids)
                if len(part.ids) == shard_rows(number, pooled=self.partial.pooled) or done == self.about.rows:
                    self._write(number, part, encoded, caches, loop.engines)
                    number += 1
                    part = Part(statuses={n: [] for n in self.readings})
                    encoded = {n: [] for n in self.readings}

    def _write(self, number: int, part: Part, encoded: dict[str, list[Encoded]], caches: dict[str, Cache | None],
               engines: dict[str, Engine]) -> None:
        for name, blocks in encoded.items():
            if (store := caches[name]) is not None:
                store.put([entry for b in blocks for entry in b.new])
        part.notes = {"cached": {n: sum(b.cached for b in blocks) for n, blocks in encoded.items()},
                      "elsewhere": {n: sum(b.elsewhere for b in blocks) for n, blocks in encoded.items()},
                      "halved": {n: int(e.halved) for n, e in engines.items()},
                      "path": {n: path for n, e in engines.items() if (path := e.found) is not None}}
        self.partial.write(number, part, encoded, DTYPES[self.settings.precision], self.about.columns)

    def _finish(self, state: dict[str, Any]) -> tuple[dict[str, Counter[str]], int, Counter[str]]:
        names = list(self.readings)
        shards = self.partial.counts(names, self.partial.shards_done)
        totals: dict[str, Counter[str]] = {n: Counter() for n in names}
        notes: dict[str, Counter[str]] = {"cached": Counter(), "elsewhere": Counter(), "halved": Counter()}
        for shard in shards:
            for name in names:
                totals[name].update(shard.counts[name])
            for kind, counter in notes.items():
                counter.update(shard.notes[kind])
        dtype = str(DTYPES[self.settings.precision]).removeprefix("torch.")
        dims = {n: self.partial.width(n, len(shards)) or r.built.encoder.dim for n, r in self.readings.items()}
        header = {
            "format": FORMAT, "base": str(self.manifest.base.resolve()), "rows": self.about.rows,
            "columns": list(self.about.columns), "manifest": self.about.sha256, "block_rows": BLOCK_ROWS,
            "inputs": {n: r.header(dims[n], dtype) for n, r in self.readings.items()},
            "numerics": {**self.numerics, "batch_size": state["batch_size"], "threads": state["threads"],
                         "tier": tier(self.device, self.backend, self.about.rows),
                         "batch_halved": [n for n in names if notes["halved"][n]],
                         "rows_from_other_blocks": {n: notes["elsewhere"][n] for n in names}},
            "shards": [{"rows": s.rows, "sha256": s.notes["sha256"]} for s in shards]}
        self.partial.finish(header, {n: r.input.columns for n, r in self.readings.items()})
        return totals, sum(s.bad_rows for s in shards), notes["cached"]


def _report(result: Result, output: Path, seconds: float, settings: Settings) -> None:
    for name, c in result.counts.items():
        way = f" ({result.paths[name]})" if result.paths.get(name, "plain") != "plain" else ""
        console.say(f"{name}: {c['ok']} ok, {c['missing']} missing, {c['bad']} bad, {c['cached']} cached{way}")
    console.say(f"{result.rows} rows in {seconds:.1f} s")
    if result.bad_rows:
        with (output / ERRORS).open(encoding="utf-8") as f:
            shown = [json.loads(line) for line in islice(f, 1 if settings.kept else MOST_SHOWN)]
            codes = Counter(e["code"] for e in shown) + Counter(json.loads(line)["code"] for line in f)
        rows = "1 row has" if result.bad_rows == 1 else f"{result.bad_rows} rows have"
        where = f", listed in {output / ERRORS}; the first:" if settings.kept else ":" if len(shown) < MOST_SHOWN else "; some:"
        kinds = f" ({', '.join(f'{n} {code}' for code, n in codes.most_common())})" if len(codes) > 1 else ""
        told = "; ".join(f"row {e['id']!r}, {e['input']}: {e['code']}: {e['reason']}" for e in shown)
        console.warn(f"{rows} a bad cell{kinds}{where} {told}")
    if result.exit_code:
        goes_on = "the features are written all the same" if settings.kept else "the work goes on, and the exit code will be 3"
        console.error(f"{result.bad_rows} of {result.rows} rows are bad, more than --max-bad {settings.max_bad}",
                      f"{goes_on}; mend the cells and run again, or raise --max-bad", code="E_TOO_MANY_BAD")
