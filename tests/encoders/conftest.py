"""What the tests of the built-in encoders share: no network, empty caches, small speech networks."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
import torchaudio
from torch import Tensor
from torchaudio.pipelines import Wav2Vec2Bundle

from mmtool import encoding
from mmtool.api import Encoder


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks gain nothing from more, and lose much beside other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"a connection was opened: {args}")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("MMTOOL_ALLOW_DOWNLOAD", raising=False)


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of both hubs: `hub` is Hugging Face's, `torch/hub/checkpoints` torch's."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    (tmp_path / "torch/hub/checkpoints").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def pooled() -> Callable[..., Tensor]:
    """Encoder and cells -> pooled features `[N, pooled_dim]`, in one batch."""
    def run(encoder: Encoder, *cells: Any) -> Tensor:
        with torch.inference_mode():
            return encoder.pool(encoder(*encoding.pad([encoder.prepare(cell) for cell in cells])))
    return run


SMALL = {
    "extractor_conv_layer_config": [(16, 10, 5), (16, 3, 2), (16, 3, 2), (16, 3, 2), (16, 3, 2), (16, 2, 2), (16, 2, 2)],
    "extractor_conv_bias": False, "encoder_embed_dim": 16, "encoder_projection_dropout": 0.1,
    "encoder_pos_conv_kernel": 8, "encoder_pos_conv_groups": 2, "encoder_num_layers": 3, "encoder_num_heads": 2,
    "encoder_attention_dropout": 0.1, "encoder_ff_interm_features": 32, "encoder_ff_interm_dropout": 0.1,
    "encoder_dropout": 0.1, "encoder_layer_drop": 0.1,
}


@pytest.fixture
def small_bundles(monkeypatch: pytest.MonkeyPatch) -> None:
    """TINY_GROUP is wav2vec 2.0 base, TINY_LAYER its large 60k form with a transcriber's head, TINY_WAVLM WavLM."""
    wavlm = {"encoder_num_buckets": 8, "encoder_max_distance": 20}
    for name, kind, mode, first, head, more in (("TINY_GROUP", "Wav2Vec2", "group_norm", False, None, {}),
                                                ("TINY_LAYER", "Wav2Vec2", "layer_norm", True, 5, {}),
                                                ("TINY_WAVLM", "WavLM", "group_norm", False, None, wavlm)):
        parameters = {**SMALL, "extractor_mode": mode, "encoder_layer_norm_first": first, "aux_num_out": head, **more}
        bundle = Wav2Vec2Bundle(f"{name.lower()}.pth", parameters, 16_000, mode == "layer_norm", kind)
        monkeypatch.setattr(torchaudio.pipelines, name, bundle, raising=False)
