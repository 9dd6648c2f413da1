"""What starts quickly stays quick: no heavy import where nothing is computed."""

from __future__ import annotations

import ast
import subprocess
import sys

HEAVY = ("torch", "timm", "torchaudio", "torchvision", "numpy", "pyarrow", "PIL", "sentencepiece", "safetensors",
         "sklearn", "scipy", "matplotlib", "jinja2",
         "transformers", "huggingface_hub", "soundfile", "mmtool_starter", "mmtool_tiny")
COMMANDS = [["--help"], ["--version"], ["plugins", "list"], ["extract", "--help"], ["predict", "--help"], ["train", "--help"],
            ["eval", "--help"], ["info", "--help"], ["plugins", "--help"], ["sample", "--help"], ["sample"]]
PACKAGES = ["mmtool", "mmtool.testing", "mmtool.cli", "mmtool.encoders", "mmtool.media", "mmtool.features", "mmtool.manifest",
            "mmtool.fusions", "mmtool.tasks", "mmtool.training", "mmtool.metrics", "mmtool.page", "mmtool.extraction",
            "mmtool.samples"]
WATCH = """
import contextlib, io, sys
from importlib import import_module
found = []
for step in {steps}:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = {call}
    found.append((step, code, sorted(set({heavy}) & set(sys.modules))))
print(found)
"""


def after_each(steps: list, call: str) -> list[tuple]:
    """What each step gives, and the heavy modules that its process has imported by then."""
    code = WATCH.format(steps=steps, call=call, heavy=HEAVY)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ast.literal_eval(ran.stdout)


def test_commands_that_compute_nothing_import_nothing_heavy() -> None:
    assert after_each(COMMANDS, "import_module('mmtool.cli.main').run(step)") == [(command, 0, []) for command in COMMANDS]


def test_predict_without_anything_to_predict_is_wrong_use() -> None:
    assert subprocess.run([sys.executable, "-m", "mmtool", "predict"], capture_output=True, check=False).returncode == 2


def test_packages_import_nothing_heavy() -> None:
    assert after_each(PACKAGES, "import_module(step).__name__") == [(name, name, []) for name in PACKAGES]
