"""effnet-lite0: timm's numbers, whatever the batch, and pictures among texts."""

import csv
import math

import numpy as np
import pytest
import timm
import torch
from mmtool_starter.image import EffNetLite0
from mmtool_starter.labels import LABELS, imagenet_classes
from mmtool_starter.make_class_table import vector
from PIL import Image, ImageDraw


def pixels(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


@pytest.fixture(scope="module")
def pictures():
    return list(torch.randint(0, 256, (9, 3, 240, 300), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))


@pytest.fixture(scope="module")
def clock():
    picture = Image.new("RGB", (300, 300), "white")
    draw = ImageDraw.Draw(picture)
    draw.ellipse((40, 40, 260, 260), outline="black", width=8)
    for hour in range(12):
        x, y = math.sin(hour * math.pi / 6), -math.cos(hour * math.pi / 6)
        draw.line((150 + 95 * x, 150 + 95 * y, 150 + 105 * x, 150 + 105 * y), fill="black", width=6)
    draw.line((150, 150, 200, 110), fill="black", width=8)
    draw.line((150, 150, 150, 60), fill="black", width=5)
    return pixels(picture)


def test_logits_are_those_of_timms_tf_efficientnet_lite0(effnet, pictures, run):
    reference = timm.create_model("tf_efficientnet_lite0").eval()
    names = [name for name in reference.state_dict() if "num_batches" not in name]
    ours = [v for name, v in effnet.network.state_dict().items() if "num_batches" not in name]
    reference.load_state_dict(dict(zip(names, ours, strict=True)), strict=False)
    x = torch.stack([effnet.prepare(p) for p in pictures[:3]])
    with torch.inference_mode():
        expected = reference((x / 255 - 0.5) / 0.5)
        torch.testing.assert_close(effnet.logits(run(effnet, pictures[:3])), expected,
                                   rtol=0, atol=1e-5 * expected.abs().max().item())


def test_tokens_are_the_final_map_whatever_the_batch(effnet, pictures, run, same):
    together = run(effnet, pictures)
    assert together.values.shape == (9, 49, 1280) and together.mask.all()
    for i in (0, 8):
        alone = run(effnet, pictures[i : i + 1])
        assert same(alone, type(alone)(together.values[i : i + 1], together.mask[i : i + 1]))
    assert torch.equal(run(effnet, pictures).values, together.values)


def test_prepare_gives_uint8_of_one_size(effnet):
    for h, w in ((1, 1), (224, 224), (50, 900)):
        cell = effnet.prepare(torch.zeros(3, h, w, dtype=torch.uint8))
        assert (cell.dtype, cell.shape) == (torch.uint8, (3, 224, 224))


def test_gradients_reach_the_stem_in_training_and_in_evaluation(effnet, pictures):
    encoder = EffNetLite0()
    encoder.load_state_dict(effnet.state_dict())
    x = torch.stack([encoder.prepare(p) for p in pictures[:2]])
    for training in (True, False):
        encoder.train(training).zero_grad()
        encoder(x, torch.tensor([3, 3])).mean().sum().backward()
        assert encoder.network.body[0].conv.weight.grad.abs().sum() > 0


@torch.inference_mode()
def test_a_drawn_clock_is_nearest_to_clocks(effnet, minilm, clock, run):
    labels = ["a clock", "a cat", "a car", "a banana", "a violin"]
    picture = effnet.to_space(run(effnet, [clock]))
    assert float(picture.norm()) == pytest.approx(1)
    assert (picture @ minilm.to_space(run(minilm, labels)).T).argmax() == 0
    assert LABELS[int(effnet.logits(run(effnet, [clock])).argmax())] == "analog clock"


def test_more_classes_change_the_vector_and_none_is_refused(effnet, clock, run):
    one = EffNetLite0(classes=1).eval()
    one.load_state_dict(effnet.state_dict())
    tokens = run(effnet, [clock])
    assert not torch.equal(one.to_space(tokens), effnet.to_space(tokens))
    with pytest.raises(ValueError, match="classes=0"):
        EffNetLite0(classes=0)


def test_the_class_table_is_what_its_script_makes(effnet, minilm):
    tench, clock = imagenet_classes()[0], imagenet_classes()[409]
    with torch.inference_mode():
        difference = vector(minilm, tench) - vector(minilm, clock)  # the centring cancels out
    torch.testing.assert_close(effnet.table[0] - effnet.table[409], difference, rtol=0, atol=3e-4)  # float16


@pytest.mark.real
def test_photographs_of_animals_are_near_their_kind(effnet, minilm, real_data, run):
    with (real_data / "stamps.csv").open(encoding="utf-8", newline="") as f:
        rows = [r for r in csv.DictReader(f) if r["split"] == "train"]
    kinds = ["birds", "fish", "insects", "mammals"]
    chosen = [r for kind in kinds for r in [r for r in rows if r["id"].startswith(f"animals/{kind}/")][:8]]
    cells = []
    for row in chosen:
        photo = Image.open(real_data / row["image"]).convert("RGBA")
        cells.append(pixels(Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo).convert("RGB")))
    scores = effnet.to_space(run(effnet, cells)) @ minilm.to_space(run(minilm, kinds)).T
    right = [kinds[i] in row["id"] for i, row in zip(scores.argmax(1).tolist(), chosen, strict=True)]
    assert sum(right) / len(right) > 0.6
