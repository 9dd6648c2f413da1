"""`torchaudio`: the bundles' own representations, rows that do not see each other, weights without a download."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchaudio
from safetensors.torch import save_file
from torch import Tensor, nn
from torchaudio.models import wav2vec2_model, wavlm_model

from mmtool import encoding
from mmtool.api import CellError, MMToolError, UsageError
from mmtool.encoders.torchaudio import Torchaudio

pytestmark = pytest.mark.usefixtures("small_bundles", "no_network")


def sound(samples: int = 6_000, seed: int = 0) -> Tensor:
    return torch.rand(samples, generator=torch.Generator().manual_seed(seed)) - 0.5


def reference(name: str) -> nn.Module:
    """What torchaudio itself would build, with random weights that are alike for each name."""
    bundle = getattr(torchaudio.pipelines, name)
    torch.manual_seed(7)
    return (wavlm_model if "WAVLM" in name else wav2vec2_model)(**bundle._params).eval()


@pytest.mark.parametrize("name", ["TINY_GROUP", "TINY_LAYER", "TINY_WAVLM"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_weights_gives_the_representations_of_torchaudio(tmp_path: Path, name: str, suffix: str) -> None:
    theirs, path = reference(name), tmp_path / f"w{suffix}"
    torch.save(theirs.state_dict(), path) if suffix == ".pth" else save_file(theirs.state_dict(), path)
    x = sound()
    if getattr(torchaudio.pipelines, name)._normalize_waveform:
        x = (x - x.mean()) / x.std(correction=0)
    with torch.inference_mode():
        layers, _ = theirs.extract_features(x.unsqueeze(0))
        last = theirs.encoder(theirs.feature_extractor(x.unsqueeze(0), None)[0], None)
        for layer, expected in ((None, last), (1, layers[0]), (3, layers[2])):
            option = "" if layer is None else f",layer={layer}"
            encoder = encoding.build(f"torchaudio:{name},weights={path}{option}").encoder
            tokens = encoder(encoder.prepare(sound()).unsqueeze(0), torch.tensor([6_000]))
            assert encoder.pretrained
            torch.testing.assert_close(tokens.values, expected, rtol=1e-5, atol=1e-5)
            assert bool(tokens.mask.all())


def test_weights_written_by_older_torch_are_read(tmp_path: Path) -> None:
    theirs = reference("TINY_GROUP")
    new = "pos_conv_embed.conv.parametrizations.weight.original"
    old = {n.replace(f"{new}0", "pos_conv_embed.conv.weight_g").replace(f"{new}1", "pos_conv_embed.conv.weight_v"): t
           for n, t in theirs.state_dict().items()}
    assert set(old) != set(theirs.state_dict())
    torch.save(old, tmp_path / "old.pth")
    encoder = encoding.build(f"torchaudio:TINY_GROUP,weights={tmp_path / 'old.pth'}").encoder
    expected = theirs.encoder.transformer.pos_conv_embed.conv.weight
    torch.testing.assert_close(encoder.model.encoder.transformer.pos_conv_embed.conv.weight, expected)


def test_padding_is_masked_only_where_the_network_allows_it() -> None:
    stated = {name: Torchaudio(pipeline=name, random=True).padding for name in ("TINY_GROUP", "TINY_LAYER", "TINY_WAVLM")}
    assert stated == {"TINY_GROUP": "none", "TINY_LAYER": "masked", "TINY_WAVLM": "none"}
    assert Torchaudio.padding == "masked"


def test_a_short_row_beside_a_long_one_is_what_it_is_alone(pooled: Callable[..., Tensor]) -> None:
    encoder = Torchaudio(pipeline="TINY_LAYER", random=True).eval()
    together = pooled(encoder, sound(900), sound(9_000, seed=1))
    torch.testing.assert_close(together[:1], pooled(encoder, sound(900)), rtol=0, atol=1e-5)


def test_loudness_is_taken_out_only_where_the_network_was_trained_so(pooled: Callable[..., Tensor]) -> None:
    normalised = Torchaudio(pipeline="TINY_LAYER", random=True).eval()
    torch.testing.assert_close(pooled(normalised, 0.1 * sound()), pooled(normalised, sound()), rtol=1e-3, atol=1e-3)
    as_given = Torchaudio(pipeline="TINY_GROUP", random=True)
    assert torch.equal(as_given.prepare(sound()), sound())


def test_a_sound_shorter_than_a_frame_is_a_bad_cell() -> None:
    encoder = Torchaudio(pipeline="TINY_GROUP", random=True).eval()
    with pytest.raises(CellError, match="399 samples, fewer than the 400"):
        encoder.prepare(sound(399))
    assert encoder(encoder.prepare(sound(400)).unsqueeze(0), torch.tensor([400])).values.shape == (1, 1, 16)


def test_random_weights_are_asked_for_and_said_to_be(tmp_path: Path) -> None:
    assert not encoding.build("torchaudio:TINY_GROUP,random=true").encoder.pretrained
    with pytest.raises(UsageError, match="exclude each other"):
        Torchaudio(pipeline="TINY_GROUP", random=True, weights=tmp_path / "w.pth")


def test_weights_that_are_not_at_hand_are_refused_without_a_connection(caches: Path) -> None:
    encoder = Torchaudio(pipeline="TINY_GROUP")
    assert encoder.pretrained
    with pytest.raises(MMToolError, match="TINY_GROUP are not on this machine") as info:
        encoder.load()
    assert "--allow-download" in info.value.hint and "weights=FILE" in info.value.hint


def test_weights_in_the_cache_of_torch_are_used(caches: Path) -> None:
    theirs = reference("TINY_LAYER")
    torch.save(theirs.state_dict(), caches / "torch/hub/checkpoints/tiny_layer.pth")
    encoder = encoding.build("torchaudio:TINY_LAYER,layer=1").encoder
    assert len(encoder.model.encoder.transformer.layers) == 1
    assert torch.equal(encoder.model.feature_extractor.conv_layers[3].conv.weight,
                       theirs.feature_extractor.conv_layers[3].conv.weight)


def test_with_permission_the_weights_are_fetched_once(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = []

    def fetch(url: str, path: str, progress: bool) -> None:
        fetched.append(url)
        torch.save(reference("TINY_WAVLM").state_dict(), path)

    monkeypatch.setenv("MMTOOL_ALLOW_DOWNLOAD", "1")
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    for _ in range(2):
        encoding.build("torchaudio:TINY_WAVLM")
    assert fetched == ["https://download.pytorch.org/torchaudio/models/tiny_wavlm.pth"]

    def fail(url: str, path: str, progress: bool) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(MMToolError, match=r"cannot be fetched from .*no route to host"):
        encoding.build("torchaudio:TINY_LAYER")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(reference("TINY_LAYER").state_dict(), tmp_path / "w.pth")
    with pytest.raises(MMToolError, match=r"w\.pth: (has unknown|lacks|shapes)"):
        encoding.build(f"torchaudio:TINY_GROUP,weights={tmp_path / 'w.pth'}")


def test_a_bundle_or_layer_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no speech pipeline 'WAV2VEC_BASE'; known: .*WAV2VEC2_BASE"):
        Torchaudio(pipeline="WAV2VEC_BASE", random=True)
    with pytest.raises(UsageError, match="no speech pipeline 'HDEMUCS_HIGH_MUSDB'"):
        Torchaudio(pipeline="HDEMUCS_HIGH_MUSDB", random=True)
    for layer in (0, 4):
        with pytest.raises(UsageError, match=f"layers 1 to 3, not {layer}"):
            Torchaudio(pipeline="TINY_GROUP", layer=layer, random=True)


def test_the_real_base_architecture_gives_fifty_tokens_a_second() -> None:
    encoder = encoding.build("torchaudio:WAV2VEC2_BASE,layer=1,random=true").encoder
    with torch.inference_mode():
        tokens = encoder(encoder.prepare(sound(16_000)).unsqueeze(0), torch.tensor([16_000]))
    assert tokens.values.shape == (1, 49, 768) and encoder.dim == 768 and encoder.sample_rate_hz == 16_000
    theirs = wav2vec2_model(**{**torchaudio.pipelines.WAV2VEC2_BASE._params, "encoder_num_layers": 1})
    g, v = (f"encoder.transformer.pos_conv_embed.conv.parametrizations.weight.original{i}" for i in (0, 1))
    own = {f"model.{n}" for n in theirs.state_dict() if n not in (g, v)}
    assert set(encoder.state_dict()) == own | {"model.encoder.transformer.pos_conv_embed.conv.weight"}
