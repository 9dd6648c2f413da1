"""`timm`: the library's own features, its own pictures, and weights from files and caches only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlparse

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from mmtool import encoding
from mmtool.api import MMToolError, Tokens, UsageError
from mmtool.encoders.timm import Timm

pytestmark = pytest.mark.usefixtures("no_network")

KINDS = {  # the layout of the feature map, and the width of a token
    "resnet18": ("NCHW", 512), "mobilenetv3_small_050": ("NCHW", 288), "convnext_atto": ("NCHW", 320),
    "vit_tiny_patch16_224": ("NLC", 192), "levit_128s": ("NLC", 384), "swin_tiny_patch4_window7_224": ("NHWC", 768),
    "mambaout_femto": ("NHWC", 288),
}


def picture(height: int = 70, width: int = 90, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rough = torch.rand(1, 3, 6, 7, generator=generator)
    return (torch.nn.functional.interpolate(rough, (height, width), mode="bicubic")[0].clamp(0, 1) * 255).byte()


@pytest.mark.parametrize("model", KINDS)
def test_tokens_and_pooled_feature_are_those_of_timm(model: str) -> None:
    encoder = Timm(model=model, img_size=64).eval()
    x = torch.stack([encoder.prepare(picture(seed=i)) for i in range(2)])
    with torch.inference_mode():
        tokens = encoder(x, torch.tensor([3, 3]))
        features = encoder.model.forward_features((x.float() / 255 - encoder.mean) / encoder.std)
        expected = encoder.model.forward_head(features, pre_logits=True)
        torch.testing.assert_close(encoder.pool(tokens), expected, rtol=0, atol=0)
    layout, dim = KINDS[model]
    assert (encoder.map.layout, encoder.dim) == (layout, dim)
    flat = features if layout == "NLC" else features.flatten(1, 2) if layout == "NHWC" else features.flatten(2).mT
    torch.testing.assert_close(tokens.values, flat, rtol=0, atol=0)
    assert expected.shape[1] == {"mobilenetv3_small_050": 1024, "mambaout_femto": 1152}.get(model, dim)


def test_pooling_needs_no_forward_before_it(pooled: Callable[..., Tensor]) -> None:
    encoder = Timm(model="resnet18", img_size=64).eval()
    with torch.inference_mode():
        tokens = encoder(encoder.prepare(picture()).unsqueeze(0), torch.tensor([3]))
        fresh = Timm(model="resnet18", img_size=64).eval()
        fresh.load_state_dict(encoder.state_dict())
        assert torch.equal(fresh.pool(tokens), encoder.pool(tokens))


def test_a_batch_without_any_picture_pools_to_zeros() -> None:
    encoder = Timm(model="mobilenetv3_small_050", img_size=64).eval()
    torch.nn.init.ones_(encoder.model.conv_head.bias)  # or the head would give zeros for zeros by itself
    none = Tokens.from_rows([None, None], dim=encoder.dim)
    assert torch.equal(encoder.pool(none), torch.zeros(2, 1024))


@pytest.mark.parametrize(("model", "size"), [("resnet18", (120, 333)), ("resnet18", (400, 300)),
                                             ("convnext_atto", (300, 300)), ("mobilenetv3_small_050", (500, 260)),
                                             ("tf_efficientnetv2_b3.in21k_ft_in1k", (200, 320))])
def test_pictures_are_cut_and_scaled_as_timm_does(model: str, size: tuple[int, int]) -> None:
    encoder = Timm(model=model)
    image = picture(*size)
    theirs = timm.data.create_transform(**timm.data.resolve_model_data_config(encoder.model))
    expected = theirs(Image.fromarray(image.permute(1, 2, 0).numpy()))
    ours = (encoder.prepare(image).float() / 255 - encoder.mean) / encoder.std
    assert ours.shape == expected.shape
    # the centre of an odd margin may be one pixel off, and no more
    inner = ours[:, 1:-1, 1:-1]
    side = inner.shape[-1]
    shifted = [expected[:, i : i + side, j : j + side] for i in range(3) for j in range(3)]
    assert min(float((inner - x).abs().mean()) for x in shifted) < 0.005


def test_a_picture_is_scaled_whole_where_the_network_was_evaluated_so() -> None:
    encoder = Timm(model="tf_efficientnetv2_b3.in21k_ft_in1k")
    assert encoder.squash and encoder.image_size_px == 266 and encoder.prepare(picture()).shape == (3, 240, 240)


def test_the_shorter_side_that_is_decoded_is_the_resize_size() -> None:
    assert Timm(model="resnet18").image_size_px == int(224 / 0.95)
    assert Timm(model="resnet18", img_size=160).image_size_px == int(160 / 0.95)


def test_a_model_that_timm_does_not_know_is_refused_with_close_names() -> None:
    with pytest.raises(UsageError, match=r"no model 'resnet81'.*resnet18"):
        Timm(model="resnet81")
    with pytest.raises(UsageError, match=r"no weights 'nonsense' for resnet18; known: .*a1_in1k"):
        Timm(model="resnet18.nonsense")
    with pytest.raises(UsageError, match="no model 'hf-hub:timm/resnet18'"):
        Timm(model="hf-hub:timm/resnet18")


def test_what_cannot_be_an_encoder_is_refused() -> None:
    with pytest.raises(UsageError, match="coat_tiny as an encoder: its features are a list, no single map"):
        Timm(model="coat_tiny")
    with pytest.raises(UsageError, match="at img_size=56"):
        Timm(model="levit_128s", img_size=56)
    with pytest.raises(UsageError, match="img_size=0"):
        Timm(model="resnet18", img_size=0)
    with pytest.raises(UsageError, match="needs model="):
        encoding.build("timm")


def test_without_tag_and_file_the_weights_are_random_and_said_to_be() -> None:
    built = encoding.build("timm:mobilenetv3_small_050,img_size=64")
    assert not built.encoder.pretrained
    assert encoding.identity(built) == encoding.identity(encoding.build("timm:mobilenetv3_small_050,img_size=64"))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_of_weights_is_loaded_with_or_without_its_classifier(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(5)
    source = timm.create_model("resnet18", num_classes=1000).eval()
    x = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    for state in (source.state_dict(), {n: t for n, t in source.state_dict().items() if not n.startswith("fc.")}):
        path = tmp_path / f"weights{suffix}"
        save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state, "epoch": 3}, path)
        encoder = encoding.build(f"timm:resnet18,img_size=64,weights={path}").encoder
        assert encoder.pretrained
        with torch.inference_mode():
            expected = source.forward_head(source.forward_features((x.float() / 255 - encoder.mean) / encoder.std),
                                           pre_logits=True)
            assert torch.equal(encoder.pool(encoder(x, torch.tensor([3, 3]))), expected)


def test_position_embeddings_are_resampled_to_another_size(tmp_path: Path) -> None:
    source = timm.create_model("vit_tiny_patch16_224", num_classes=3)
    torch.save(source.state_dict(), tmp_path / "vit.pth")
    encoder = encoding.build(f"timm:vit_tiny_patch16_224,img_size=64,weights={tmp_path / 'vit.pth'}").encoder
    assert encoder.model.pos_embed.shape == (1, 17, 192)
    assert torch.equal(encoder.model.blocks[3].mlp.fc1.weight, source.blocks[3].mlp.fc1.weight)


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    save_file(timm.create_model("resnet26").state_dict(), tmp_path / "w.safetensors")
    for model in ("resnet18", "vit_tiny_patch16_224"):
        with pytest.raises(MMToolError, match=r"w\.safetensors.*(shapes of another network|lacks|do not fit)"):
            encoding.build(f"timm:{model},weights={tmp_path / 'w.safetensors'}")


def test_building_opens_no_file_and_loading_names_the_absent_one(tmp_path: Path) -> None:
    encoder = Timm(model="resnet18", weights=tmp_path / "gone.pth")
    assert encoder.pretrained
    with pytest.raises(MMToolError, match=r"gone\.pth: there is no such file"):
        encoder.load()


def test_a_tag_without_cache_and_permission_is_refused(caches: Path) -> None:
    encoder = Timm(model="resnet18.a1_in1k")
    with pytest.raises(MMToolError, match="not on this machine") as info:
        encoder.load()
    assert "--allow-download" in info.value.hint and "weights=FILE" in info.value.hint


def test_a_tag_takes_its_weights_from_either_cache(caches: Path) -> None:
    cfg = timm.get_pretrained_cfg("resnet18.a1_in1k")
    state = timm.create_model("resnet18").state_dict()
    torch.save(state, caches / "torch/hub/checkpoints" / Path(urlparse(cfg.url).path).name)
    encoder = encoding.build("timm:resnet18.a1_in1k").encoder
    assert torch.equal(encoder.model.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])

    repository = caches / "hub/models--timm--resnet18.a1_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    other = {n: t + 1 if t.is_floating_point() else t for n, t in state.items()}
    save_file(other, repository / "snapshots" / ("0" * 40) / "model.safetensors")
    encoder = encoding.build("timm:resnet18.a1_in1k").encoder
    assert torch.equal(encoder.model.layer4[1].conv2.weight, other["layer4.1.conv2.weight"])


def test_with_permission_timm_fetches_the_weights(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Timm(model="resnet18.a1_in1k", img_size=64)
    asked = []
    monkeypatch.setenv("MMTOOL_ALLOW_DOWNLOAD", "1")
    monkeypatch.setattr(timm, "create_model", lambda name, **options: asked.append((name, options)) or encoder.model)
    encoder.load()
    assert asked == [("resnet18.a1_in1k", {"pretrained": True, "pretrained_cfg_overlay": None, "num_classes": 0})]

    def fail(name: str, **options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(MMToolError, match="on the hub cannot be loaded: no route to host"):
        encoder.load()
