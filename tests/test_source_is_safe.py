"""No source of ours runs what a file holds: no pickle, eval, exec or unsafe loader, under whatever name it was imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [p for folder in ("mmtool", "plugins") for p in sorted((ROOT / folder).rglob("*.py"))
           if not {"build", "tests"} & {*p.relative_to(ROOT).parts}]
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "jsonpickle", "shelve", "marshal", "joblib", "imp", "runpy",
           "code"}
"""Must not be imported."""
CALLS = {"eval", "exec", "compile", "__import__"}
LOADERS = {"torch.load": "weights_only", "numpy.load": "allow_pickle"}
"""Called only with this argument, True for the first and False for the second."""
FORBIDDEN = {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen", "pandas.read_pickle", "torch.jit.load",
             "torch.package.PackageImporter", "torch.serialization.add_safe_globals", "torch.hub.load"}
ALLOWED = {"pickle.UnpicklingError", "pickle.Pickler"}
"""The error that `torch.load(weights_only=True)` raises; and what only writes."""


def faults(source: str, file: str = "x.py") -> Iterator[str]:
    """What a source does that it must not."""
    tree = ast.parse(source)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                names[one.asname or one.name.split(".")[0]] = one.name if one.asname else one.name.split(".")[0]
                if one.name.split(".")[0] in MODULES:
                    yield f"{file}:{node.lineno}: imports {one.name}"
        elif isinstance(node, ast.ImportFrom):
            for one in node.names:
                names[one.asname or one.name] = f"{node.module}.{one.name}"
            if (node.module or "").split(".")[0] in MODULES \
                    and any(f"{node.module}.{one.name}" not in ALLOWED for one in node.names):
                yield f"{file}:{node.lineno}: imports {node.module}"
    for node in ast.walk(tree):
        full = _full(node, names)
        if full in FORBIDDEN:
            yield f"{file}:{node.lineno}: uses {full}"
        if isinstance(node, ast.Call):
            called = _full(node.func, names)
            if called in CALLS or (called or "").removeprefix("builtins.") in CALLS:
                yield f"{file}:{node.lineno}: calls {called}"
            for name, argument in LOADERS.items():
                safe = [k.value for k in node.keywords if k.arg == argument]
                wanted = argument == "weights_only"
                if called == name and not (safe and isinstance(safe[0], ast.Constant) and safe[0].value is wanted):
                    yield f"{file}:{node.lineno}: calls {name} without {argument}={wanted}"
        if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "trust_remote_code", "shell") \
                and not (isinstance(node.value, ast.Constant) and node.value.value is False):
            yield f"{file}:{node.value.lineno}: gives {node.arg}"


def _full(node: ast.AST, names: dict[str, str]) -> str | None:
    """`np.load` -> `numpy.load`, as far as the imports tell; None for what is no dotted name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or not isinstance(node.ctx, ast.Load):
        return None
    return ".".join([names.get(node.id, node.id), *reversed(parts)])


def test_our_source_and_that_of_our_plugins() -> None:
    assert len(SOURCES) > 200
    found = [f for p in SOURCES for f in faults(p.read_text(encoding="utf-8"), p.relative_to(ROOT).as_posix())]
    assert found == []


@pytest.mark.parametrize("source", [
    "import pickle", "import pickle as json", "from pickle import loads", "import dill", "from joblib import load", "eval('1')",
    "exec(x)", "compile(x, 'a', 'exec')", "__import__(x)", "import builtins\nbuiltins.eval(x)", "import torch\ntorch.load(x)",
    "import torch as t\nt.load(x, weights_only=False)", "from torch import load\nload(x)", "from torch import load as l\nl(x)",
    "import torch\ntorch.load(x, weights_only=y)", "import yaml\nyaml.load(x)", "from yaml import load\nload(x, Loader=L)",
    "import numpy as np\nnp.load(x)", "import numpy as np\nnp.load(x, allow_pickle=True)", "import os\nos.system(x)",
    "from torch import hub\nhub.load(x)", "import torch\nf = torch.jit.load",
    "run(x, shell=True)", "get(x, trust_remote_code=True)",
    "import marshal", "from pickle import UnpicklingError, loads", "def f():\n    import shelve"])
def test_what_must_not_be_there_is_seen(source: str) -> None:
    assert list(faults(source))


@pytest.mark.parametrize("source", [
    "import torch\ntorch.load(x, weights_only=True)", "import numpy as np\nnp.load(x, allow_pickle=False)",
    "from pickle import UnpicklingError", "import json\njson.load(x)",
    "import re\nre.compile(x)", "model.eval()", "from mmtool.model import load\nload(x)", "import yaml\nyaml.safe_load(x)"])
def test_what_may_be_there_is_not(source: str) -> None:
    assert list(faults(source)) == []
