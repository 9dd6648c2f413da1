"""`python -m mmtool_starter.make_class_table`: vectors of ImageNet's classes in MiniLM's space, for ConSE.

A class is the mean of its names' embeddings, which keeps it near its own label, and of "names: definition", which
puts it near what it is a kind of: without definitions 29 % of our pictures of animals went to their kind, with them
65 %. Half of the mean class is taken away, else generic texts are near to every picture.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from mmtool_starter.labels import ImageNetClass, imagenet_classes
from mmtool_starter.text import MiniLM

CENTRING = 0.5


def embed(encoder: MiniLM, texts: list[str]) -> Tensor:
    """`[N, 384]`, of length 1. One text at a time: no padding, so the last bits do not depend on company."""
    rows = []
    for text in texts:
        ids = encoder.prepare(text).unsqueeze(0)  # [1, L]
        rows.append(encoder.to_space(encoder(ids, torch.tensor([ids.shape[1]]))))
    return torch.cat(rows)


def vector(encoder: MiniLM, c: ImageNetClass) -> Tensor:
    """`[384]`, of length 1."""
    names = [c.label, *(c.synonyms.split(", ") if c.synonyms else [])]
    of_names = F.normalize(embed(encoder, names).mean(0), dim=0)
    of_definition = embed(encoder, [f"{', '.join(names)}: {c.definition}"])[0]
    return F.normalize(of_names + of_definition, dim=0)


def main() -> None:
    """Write data/class_table.safetensors (float16) and print its SHA-256, which `image.py` must state."""
    encoder = MiniLM().eval()
    encoder.load()
    with torch.inference_mode():
        table = torch.stack([vector(encoder, c) for c in imagenet_classes()])  # [1000, 384]
    data = save({"table": (table - CENTRING * table.mean(0)).half()})
    Path(__file__).with_name("data").joinpath("class_table.safetensors").write_bytes(data)
    sys.stdout.write(hashlib.sha256(data).hexdigest() + "\n")


if __name__ == "__main__":
    main()
