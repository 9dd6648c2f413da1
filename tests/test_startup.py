"""What starts quickly stays quick: no heavy import where nothing is computed."""

from __future__ import annotations

import ast
import subprocess
import sys

HEAVY = ("torch", "timm", "torchaudio", "torchvision", "numpy", "pyarrow", "PIL", "sentencepiece", "safetensors",
         "sklearn", "scipy", "matplotlib", "jinja2",
         "transformers", "huggingface_hub", "soundfile", "mmtool_starter", "mmtool_tiny")


COMMANDS = [["--help"], ["--version"], ["plugins", "list"], ["extract", "--help"], ["predict", "--help"], ["train", "--help"],
            ["eval", "--help"], ["info", "--help"], ["plugins", "--help"], ["sample", "--help"], ["sample"], ["predict"]]
PACKAGES = ["mmtool", "mmtool.testing", "mmtool.cli", "mmtool.encoders", "mmtool.media", "mmtool.features", "mmtool.manifest",
            "mmtool.fusions", "mmtool.tasks", "mmtool.training", "mmtool.metrics", "mmtool.page", "mmtool.extraction",
            "mmtool.samples"]


def after_each(steps: list[object], step: str) -> list[tuple[object, int, list[str]]]:
    """What each step returns, and the heavy modules that one process has imported by then."""
    code = (f"import contextlib, importlib, io, sys\nfound = []\nfor step in {steps!r}:\n"
            "    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):\n        code = {step}\n"
            f"    found.append((step, code, sorted(set({HEAVY!r}) & set(sys.modules))))\nprint(found)")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ast.literal_eval(ran.stdout)  # type: ignore[no-any-return]


def test_no_command_that_computes_nothing_imports_anything_heavy() -> None:
    run = "__import__('mmtool.cli.main', fromlist=['run']).run(step)"
    assert after_each(COMMANDS[:-1], run) == [(c, 0, []) for c in COMMANDS[:-1]]
    assert after_each(COMMANDS[-1:], run)[0][1] == 2


def test_packages_import_nothing_heavy() -> None:
    assert after_each(PACKAGES, "importlib.import_module(step) and 0") == [(p, 0, []) for p in PACKAGES]
