"""What starts quickly stays quick: no heavy import where nothing is computed."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "timm", "torchaudio", "torchvision", "numpy", "pyarrow", "PIL", "sentencepiece", "safetensors",
         "sklearn", "scipy", "matplotlib", "jinja2",
         "transformers", "huggingface_hub", "soundfile", "mmtool_starter", "mmtool_tiny")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["plugins", "list"], ["extract", "--help"],
                                       ["predict", "--help"], ["train", "--help"], ["eval", "--help"], ["info", "--help"],
                                       ["plugins", "--help"], ["sample", "--help"], ["sample"],
                                       ["predict"]])
def test_no_heavy_import(arguments: list[str]) -> None:
    code = (f"import sys; from mmtool.cli.main import run; code = run({arguments!r}); "
            f"print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr); sys.exit(code)")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if arguments != ["predict"]:
        assert ran.returncode == 0, ran.stderr
        assert ran.stderr.splitlines()[-1] == "[]"
    else:
        assert ran.returncode == 2


@pytest.mark.parametrize("package", ["mmtool", "mmtool.testing", "mmtool.cli", "mmtool.encoders", "mmtool.media",
                                     "mmtool.features", "mmtool.manifest", "mmtool.fusions", "mmtool.tasks",
                                     "mmtool.training", "mmtool.metrics", "mmtool.page", "mmtool.extraction", "mmtool.samples"])
def test_packages_import_nothing_heavy(package: str) -> None:
    code = f"import sys, {package}; sys.exit(', '.join(sorted(set({HEAVY!r}) & set(sys.modules))) or 0)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr.strip()) == (0, "")
