"""What the starter's tests share: each encoder loaded once, and the folder of real data."""

import os
from pathlib import Path

import pytest
import torch
from mmtool_starter.image import EffNetLite0
from mmtool_starter.text import MiniLM

from mmtool.api import Encoder, Tokens
from mmtool.encoding import pad


@pytest.fixture(scope="session")
def effnet() -> EffNetLite0:
    encoder = EffNetLite0().eval()
    encoder.load()
    return encoder


@pytest.fixture(scope="session")
def minilm() -> MiniLM:
    encoder = MiniLM().eval()
    encoder.load()
    return encoder


@pytest.fixture(scope="session")
def run():
    """Cells through `prepare`, padding and `forward`."""
    def run(encoder: Encoder, cells: list) -> Tokens:
        with torch.inference_mode():
            return encoder(*pad([encoder.prepare(cell) for cell in cells]))
    return run


@pytest.fixture(scope="session")
def same():
    """Do the rows of two batches of tokens agree within 1e-5 of each row's largest magnitude?"""
    def same(a: Tokens, b: Tokens) -> bool:
        return all(len(x) == len(y) and bool((x - y).abs().max() <= 1e-5 * x.abs().max())
                   for x, y in zip(a.rows(), b.rows(), strict=True))
    return same


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with stamps.csv and prompts.csv, which MMTOOL_DATA names."""
    folder = os.environ.get("MMTOOL_DATA")
    if not folder or not Path(folder, "stamps.csv").is_file():
        pytest.skip("MMTOOL_DATA does not name the folder with stamps.csv and prompts.csv")
    return Path(folder)
