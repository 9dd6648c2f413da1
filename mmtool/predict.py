"""`mmtool predict`: from arguments, a manifest or JSON lines to predictions."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmtool import console, inputs, predictions
from mmtool.engine import choose_device
from mmtool.errors import MMToolError, StorageError, UsageError, storage_error
from mmtool.inputs import Input
from mmtool.locks import locked
from mmtool.manifest.open import ids_and_rows, is_manifest, json_row, open_aloud, row_id, scan
from mmtool.manifest.rows import Blob, Row, to_cell
from mmtool.media.limits import Limits
from mmtool.media.sniff import modality_of_bytes, modality_of_name
from mmtool.readers import Kept
from mmtool.waiting import Asked, answers
from mmtool.zeroshot import ZeroShot, as_json

if TYPE_CHECKING:
    from mmtool.explain.overlay import Overlays

MODALITIES = ("image", "text", "audio")


@dataclass(frozen=True)
class Settings:
    """What the command line says. `cells` holds the NAME=CELL of each --input, `encode` the text of each -e."""

    text: str | None = None
    cells: tuple[str, ...] = ()
    labels: str | None = None
    top: int = 5
    encode: tuple[str, ...] = ()
    output: Path | None = None
    device: str = "auto"
    backend: str = "auto"
    use_cache: bool = True
    limits: Limits = field(default_factory=Limits)
    seed: int = 0
    as_json: bool = False
    model: Path | None = None
    weights: tuple[str, ...] = ()
    coverage: float | None = None
    abstain_below: float | None = None
    explain: bool = False


def predict(arguments: Sequence[str], settings: Settings) -> int:
    """Predict and print (or write with -o) one object a row; returns the exit code."""
    if settings.output is None:
        return _predict(arguments, settings)
    predictions.check_target(settings.output)
    with locked(settings.output):
        return _predict(arguments, settings)


def _predict(arguments: Sequence[str], settings: Settings) -> int:
    if settings.model is not None:
        from mmtool.predict_model import predict_with_model

        return predict_with_model(settings.model, arguments, settings)
    if settings.coverage is not None or settings.abstain_below is not None:
        raise UsageError("--coverage and --abstain-below belong to a trained model; zero-shot probabilities are not calibrated",
                         "name one: -m MODEL")
    labels = parse_labels(settings.labels)
    if "-" in arguments:
        alone(arguments, settings)
        return _lines_from_stdin(settings, labels)
    if any(is_manifest(a) for a in arguments):
        alone(arguments, settings)
        return _manifest(arguments[0], settings, labels)
    return _files(arguments, settings, labels)


def parse_labels(text: str | None) -> list[str] | None:
    """`A,B,C`, or `@FILE` with a label a line; None for the default. Raises UsageError for none, or one twice."""
    if text is None:
        return None
    if text.startswith("@"):
        try:
            parts = Path(text[1:]).read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise storage_error(error, "--labels") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"--labels {text}: {error}", "give a UTF-8 file with one label a line") from error
    else:
        parts = text.split(",")
    labels = [p.strip() for p in parts if p.strip()]
    if twice := [label for label, n in Counter(labels).items() if n > 1]:
        raise UsageError(f"--labels names {twice[0]!r} twice", "name each label once")
    if len(labels) < 2:
        raise UsageError("--labels needs at least two labels", "write --labels cat,dog,car, or @FILE with one a line")
    return labels


def alone(arguments: Sequence[str], settings: Settings) -> None:
    """Raises UsageError where a manifest, or -, comes with something beside it."""
    if len(arguments) > 1:
        raise UsageError(f"{len(arguments)} arguments, one of them a manifest or -", "give one manifest, or media files")
    if settings.text is not None or settings.cells:
        raise UsageError("--text and --input belong to files, not to a manifest", "put them in a column")


def _zero_shot(chosen: Sequence[Input], labels: list[str] | None, base: Path, settings: Settings) -> ZeroShot:
    return ZeroShot(chosen, labels, base=base, device=choose_device(settings.device),
                    backend=settings.backend, limits=settings.limits,
                    seed=settings.seed, use_cache=settings.use_cache)


def file_rows(arguments: Sequence[str], text: str | None, cells: Sequence[str]) -> list[tuple[str, Row]]:
    """Files of distinct modalities make one row; several of one modality a row each, with the rest applied to all.

    Raises UsageError for any other mix, and for a file that is not there or is nothing that can be read.
    """
    by_modality: dict[str, list[Any]] = {}
    for name in arguments:
        modality, cell = _file_cell(name)
        by_modality.setdefault(modality, []).append(cell)
    shared: Row = {} if text is None else {"text": to_cell(text)}
    for assignment in cells:
        key, equals, cell = assignment.partition("=")
        if not equals or not key:
            raise UsageError(f"--input {assignment!r} is not NAME=CELL", "write --input photo=cat.jpg")
        shared[key] = to_cell(cell)
    if doubled := sorted(set(by_modality) & set(shared)):
        raise UsageError(f"{doubled[0]} is given twice, as a file and as an option")
    many = [m for m, found in by_modality.items() if len(found) > 1]
    if many and len(by_modality) > 1:
        counts = ", ".join(f"{len(found)} of {m}" for m, found in by_modality.items())
        raise UsageError(f"which files belong together? {counts}", "give one of each, several of one kind, or a manifest")
    if many:
        return [(str(cell), {many[0]: cell, **shared}) for cell in by_modality[many[0]]]
    row: Row = {**{m: found[0] for m, found in by_modality.items()}, **shared}
    if not row:
        raise UsageError("nothing to predict", "give files, --text, a manifest, or - for JSON lines")
    return [(" + ".join(arguments) or "0", row)]


def _file_cell(name: str) -> tuple[str, Any]:
    path = Path(name)
    try:
        if not path.exists():
            raise StorageError(f"{name} does not exist", "mmtool fetches nothing: download it first" if "://" in name
                               else "check the path; a text goes to --text", code="E_NOT_FOUND")
        with path.open("rb") as f:
            head = f.read(4096)
    except OSError as error:
        raise storage_error(error) from error
    except ValueError as error:  # a NUL in the name
        raise UsageError(f"{name}: {error}") from error
    modality = modality_of_bytes(head)
    if modality in (None, "text"):
        modality = modality_of_name(path.name) or modality
    if modality is None:
        raise UsageError(f"{name} is no picture, sound or text that mmtool knows", "give a media file or a manifest")
    return modality, Blob(name, path.read_bytes()) if modality == "text" else name


def _named_encoders(encode: Sequence[str]) -> list[tuple[str, str]]:
    """NAME=ENCODER of each -e, where there is no manifest with columns."""
    pairs = []
    for text in encode:
        name, equals, encoder = text.partition("=")
        if not (name and equals and encoder):
            raise UsageError(f"-e {text!r} is not INPUT=ENCODER", "such as -e image=effnet-lite0")
        pairs.append((name, encoder))
    return pairs


def _inputs_of(names: Sequence[str], encoders: Mapping[str, str]) -> list[Input]:
    chosen = []
    for name in names:
        encoder = encoders.get(name) or inputs.default_encoder(name)
        if encoder is None:
            known = inputs.STARTER if name in MODALITIES else \
                f"{', '.join(MODALITIES)} have one by default"
            raise UsageError(f"no encoder for input {name!r}", f"name one with -e {name}=ENCODER; {known}")
        chosen.append(Input(inputs.slug(name), (name,), encoder))
    return chosen


def _overlays(settings: Settings) -> Overlays | None:
    """Where explanations put their pictures; None where nothing is to be explained."""
    if not settings.explain:
        return None
    from mmtool.explain.overlay import Overlays

    return Overlays(settings.output)


def _answers(model: ZeroShot, rows: Iterable[tuple[str, Row]], total: int, settings: Settings, overlays: Overlays | None, *,
             caching: bool = False) -> Iterator[dict[str, Any]]:
    if overlays is None:
        for guess in model.guess(rows, total, caching=caching):
            yield as_json(guess, model.labels, settings.top)
    else:
        from mmtool.explain.zeroshot import explained

        yield from explained(model, rows, total, settings.top, overlays, caching=caching)


def _files(arguments: Sequence[str], settings: Settings, labels: list[str] | None) -> int:
    rows = file_rows(arguments, settings.text, settings.cells)
    model = _zero_shot(_inputs_of(list(rows[0][1]), dict(_named_encoders(settings.encode))), labels, Path(), settings)
    found = list(_answers(model, rows, len(rows), settings, _overlays(settings)))
    return predictions.tell(found, settings.output, as_json=settings.as_json, top=settings.top)


def _manifest(name: str, settings: Settings, labels: list[str] | None) -> int:
    manifest = open_aloud(name)
    about = scan(manifest)
    if settings.encode:
        chosen = inputs.parse_all(settings.encode, about.columns)
    else:
        chosen, notes = inputs.choose(manifest, about.columns)
        for note in notes:
            console.warn(note)
        console.say("inputs: " + ", ".join(f"{i.name} ({i.encoder})" for i in chosen))
    model = _zero_shot(chosen, labels, manifest.base, settings)
    found = _answers(model, ids_and_rows(manifest), about.rows, settings, _overlays(settings), caching=True)
    return predictions.stream(console.counted("predict", about.rows, found), settings.output)


def _lines_from_stdin(settings: Settings, labels: list[str] | None) -> int:
    """One answer a line, as soon as the line is there; a bad line is answered too, with what is wrong with it."""
    with Kept() as kept:
        model = _Conversation(settings, labels, kept)
        found = answers(sys.stdin.buffer, model.ask, model.answer, {"contributions": {}})
        return predictions.stream(found, settings.output)


class _Conversation:
    """JSON lines one by one, with encoders that are loaded when the first line needs them."""

    def __init__(self, settings: Settings, labels: list[str] | None, kept: Kept) -> None:
        self.settings, self.labels, self.kept = settings, labels, kept
        self.encoders = dict(_named_encoders(settings.encode))
        self.model: ZeroShot | None = None
        self.ignored: set[str] = set()
        self.overlays = _overlays(settings)

    def ask(self, number: int, line: bytes) -> Asked:
        """What a line asks, or what is wrong with it."""
        name = str(number)
        try:
            row = json_row(line, f"stdin, line {number + 1}")
            name = row_id(row, number)
            names = [n for n in row if n in MODALITIES or n in self.encoders]
            self._say_ignored(set(row) - set(names) - set(inputs.NEVER_INPUTS))
            if not names:
                raise UsageError(f"stdin, line {number + 1}: no input", 'write {"image": "cat.jpg"}, or name one with -e')
            return Asked(name, tuple(names), row)
        except MMToolError as error:
            return Asked(name, error=error)

    def answer(self, names: tuple[str, ...], rows: list[tuple[str, Row]]) -> Iterator[dict[str, Any]]:
        """The predictions for rows that have these inputs."""
        return _answers(self._model(names), rows, len(rows), self.settings, self.overlays)

    def _model(self, names: Sequence[str]) -> ZeroShot:
        have = set() if self.model is None else {r.name for r in self.model.readings}
        new = _inputs_of([n for n in names if inputs.slug(n) not in have], self.encoders)
        if self.model is None:
            self.model = _zero_shot(new, self.labels, Path(), self.settings)
            self.model.kept = self.kept
        else:
            for item in new:
                self.model.add(item)
        return self.model

    def _say_ignored(self, names: set[str]) -> None:
        for name in sorted(names - self.ignored):
            console.warn(f"{name!r} is no input and is left out; -e {name}=ENCODER would make it one")
        self.ignored |= names
