"""The layout of the feature maps of timm's networks: to tokens `[B, T, D]` and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class FeatureMap:
    """What `forward_features` of one network gives for square pictures of one size."""

    layout: Literal["NCHW", "NHWC", "NLC", "NC"]
    count: int
    """T, tokens of a picture."""
    rows: int
    """H of the map; 1 where there is none."""
    dim: int
    """D, width of a token."""

    @classmethod
    def of(cls, model: nn.Module, size_px: int) -> FeatureMap:
        """Found by a pass without data. Raises ValueError where a network gives no single map or no pooled feature."""
        training = model.training
        shape = tuple(_shape(model.eval(), size_px))
        model.train(training)
        if len(shape) == 2:
            return cls("NC", 1, 1, shape[1])
        if len(shape) == 3:
            return cls("NLC", shape[1], 1, shape[2])
        if len(shape) != 4:
            raise ValueError(f"its features have the shape {list(shape)}")
        stated = str(getattr(model, "output_fmt", "") or "").rpartition(".")[2]
        if stated == "NHWC" or (stated != "NCHW" and shape[1] != model.num_features == shape[3]):
            return cls("NHWC", shape[1] * shape[2], shape[1], shape[3])
        return cls("NCHW", shape[2] * shape[3], shape[2], shape[1])

    def tokens(self, features: Tensor) -> Tensor:
        """The network's features -> `[B, T, D]`, the map's positions row by row."""
        if self.layout == "NC":
            return features.unsqueeze(1)
        if self.layout == "NCHW":
            return features.flatten(2).transpose(1, 2)
        return features.flatten(1, 2) if self.layout == "NHWC" else features

    def restore(self, tokens: Tensor) -> Tensor:
        """`[B, T, D]` -> the network's features, in its own memory layout: another one has other last bits."""
        if self.layout == "NC":
            return tokens[:, 0]
        if self.layout == "NCHW":
            return tokens.transpose(1, 2).reshape(len(tokens), self.dim, self.rows, -1).contiguous()
        return tokens.reshape(len(tokens), self.rows, -1, self.dim) if self.layout == "NHWC" else tokens


class _Probe(nn.Module):
    model: Any

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        features = self.model.forward_features(x)
        if isinstance(features, Tensor):
            self.model.forward_head(features, pre_logits=True)
        return features


def _shape(model: nn.Module, size_px: int) -> torch.Size:
    probe = _Probe(model)
    picture = torch.zeros(1, 3, size_px, size_px)
    with torch.no_grad():
        try:
            weights = {n: t.to("meta") for n, t in [*probe.named_parameters(), *probe.named_buffers()]}
            features = torch.func.functional_call(probe, weights, (picture.to("meta"),))
        except (RuntimeError, NotImplementedError):
            features = probe(picture)  # a network that looks at values, which the meta device has none of
    if not isinstance(features, Tensor):
        raise ValueError(f"its features are a {type(features).__name__}, no single map")
    return features.shape
