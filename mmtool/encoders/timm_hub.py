"""Finding weights that timm's hubs have already left on this machine. Opens no connection."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

import torch
from huggingface_hub import try_to_load_from_cache

NAMES = ("model.safetensors", "pytorch_model.bin")


def cached_weights(cfg: dict[str, Any]) -> dict[str, Any]:
    """The entries of timm's `pretrained_cfg_overlay` that load the cached file; empty where there is none.

    Looked for in the Hugging Face cache, safetensors first, then in torch's.
    """
    if cfg.get("hf_hub_id"):
        repository, _, revision = cfg["hf_hub_id"].partition("@")
        for name in (cfg.get("hf_hub_filename"),) if cfg.get("hf_hub_filename") else NAMES:
            found = try_to_load_from_cache(repository, name, revision=revision or None)
            if isinstance(found, str):
                return {"file": found}
    if cfg.get("url"):
        path = Path(torch.hub.get_dir(), "checkpoints", PurePosixPath(urlparse(cfg["url"]).path).name)
        if path.is_file():
            return {"file": str(path), "custom_load": cfg.get("custom_load", False)}
    return {}
