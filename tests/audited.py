"""Opens files from strangers under an audit hook, and prints what it saw as JSON: `python tests/audited.py FOLDER`.

FOLDER holds models (*.safetensors), features folders and predictions.jsonl. A hook cannot be taken away, so this is a process
of its own. Everything that may honestly be imported is imported first, with the golden files.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "plugin")]

from artefacts import GOLDEN, features, model  # noqa: E402

from mmtool import console, plugins  # noqa: E402
from mmtool.errors import MMToolError  # noqa: E402
from mmtool.predictionfile import read_predictions  # noqa: E402
from mmtool.settings import Settings, like  # noqa: E402

WATCHED = ("import", "exec", "compile", "open", "socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork",
           "pickle.find_class", "ctypes.dlopen", "urllib.", "shutil.", "os.remove", "os.rename", "os.mkdir")


def opened(path: Path) -> Any:
    """Everything that a command does with such a file before it has data."""
    if path.is_dir():
        return features(path)
    if path.suffix == ".jsonl":
        return read_predictions(path)
    found = model(path)
    return like(found.header if hasattr(found, "header") else json.loads(found[0]), Settings(("label",)), set(), {}, "data.csv")


def attempt(path: Path) -> str:
    """How it ended."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        try:
            opened(path)
        except MMToolError as error:
            return error.code
    return "opened"


def _annotations() -> set[bytes]:
    """The signatures of the plugins that were imported before, as text."""
    loaded = [plugins.load(p) for p in plugins.found() if p.target.partition(":")[0] in sys.modules]
    return {str(a).encode() for cls in loaded for a in cls.__init__.__annotations__.values()}


def main(folder: Path) -> None:
    """Warm up, watch, open, tell."""
    console.set_quiet(True)
    given = sorted(p for p in folder.iterdir())
    for path in (*sorted((GOLDEN / "v2").glob("*.safetensors")), GOLDEN / "v2" / "features", GOLDEN / "v2" / "fused",
                 folder / "warm.safetensors"):
        attempt(path)
    seen: list[list[str]] = []
    current, of_ours = [""], [False]
    annotations = _annotations()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not current[0] or not event.startswith(WATCHED):
            return
        if event == "compile" and arguments[0] in annotations:  # by typing.get_type_hints, of the signature of a plugin
            of_ours[0] = True
        elif event == "exec" and of_ours[0] and arguments[0].co_filename == "<string>":
            of_ours[0] = False
        elif not (event == "open" and type(arguments[0]) is int):  # a descriptor, which was opened by a name before
            seen.append([current[0], event, str(arguments[0])[:300]])

    sys.addaudithook(hook)
    ended = {}
    for path in given:
        current[0] = path.name
        ended[path.name] = attempt(path)
        current[0] = ""
    print(json.dumps({"ended": ended, "seen": seen}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
