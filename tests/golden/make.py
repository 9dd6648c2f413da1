"""Makes the golden files of the format that the installed mmtool writes: `python tests/golden/make.py` (see README.md).

They go to tests/golden/vN, and what the models predict with them to tests/golden/vN/expected.json.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "plugin")]

from flows.made import table  # noqa: E402

from mmtool import console  # noqa: E402
from mmtool.cli.main import run  # noqa: E402
from mmtool.features.format import HEADER  # noqa: E402
from mmtool.features.header import seal  # noqa: E402
from mmtool.features.reader import Features  # noqa: E402
from mmtool.model import FORMAT, load  # noqa: E402

ENCODERS = ("-e", "a=tiny-letters", "-e", "b=tiny-letters", "-e", "number+colour=table")
MODELS = {"classify": ("--target", "label", "-f", "gated:2", "--dense", "2", "--optimizer", "adamw", "--epochs", "2"),
          "auto": ("--target", "label=classify", "-f", "auto", "--epochs", "2")}


def mmtool(*arguments: object) -> None:
    """Run a command; it must succeed."""
    assert run([str(a) for a in arguments]) == 0, arguments


def predicted(model: Path, folder: Path) -> list[dict[str, object]]:
    """What a model says of every row of features, without the command line."""
    loaded, features = load(model), Features(folder)
    names = ["fused"] if features.inputs == ["fused"] else [n for n in loaded.inputs if n in features.inputs]
    tokens = {name: features.tokens(name, range(len(features))) for name in names}
    return loaded.predict(tokens, [loaded.inputs] * len(features) if names == ["fused"] else None)


def pairs(folder: Path) -> list[tuple[str, str]]:
    """Models, and the features that each is asked about."""
    return [(m.name, "fused" if m.name.startswith("fused") else "features") for m in sorted(folder.glob("*.safetensors"))
            if m.name != "learned.safetensors"]


def make(target: Path) -> None:
    """Fill the folder `target`."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        os.environ["MMTOOL_CACHE"] = str(work / "cache")
        manifest = table(work, 40)
        (work / "few").mkdir()
        few = work / "few" / "data.jsonl"
        few.write_text("".join(line + "\n" for line in manifest.read_text().splitlines()[:8]))
        mmtool("extract", few, "-o", target / "features", *ENCODERS)
        mmtool("extract", manifest, "-o", work / "all", "--like", target / "features")
        mmtool("fuse", target / "features", "-o", target / "fused", "-f", "concat")
        mmtool("fuse", work / "all", "-o", work / "fused", "-f", "concat")
        for kind, options in MODELS.items():
            mmtool("train", work / "all", "-o", target / f"{kind}.safetensors", *options)
        mmtool("train", work / "fused", "-o", target / "fused-classify.safetensors", "--target", "label=classify")
        mmtool("train", manifest, "-o", target / "several.safetensors", "--target", "sum=regress", "--target", "tags=tag",
               "-f", "late", "--conformal", "0.3", *ENCODERS[:4])
        mmtool("train", manifest, "-o", target / "learned.safetensors", "--target", "label=classify", "-e", "a=tiny-learned",
               "-e", "b=tiny-tied", "--finetune", "b", "--epochs", "1")
        for folder in (target / "features", target / "fused"):
            header = json.loads((folder / HEADER).read_bytes())
            header["base"] = "/data"  # no machine's path
            seal(folder, header)
    found = {f"{model} on {features}": predicted(target / model, target / features) for model, features in pairs(target)}
    (target / "expected.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    console.set_quiet(True)
    shutil.rmtree(HERE / f"v{FORMAT}", ignore_errors=True)
    (HERE / f"v{FORMAT}").mkdir()
    make(HERE / f"v{FORMAT}")
