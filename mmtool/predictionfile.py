"""Reading predictions that any tool may have written: JSON lines with an id and a prediction each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmtool.errors import ArtefactError, StorageError, storage_error
from mmtool.schema import anything, either, fields, flag, listed, null, number, table, text
from mmtool.strictjson import Unsound, strict_json

ANSWER = either(null, flag, number(), text(), listed(either(null, flag, number(), text())))
SHARES = either(null, table(either(null, number())))
KNOWN = {"prediction": ANSWER, "probability": either(null, number()), "probabilities": either(listed(anything), SHARES),
         "inputs": either(null, listed(text())), "contributions": anything, "set": either(null, listed(text())),
         "interval": either(null, listed(either(null, number()), 2)), "abstained": either(null, flag)}
LINE = fields({"id": either(null, flag, number(), text())},
              {**KNOWN, "targets": table(fields({}, KNOWN, open_=True))}, open_=True)


def read_predictions(path: Path) -> list[dict[str, Any]]:
    """The lines, ids as texts. Raises ArtefactError, with the line, for what is no prediction, and StorageError."""
    out: list[dict[str, Any]] = []
    try:
        with path.open(encoding="utf-8") as f:
            for at, line in enumerate(f, 1):
                if line.strip():
                    out.append(_line(path, at, line))
    except FileNotFoundError:
        raise StorageError(f"{path} does not exist", "give a model, or a predictions file", code="E_NOT_FOUND") from None
    except IsADirectoryError:
        raise ArtefactError(f"{path} is a folder, not a predictions file", "give a model, or a file of predictions",
                            code="E_ARTEFACT_KIND") from None
    except OSError as error:
        raise storage_error(error) from error
    except ValueError as error:
        raise ArtefactError(f"{path}, line {len(out) + 1}: not JSON ({error})", "one object a line is needed",
                            code="E_PREDICTIONS") from error
    if not out:
        raise ArtefactError(f"{path} holds no prediction", "predict again", code="E_PREDICTIONS")
    return out


def _line(path: Path, at: int, line: str) -> dict[str, Any]:
    try:
        value = strict_json(line)
    except Unsound as error:
        raise ArtefactError(f"{path}, line {at}: not JSON that can be read: {error}", "one object a line is needed",
                            code="E_PREDICTIONS") from None
    if not isinstance(value, dict) or "id" not in value or \
            ("prediction" not in value and not isinstance(value.get("targets"), dict)):
        raise ArtefactError(f"{path}, line {at}: no object with id and prediction", "one a line is needed",
                            code="E_PREDICTIONS")
    try:
        anything(value, "it")
        LINE(value, "it")
    except Unsound as error:
        raise ArtefactError(f"{path}, line {at}: {error}", "mend the line, or predict again", code="E_PREDICTIONS") from None
    return {**value, "id": str(value["id"])}
