"""The inputs of a run, ready to encode: encoder built, fitted where it must be, identified, and its cache opened."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtool import cells, encoding, plugins, specs
from mmtool.api import Encoder
from mmtool.bounded import bounded
from mmtool.cells import Source
from mmtool.encoding import Built
from mmtool.errors import ArtefactError, CellError, DataError, UsageError
from mmtool.features.reader import Features
from mmtool.inference.paths import Keep
from mmtool.inputs import Input, modality_of_column
from mmtool.manifest.archives import SPLITS
from mmtool.manifest.open import Manifest
from mmtool.media.limits import Limits
from mmtool.strictjson import Unsound


@dataclass
class Reading:
    """One input with its encoder."""

    input: Input
    built: Built
    source: Source
    keep: Keep
    identity: dict[str, Any]
    fitted: bool
    preparer: Encoder
    """The encoder as readers use it: on the CPU, wherever the other one goes."""
    plain: dict[str, Any] | None = None
    """The options as a header has them, where that header's file brought the weights."""

    @property
    def name(self) -> str:
        return self.input.name

    def header(self, dim: int, dtype: str) -> dict[str, Any]:
        """What features.json says of it."""
        options = encoding.plain_options(self.built.options) if self.plain is None else self.plain
        return {"columns": list(self.input.columns), "modality": self.source.modality, "encoder": self.built.spec,
                "package": self.built.package, "options": options,
                "identity": self.identity, "pooled": self.keep == "pooled", "dim": dim, "dtype": dtype,
                "limits": cells.limits_of(self.source), "fitted": self.fitted}

    def stamp(self, numerics: dict[str, Any]) -> str:
        """What the cache finds its rows by, besides their content."""
        return encoding.fingerprint([self.identity, self.built.package, encoding.source_sha256(self.built.encoder), numerics,
                                     cells.limits_of(self.source), self.keep])


def build(item: Input, manifest: Manifest, *, keep: Keep, limits: Limits, seed: int, allow_random: bool,
          device: torch.device) -> Reading:
    """Build an input's encoder, and fit it on the rows whose split is train where it learns anything.

    Raises MMToolError for random weights, or for an encoder that must be fitted where nothing says which rows train.
    """
    return finish(item, encoding.build(item.encoder, seed=seed), manifest, keep=keep, limits=limits,
                  allow_random=allow_random, device=device, assets=None)


def finish(item: Input, built: Built, manifest: Manifest, *, keep: Keep, limits: Limits, allow_random: bool,
           device: torch.device, assets: dict[str, Any] | None, state: dict[str, Tensor] | None = None,
           plain: dict[str, Any] | None = None) -> Reading:
    """The second half of `build`: fit or take assets, then weights where a file brings them, check, identify."""
    encoder = built.encoder
    if len(item.columns) > 1 and encoder.modality != "table":
        raise UsageError(f"encoder {built.name!r} reads one column of {encoder.modality}, not {len(item.columns)}",
                         "join columns only for the table encoder")
    _refuse_other_media(item, built, manifest)
    source = Source(encoder.modality, manifest.base, limits)
    fitted = encoder.needs_fit()
    if assets:
        encoder.set_assets(assets)
    elif fitted:
        encoder.fit(training_cells(item, manifest, source, built))
        encoder.eval()
    if state:
        load_state(item.name, encoder, state)
    if not encoder.pretrained and not allow_random:
        raise DataError(f"input {item.name!r}: encoder {built.spec} has random weights, its features mean nothing",
                        "give it weights (`mmtool plugins info " + built.name + "`), or say --allow-random",
                        code="E_RANDOM_WEIGHTS")
    preparer = encoder if device.type == "cpu" else copy.deepcopy(encoder)
    return Reading(item, built, source, keep, encoding.identity(built, plain), fitted, preparer, plain)


def load_state(name: str, encoder: Encoder, state: dict[str, Tensor]) -> None:
    """Fill the weights that a file of ours brought. Raises MMToolError, naming them, for missing or unexpected ones."""
    try:
        encoder.load_state_dict(state)
    except RuntimeError as error:
        raise ArtefactError(f"input {name!r}: the weights do not fit the encoder ({str(error)[:300]})",
                            "install the version that `mmtool info` shows", code="E_WEIGHTS") from error


def _refuse_other_media(item: Input, built: Built, manifest: Manifest) -> None:
    media = ("image", "audio")
    if built.encoder.modality in media:
        sample = [row.get(item.columns[0]) for row in islice(manifest.rows(), 100)]
        held = modality_of_column([cell for cell in sample if cell is not None])
        if held in media and held != built.encoder.modality:
            reads = built.encoder.modality
            raise UsageError(f"column {item.columns[0]!r} holds {held}, and encoder {built.spec} reads {reads}",
                             f"choose an encoder of {held}: `mmtool plugins list`")


def training_cells(item: Input, manifest: Manifest, source: Source, built: Built) -> Iterator[Any]:
    """The decoded cells of the rows whose split is train, unusable ones left out, in the manifest's order."""
    if not any(row.get("split") is not None for row in manifest.rows()):
        raise DataError(f"input {item.name!r}: encoder {built.name!r} learns from training rows, "
                        f"but {manifest.name} has no column 'split'",
                        "add one that holds train, val and test, so that nothing is learned from test rows")

    def decoded() -> Iterator[Any]:
        for row in manifest.rows():
            raw = cells.raw_of(row, item.columns, source.modality)
            if SPLITS.get(str(row.get("split")).strip().lower()) == "train" and raw is not None:
                try:
                    yield cells.decode(cells.load(raw, source)[0], source, built.encoder)
                except CellError:
                    continue
    return decoded()


@dataclass(frozen=True)
class Headers:
    """Inputs as the header of features or of a model states them, with their fitted assets; `origin` names the file.

    `states`: weights that the file brings itself, because training changed them or they were bundled.
    """

    origin: str
    inputs: dict[str, dict[str, Any]]
    assets: dict[str, dict[str, Tensor]]
    states: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> Headers:
        """Those of a features folder."""
        features = Features(folder)
        return cls(str(folder), features.header["inputs"], {n: features.assets(n) for n in features.inputs},
                   {n: features.weights(n) for n in features.inputs})


def like(headers: Headers, manifest: Manifest, columns: Sequence[str], weights: dict[str, Path], *,
         limits: Limits, seed: int, device: torch.device) -> list[Reading]:
    """The inputs of other features, or of a model, with their encoders, options and fitted assets.

    Raises MMToolError where a column or a weights file is missing, or where the encoder installed here is another one.
    """
    if unused := sorted(set(weights) - set(headers.inputs)):
        raise UsageError(f"--weights {unused[0]}: {headers.origin} has no such input", f"it has {', '.join(headers.inputs)}")
    readings = []
    for name in sorted(headers.inputs):
        header = headers.inputs[name]
        if missing := [c for c in header["columns"] if c not in columns]:
            raise DataError(f"{manifest.name} has no column {missing[0]!r}, which input {name!r} of {headers.origin} reads")
        plugin = plugins.find(header["identity"]["name"])
        cls = plugins.load(plugin)
        specs.refuse_paths(cls, plugin.name, header["options"])
        state = headers.states.get(name) or None
        options = {k: (Path(v["file"]) if state else path_option(v, name, weights)) if isinstance(v, dict) else v
                   for k, v in header["options"].items()}
        unknown = sorted(set(options) - set(specs.signature(cls)))
        if unknown:
            raise ArtefactError(f"input {name!r} of {headers.origin}: {plugin.package} knows no option {unknown[0]!r}",
                                code="E_ARTEFACT_MISMATCH")
        built = _from_header(headers.origin, plugin, cls, options, seed, state)
        reading = finish(Input(name, tuple(header["columns"]), built.spec), built, manifest,
                         keep="pooled" if header["pooled"] else "tokens", limits=limits, allow_random=True,
                         device=device, assets=headers.assets[name], state=state,
                         plain=header["options"] if state else None)
        if reading.identity != header["identity"]:
            differ = [k for k in reading.identity if reading.identity[k] != header["identity"].get(k)]
            raise ArtefactError(
                f"input {name!r}: {headers.origin} was made by {header['package']}, encoder {header['encoder']}; "
                f"{plugin.package}, encoder {built.spec}, differs in {', '.join(differ)}",
                "install the version that made it, or extract both again", code="E_ARTEFACT_MISMATCH")
        readings.append(reading)
    return readings


def _from_header(origin: str, plugin: plugins.Found, cls: type[Any], options: dict[str, Any], seed: int,
                 state: dict[str, Tensor] | None) -> Built:
    """The encoder that a header describes; where its weights are there, it may not be far larger than those."""
    try:
        with nullcontext() if state is None else bounded(state):
            return encoding.from_options(plugin, cls, options, seed=seed, load=state is None)
    except Unsound as error:
        raise ArtefactError(f"{origin}: {error}", "do not use this file", code="E_ARTEFACT_DAMAGED") from None


def path_option(stored: dict[str, str], name: str, weights: Mapping[str, Path]) -> Path:
    """The file that a header's path option stands for. Raises UsageError for none, MMToolError for another file."""
    if name not in weights:
        raise UsageError(f"input {name!r} needs the file {stored['file']!r}", f"give it: --weights {name}=FILE")
    given = encoding.plain_options({"": weights[name]})[""]
    if given["sha256"] != stored["sha256"]:
        raise ArtefactError(f"{weights[name]} is not the {stored['file']!r} that input {name!r} was made with",
                            f"its SHA-256 must be {stored['sha256']}", code="E_ARTEFACT_MISMATCH")
    return weights[name]


def parse_weights(texts: Sequence[str]) -> dict[str, Path]:
    """`INPUT=FILE` of each --weights. Raises UsageError."""
    parsed = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or not name or not Path(path).is_file():
            raise UsageError(f"--weights {text!r}: no such file" if equals else f"--weights {text!r} is not INPUT=FILE")
        parsed[name] = Path(path)
    return parsed
