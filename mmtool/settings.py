"""What the command line says of a training, and how a model file keeps it for `train --like`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from mmtool import plugins, specs
from mmtool.errors import ArtefactError, UsageError
from mmtool.extract import Settings as ExtractSettings
from mmtool.extraction.sources import path_option
from mmtool.features.format import HEADER

NUMBERS = ("schedule", "warmup", "epochs", "lr", "encoder_lr", "weight_decay", "l1", "clip", "batch_size", "accumulate",
           "patience", "loss_weighting", "precision")
"""Options of a descent: fields of its recipe."""


@dataclass(frozen=True)
class Settings:
    """What the command line says of a run. `optimizer` auto: solved exactly where that is possible, else AdamW.

    `given`: the fields of the descent's recipe that were said; the others have defaults that depend on what is trained.
    """

    targets: tuple[str, ...]
    task: str | None = None
    fusion: str = "concat"
    hidden: tuple[int, ...] = ()
    optimizer: str = "auto"
    given: dict[str, Any] = field(default_factory=dict)
    dropout: float = 0.0
    modality_dropout: float | None = None
    task_options: dict[str, str] = field(default_factory=dict)
    folds: int | None = None
    group: str | None = None
    conformal: float | None = None
    finetune: tuple[str, ...] = ()
    augment: tuple[str, ...] = ()
    seed: int = 0
    bundle: bool = False
    search: int = 0
    tensorboard: Path | None = None
    weights: tuple[str, ...] = ()
    extraction: ExtractSettings = field(default_factory=ExtractSettings)


KEPT = ("fusion", "hidden", "optimizer", "given", "dropout", "modality_dropout", "task_options", "folds", "group", "conformal",
        "finetune", "augment", "seed", "bundle", "search")
"""What decides the result, besides targets and inputs, which a model keeps as they were understood."""


def kept(settings: Settings) -> dict[str, Any]:
    """As JSON, for the header of a model."""
    return {name: list(v) if isinstance(v := getattr(settings, name), tuple) else v for name in KEPT}


def like(header: Mapping[str, Any], settings: Settings, said: set[str], weights: Mapping[str, Path],
         data: str) -> Settings:
    """The settings that made a model, with everything that was `said` on the command line put in their place.

    Raises UsageError where an encoder needs a file that `weights` does not name.
    """
    asked = header["asked"]
    known = {f.name for f in fields(Settings)}
    if unknown := sorted(set(asked) - known - {"allow_random"}):
        raise ArtefactError(f"the model's recipe holds {unknown[0]!r}, which this mmtool does not know", "upgrade mmtool",
                            code="E_ARTEFACT_VERSION")
    changes: dict[str, Any] = {name: tuple(v) if isinstance(v := asked[name], list) else v for name in KEPT if name not in said}
    lacking = sorted(set(KEPT) - set(asked))
    if lacking:
        raise ArtefactError(f"the model's recipe lacks {lacking[0]!r}", "train without --like", code="E_ARTEFACT_DAMAGED")
    if asked["fusion"] != "auto":
        _refuse_paths("fusion", specs.parse(asked["fusion"]))
    for entry in header["tasks"].values():
        _refuse_paths("task", specs.Spec(entry["name"], None, entry["options"]))
        _refuse_paths("task", specs.Spec(entry["name"], None, asked["task_options"]))
    changes["given"] = {**asked["given"], **settings.given}
    changes["task_options"] = settings.task_options
    if "targets" not in said:  # other targets do not take over the options of these
        changes["task_options"] = {**asked["task_options"], **settings.task_options}
        changes["targets"] = tuple(f"{column}={_spec(entry)}" for column, entry in sorted(header["tasks"].items()))
    extraction = settings.extraction
    if not extraction.encode and not (Path(data) / HEADER).is_file():
        texts = tuple(_encode(name, entry, weights) for name, entry in sorted(header["inputs"].items()))
        extraction = replace(extraction, encode=texts)
    if not (Path(data) / HEADER).is_file() and any(not entry["pooled"] for entry in header["inputs"].values()):
        extraction = replace(extraction, tokens=True)
    extraction = replace(extraction, seed=changes.get("seed", settings.seed),
                         allow_random=extraction.allow_random or asked.get("allow_random", False))
    return replace(settings, **changes, extraction=extraction)


def _refuse_paths(kind: str, spec: specs.Spec) -> None:
    """What a file says becomes text again, as of the command line: it must not turn into options that open files there."""
    plugin = plugins.find(spec.name, kind)
    cls = plugins.load(plugin)
    said = {**({next(iter(specs.signature(cls)), ""): spec.variant} if spec.variant else {}), **spec.options}
    for option, value in said.items():
        if isinstance(value, str) and "=" in value:  # a second option would hide in it
            raise ArtefactError(f"the model's recipe gives {plugin.name} the {option} {value!r}", "train without --like",
                                code="E_ARTEFACT_DAMAGED")
    specs.refuse_paths(cls, plugin.name, said)


def _spec(entry: Mapping[str, Any]) -> str:
    options = ",".join(f"{k}={'none' if v is None else v}" for k, v in entry["options"].items())
    return str(entry["name"]) + (f",{options}" if options else "")


def _encode(name: str, entry: Mapping[str, Any], weights: Mapping[str, Path]) -> str:
    if odd := [c for c in entry["columns"] if "=" in c]:  # an encoder of its own could hide in it
        raise ArtefactError(f"input {name!r} reads the column {odd[0]!r}, which the recipe cannot name",
                            "say it: -e COLUMN=ENCODER", code="E_ARTEFACT_MISMATCH")
    said = {k: v for k, v in entry["options"].items() if not isinstance(v, dict)}
    _refuse_paths("encoder", specs.Spec(entry["identity"]["name"], None, said))
    options = {k: path_option(v, name, weights) if isinstance(v, dict) else v for k, v in entry["options"].items()}
    return f"{name}@{'+'.join(entry['columns'])}={_spec({'name': entry['identity']['name'], 'options': options})}"


def parse_pairs(texts: tuple[str, ...], option: str) -> dict[str, str]:
    """`NAME=VALUE` of each. Raises UsageError."""
    out = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise UsageError(f"{option} {text!r} is not INPUT=...")
        out[name] = value
    return out


def parse_widths(text: str | None) -> tuple[int, ...]:
    """`256,64` -> widths. Raises UsageError."""
    try:
        return () if text is None else tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--dense {text!r} is no list of widths", "write --dense 128, or --dense 256,64") from None
