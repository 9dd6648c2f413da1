"""Pictures through any network of timm: the last feature map as tokens, the network's own pooled feature."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Any, ClassVar, Literal

import timm
import torch
from torch import Tensor, nn

from mmtool.api import ArtefactError, Encoder, StorageError, Tokens, UsageError, downloads_allowed, resize_image
from mmtool.encoders.timm_hub import cached_weights
from mmtool.encoders.timm_maps import FeatureMap
from mmtool.encoders.weights import fill, read_state


class Timm(Encoder):
    """`model` with a tag (`resnet18.a1_in1k`) takes its weights from the hub; `weights` is a file instead.

    With neither the weights are random. A tag with a file gives the tag's sizes and colours to the file's weights.
    `img_size`, in pixels, replaces the side of the square picture that the network was made for.
    Tokens are the positions of the last feature map, row by row, or a transformer's token sequence; the pooled
    feature is what timm gives its classifier, and may be wider than a token.
    Raises UsageError for a model, tag or size that timm does not know.
    """

    api: ClassVar[int] = 1
    modality: ClassVar[str] = "image"
    example: ClassVar[str] = "resnet18,img_size=64"
    model: Any
    mean: Tensor
    std: Tensor

    def __init__(self, *, model: str, weights: Path | None = None, img_size: int | None = None) -> None:
        super().__init__()
        name, tag = _known(model)
        if img_size is not None and img_size < 1:
            raise UsageError(f"timm: img_size={img_size} is not at least 1 pixel")
        self.name, self.tag, self.weights = model, tag, weights
        self.cfg: dict[str, Any] = timm.get_pretrained_cfg(model).to_dict()
        self.pretrained = bool(tag or weights)
        self.size_px = img_size or _side(name, self.cfg["input_size"])
        # convolutional networks take any size and have no such argument
        self.arguments = {"img_size": img_size} if img_size and self.cfg["fixed_input_size"] else {}
        data = timm.data.resolve_data_config(pretrained_cfg=self.cfg)
        self.squash = data["crop_mode"] == "squash"
        self.interpolation: Literal["bilinear", "bicubic"] = "bilinear" if data["interpolation"] == "bilinear" else "bicubic"
        self.crop = data["crop_pct"]
        self.image_size_px = self.whole_px = int(self.size_px / self.crop)
        # not persistent: they follow from the name, and must not travel with fine-tuned weights
        self.register_buffer("mean", torch.tensor(data["mean"]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(data["std"]).view(3, 1, 1), persistent=False)
        try:
            self.model = timm.create_model(model, pretrained=False, num_classes=0, **self.arguments)
            self.map = FeatureMap.of(self.model, self.size_px)
        except (TypeError, ValueError, AssertionError, RuntimeError, AttributeError) as error:
            size = f" at img_size={img_size}" if img_size else ""
            raise UsageError(f"timm cannot use {model}{size} as an encoder: {error}") from error
        self.dim = self.map.dim

    def load(self) -> None:
        """From `weights`, else from the hub's cache, else, if allowed, from the hub.

        Raises MMToolError for a file of another network, and where a download would be needed and is not allowed.
        """
        if self.weights is not None:
            self._fill(self.weights)
        elif self.tag:
            overlay = cached_weights(self.cfg)
            if not overlay and not downloads_allowed():
                raise StorageError(f"the weights of timm:{self.name} are not on this machine",
                                   "allow the download with --allow-download, or give weights=FILE", code="E_WEIGHTS_ABSENT")
            try:
                self.model = timm.create_model(self.name, pretrained=True, pretrained_cfg_overlay=overlay or None,
                                               num_classes=0, **self.arguments)
            except Exception as error:
                place = f"in {overlay['file']}" if overlay else "on the hub"
                raise ArtefactError(f"the weights of timm:{self.name} {place} cannot be loaded: {error}",
                                    "give weights=FILE", code="E_WEIGHTS") from error

    def _fill(self, path: Path) -> None:
        state = read_state(path)
        # timm's own translation of older names, and of position embeddings to another img_size
        translate = getattr(sys.modules[type(self.model).__module__], "checkpoint_filter_fn", None)
        if translate is not None:
            try:
                state = translate(state, self.model)
            except Exception as error:
                raise ArtefactError(f"weights {path}: they do not fit {self.name} ({type(error).__name__}: {error})",
                                    "name the model they belong to", code="E_WEIGHTS") from error
        classifier = self.cfg["classifier"] or ()
        names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        fill(self.model, state, str(path), optional=[f"{n}." for n in names])

    def prepare(self, cell: Tensor) -> Tensor:
        """uint8 `[3, H, W]` -> uint8 `[3, size, size]`, scaled and cut as the network was evaluated by timm."""
        if not self.squash:
            return resize_image(cell, self.size_px, crop=self.crop, interpolation=self.interpolation)
        whole = resize_image(cell, self.whole_px, squash=True, interpolation=self.interpolation)
        margin = (self.whole_px - self.size_px) // 2
        return whole[:, margin : margin + self.size_px, margin : margin + self.size_px]

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        """uint8 `[B, 3, size, size]` -> tokens `[B, T, dim]`; T is the same for every picture."""
        pixels = (x.float() / 255 - self.mean) / self.std  # [B, 3, size, size]
        pixels = pixels.to(next(self.model.parameters()).dtype)
        values = self.map.tokens(self.model.forward_features(pixels))  # [B, T, D]
        return Tokens(values, torch.ones(values.shape[:2], dtype=torch.bool, device=values.device))

    def pool(self, tokens: Tokens) -> Tensor:
        """The network's own feature before its classifier, `[B, pooled_dim]`; zero where a picture is missing."""
        values = tokens.values.masked_fill(~tokens.mask.unsqueeze(-1), 0)
        # a batch without any picture comes with one token a row
        values = nn.functional.pad(values, (0, 0, 0, self.map.count - values.shape[1]))  # [B, T, D]
        pooled: Tensor = self.model.forward_head(self.map.restore(values), pre_logits=True)
        return pooled.flatten(1).masked_fill(~tokens.present.unsqueeze(1), 0)


def _known(model: str) -> tuple[str, str]:
    name, _, tag = model.partition(".")
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=4)
        raise UsageError(f"timm has no model {name!r}", f"close to it: {', '.join(close)}" if close else
                         "timm.list_models() lists them, as do the pages of timm")
    tags = [n.partition(".")[2] for n in timm.list_pretrained(f"{name}.*")]
    if tag and tag not in tags:
        raise UsageError(f"timm has no weights {tag!r} for {name}", f"known: {', '.join(tags) or 'none'}")
    return name, tag


def _side(name: str, input_size: tuple[int, int, int]) -> int:
    _, height, width = input_size
    if height != width:
        raise UsageError(f"timm:{name} was made for pictures of {height} x {width}", "give img_size=PIXELS for square ones")
    return width
