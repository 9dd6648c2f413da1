"""Speech through the self-supervised networks of torchaudio: wav2vec 2.0, HuBERT, WavLM."""

from __future__ import annotations

import difflib
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar
from urllib.parse import urlparse

import torch
import torchaudio
from torch import Tensor, nn

from mmtool.api import CellError, Encoder, StorageError, Tokens, UsageError, downloads_allowed
from mmtool.encoders.weights import fill, read_state

HOME = "https://download.pytorch.org/torchaudio/models/"


class Torchaudio(Encoder):
    """A bundle of `torchaudio.pipelines`, such as WAV2VEC2_BASE, HUBERT_LARGE or WAVLM_BASE_PLUS.

    Tokens are the outputs of transformer block `layer`, from 1 on, or by default the network's last
    representation (50 a second); heads for transcription are left out. `weights` is a local file, `random`
    leaves the weights untrained.
    Raises UsageError for a bundle or layer that does not exist.
    Papers: Baevski et al., 2020; Hsu et al., 2021; Chen et al., 2022.
    """

    api: ClassVar[int] = 1
    modality: ClassVar[str] = "audio"
    example: ClassVar[str] = "WAV2VEC2_BASE,layer=2,random=true"
    model: Any

    def __init__(self, *, pipeline: str = "WAV2VEC2_BASE", weights: Path | None = None, layer: int | None = None,
                 random: bool = False) -> None:
        super().__init__()
        if random and weights:
            raise UsageError("torchaudio: random=true and weights=FILE exclude each other")
        self.bundle = _bundle(pipeline)
        self.pipeline, self.weights, self.layer = pipeline, weights, layer
        self.pretrained = not random
        self.random = random
        self.sample_rate_hz = int(self.bundle.sample_rate)
        layers = self.bundle._params["encoder_num_layers"]
        if layer is not None and not 1 <= layer <= layers:
            raise UsageError(f"torchaudio: {pipeline} has the layers 1 to {layers}, not {layer}")
        # neither the head for transcription nor the layers above the one that is asked for
        parameters = {**self.bundle._params, "aux_num_out": None, "encoder_num_layers": layer or layers}
        self.unused = ["aux.", *(f"encoder.transformer.layers.{i}." for i in range(layer or layers, layers))]
        self.dim = parameters["encoder_embed_dim"]
        wavlm = self.bundle._model_type == "WavLM"
        factory = torchaudio.models.wavlm_model if wavlm else torchaudio.models.wav2vec2_model
        self.model = factory(**parameters)
        # weight norm, which this convolution comes with, cannot be pickled, and readers may need that
        position = self.model.encoder.transformer.pos_conv_embed
        position.conv = nn.Conv1d(self.dim, self.dim, position.conv.kernel_size, padding=position.conv.padding,
                                  groups=position.conv.groups)
        # group norm takes its statistics over the padding too, and torchaudio's WavLM has no mask for its attention
        self.maskable = parameters["extractor_mode"] == "layer_norm" and not wavlm
        self.padding = "masked" if self.maskable else "none"  # type: ignore[misc]  # the contract's default is the class's
        self.least_samples = _receptive_field(parameters["extractor_conv_layer_config"])

    def load(self) -> None:
        """From `weights`, else from torch's hub cache, else, if allowed, from the hub; nothing where random.

        Raises MMToolError for a file of another network, and where a download would be needed and is not allowed.
        """
        if self.random:
            return
        path = self.weights
        if path is None:
            url = self.bundle._path if "://" in self.bundle._path else HOME + self.bundle._path
            path = Path(torch.hub.get_dir(), "checkpoints", PurePosixPath(urlparse(url).path).name)
            if not path.is_file():
                self._download(url, path)
        fill(self.model, _without_weight_norm(read_state(path)), str(path), optional=self.unused)

    def _download(self, url: str, path: Path) -> None:
        if not downloads_allowed():
            raise StorageError(f"the weights of torchaudio:{self.pipeline} are not on this machine",
                               "allow the download with --allow-download, or give weights=FILE", code="E_WEIGHTS_ABSENT")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), progress=False)
        except (OSError, RuntimeError) as error:
            raise StorageError(f"the weights of torchaudio:{self.pipeline} cannot be fetched from {url}: {error}",
                               "give weights=FILE", code="E_WEIGHTS_ABSENT") from error

    def prepare(self, cell: Tensor) -> Tensor:
        """float32 `[S]` -> `[S]`, with mean 0 and variance 1 where the network was trained so.

        Raises CellError for a sound that is shorter than one frame (25 ms).
        """
        if len(cell) < self.least_samples:
            raise CellError(f"the sound has {len(cell)} samples, fewer than the {self.least_samples} of one frame",
                            "E_SND_TOO_SHORT")
        # torchaudio does this over the whole batch; here a row must not depend on its neighbours
        return nn.functional.layer_norm(cell, cell.shape) if self.bundle._normalize_waveform else cell

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        """`[B, S]` -> tokens `[B, T, dim]`. Where `padding` is "none", all lengths are S."""
        x, lengths = x.to(next(self.model.parameters()).dtype), lengths.to(x.device)
        assert self.maskable or bool((lengths == x.shape[1]).all()), "padding is none: equal lengths only"
        frames, counts = self.model.feature_extractor(x, lengths)  # [B, T, C], [B]
        counts_or_none = counts if self.maskable else None
        if self.layer is None:
            values = self.model.encoder(frames, counts_or_none)  # [B, T, D]
        else:
            values = self.model.encoder.extract_features(frames, counts_or_none, self.layer)[-1]
        mask = torch.arange(values.shape[1], device=x.device) < counts.unsqueeze(1)  # [B, T]
        return Tokens(values, mask)


def _bundle(name: str) -> Any:
    kind = torchaudio.pipelines.Wav2Vec2Bundle
    bundles = {n: b for n, b in vars(torchaudio.pipelines).items() if isinstance(b, kind)}
    if name not in bundles:
        close = difflib.get_close_matches(name.upper(), sorted(bundles), n=3)
        raise UsageError(f"torchaudio has no speech pipeline {name!r}", f"known: {', '.join(close or sorted(bundles))}")
    return bundles[name]


def _without_weight_norm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The position convolution's direction and length, under the names of torch 1 or 2, as the one weight they make."""
    conv = "encoder.transformer.pos_conv_embed.conv."
    for g, v in (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1")):
        if conv + g in state and conv + v in state:
            length, direction = state[conv + g], state[conv + v]  # [1, 1, K], [C, C // groups, K]
            weight = direction * (length / direction.norm(dim=(0, 1), keepdim=True))
            kept = {n: t for n, t in state.items() if n not in (conv + g, conv + v)}
            return {**kept, conv + "weight": weight}
    return state


def _receptive_field(layers: list[tuple[int, int, int]] | None) -> int:
    # None stands for the layers of the papers
    samples = 1
    for _, kernel, stride in reversed(layers or [(512, 10, 5), *[(512, 3, 2)] * 4, *[(512, 2, 2)] * 2]):
        samples = (samples - 1) * stride + kernel
    return samples
