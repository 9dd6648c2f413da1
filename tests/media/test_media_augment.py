"""Augmentation: a function of cell, seed, epoch and row; words that are known; nothing too small for it."""

from __future__ import annotations

import math
import pickle
import random
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor

from mmtool.errors import UsageError
from mmtool.media.augment import _MODULES, WORDS, parse

TEXT = "A red bicycle,\n hardly used; with two wheels, three gears, one bell and a basket in front of it all"
POLICIES = [(modality, word) for modality, words in WORDS.items() for word in words]


def picture(height: int = 24, width: int = 30) -> Tensor:
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def tone(samples: int = 4000) -> Tensor:
    return 0.5 * torch.sin(torch.arange(samples) * (2 * math.pi * 0.05))


def cell_of(modality: str) -> Any:
    return {"image": picture, "text": lambda: TEXT, "audio": tone}[modality]()


def same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, Tensor) else bool(a == b)


@pytest.mark.parametrize(("modality", "word"), [*POLICIES, ("image", "crop,flip,colour,trivial"), ("text", "swap,drop"),
                                                ("audio", "speed,shift,gain,noise")])
def test_the_same_seed_epoch_and_row_give_the_same_bits_and_others_do_not(modality: str, word: str) -> None:
    policy, cell, kept = parse(word, modality), cell_of(modality), cell_of(modality)
    first = [policy.apply(cell, 1, epoch, 7) for epoch in range(12)]
    torch.manual_seed(99)
    random.seed(99)
    again = [pickle.loads(pickle.dumps(policy)).apply(cell, 1, epoch, 7) for epoch in range(12)]  # noqa: S301
    assert all(map(same, first, again))
    assert same(cell, kept), "the cell itself is left as it is"
    for others in (first, [policy.apply(cell, 1, 0, row) for row in range(12)],
                   [policy.apply(cell, seed, 0, 7) for seed in range(12)]):
        assert any(not same(other, others[0]) for other in others[1:])
        assert any(not same(other, cell) for other in others)


@pytest.mark.parametrize(("modality", "word"), POLICIES)
def test_the_generators_of_others_are_left_alone(modality: str, word: str) -> None:
    torch.manual_seed(5)
    random.seed(5)
    before, state = torch.get_rng_state(), random.getstate()
    parse(word, modality).apply(cell_of(modality), 0, 0, 0)
    assert torch.equal(torch.get_rng_state(), before) and random.getstate() == state


@pytest.mark.parametrize("word", WORDS["image"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1), (2, 3), (28, 28), (90, 7)])
def test_any_picture_stays_a_picture(word: str, height: int, width: int) -> None:
    channels_last = picture(height, width).permute(1, 2, 0).contiguous().permute(2, 0, 1)  # as it is decoded
    for image in (picture(height, width), channels_last):
        for row in range(30):
            changed = parse(word, "image").apply(image, 0, 0, row)
            assert changed.dtype == torch.uint8 and changed.is_contiguous()
            assert changed.shape[0] == 3 and min(changed.shape) >= 1
            assert changed.shape[1] <= height and changed.shape[2] <= width
            assert word == "crop" or changed.shape == image.shape


def test_flip_shift_and_crop_move_pixels_and_invent_none() -> None:
    image = picture()
    flipped = [parse("flip", "image").apply(image, 0, 0, row) for row in range(200)]
    assert 60 < sum(torch.equal(f, image.flip(2)) for f in flipped) < 140
    assert all(torch.equal(f, image) or torch.equal(f, image.flip(2)) for f in flipped)

    places = {(y, x) for y in range(-3, 4) for x in range(-3, 4)}
    found = set()
    for row in range(300):
        moved = parse("shift", "image").apply(image, 0, 0, row)
        found |= {(y, x) for y, x in places
                  if torch.equal(moved[:, max(0, y):24 + y, max(0, x):30 + x], image[:, max(0, -y):24 - y, max(0, -x):30 - x])}
    assert found == places, "an eighth of 24 and of 30 pixels each way"

    numbered = torch.arange(24 * 30).view(24, 30)
    marked = torch.stack([numbered // 256, numbered % 256, torch.zeros_like(numbered)]).to(torch.uint8)
    for row in range(50):
        cut = parse("crop", "image").apply(marked, 0, 0, row)
        top, left = divmod(int(cut[0, 0, 0]) * 256 + int(cut[1, 0, 0]), 30)
        assert torch.equal(cut, marked[:, top:top + cut.shape[1], left:left + cut.shape[2]])
        assert cut[0].numel() >= 0.3 * 24 * 30


@pytest.mark.parametrize("word", ["randaugment", "trivial"])
def test_a_small_picture_is_never_moved_out_of_sight(word: str) -> None:
    image = torch.zeros(3, 28, 28, dtype=torch.uint8)
    image[:, 8:20, 8:20] = picture(12, 12) | 64
    changed = [parse(word, "image").apply(image, 0, 0, row) for row in range(300)]
    assert all(int(c.max()) > int(c.min()) for c in changed)


def test_what_enters_a_shifted_or_turned_picture_has_the_colour_of_its_border() -> None:
    image = torch.full((3, 16, 16), 250, dtype=torch.uint8)
    image[:, 6:10, 6:10] = 200
    for row in range(20):
        assert int(parse("shift,rotate", "image").apply(image, 0, 0, row).min()) > 180  # torchvision darkens the seam a little


@pytest.mark.parametrize("word", WORDS["text"])
@pytest.mark.parametrize("text", ["", " ", "\n\t", "one", "  padded  ", "赤い自転車", "a b", "🚲 ✨"])
def test_a_text_keeps_a_word_of_its_own(word: str, text: str) -> None:
    for row in range(60):
        changed = parse(word, "text").apply(text, 0, 0, row)
        assert set(changed.split()) <= set(text.split())
        assert bool(changed.strip()) == bool(text.strip())


def test_swapped_texts_keep_their_words_and_spaces_and_dropped_ones_a_tenth_less() -> None:
    swapped = [parse("swap", "text").apply(TEXT, 0, 0, row) for row in range(50)]
    assert all(sorted(s.split()) == sorted(TEXT.split()) and s.count("\n") == 1 and len(s) == len(TEXT) for s in swapped)
    counts = [len(parse("drop", "text").apply(TEXT, 0, 0, row).split()) for row in range(300)]
    assert 0.88 < sum(counts) / 300 / len(TEXT.split()) < 0.92


@pytest.mark.parametrize("word", WORDS["audio"])
@pytest.mark.parametrize("sound", [torch.tensor([0.5]), torch.tensor([-1.0, 1.0]), torch.zeros(1), torch.zeros(500),
                                   torch.ones(37), tone()], ids=["one", "two", "zero", "silence", "full", "tone"])
def test_any_sound_stays_a_sound(word: str, sound: Tensor) -> None:
    for row in range(20):
        changed = parse(word, "audio").apply(sound, 0, 0, row)
        assert changed.dtype == torch.float32 and changed.ndim == 1 and len(changed) > 0
        assert bool(changed.isfinite().all()) and float(changed.abs().max()) <= 1
        assert word == "speed" or len(changed) == len(sound)


def test_sounds_change_by_as_much_as_is_said() -> None:
    sound = tone()
    lengths = {len(parse("speed", "audio").apply(sound, 0, 0, row)) for row in range(30)}
    assert lengths == {math.ceil(4000 * 10 / tenths) for tenths in (9, 10, 11)}
    gains = [float(parse("gain", "audio").apply(sound, 0, 0, row).abs().max() / sound.abs().max()) for row in range(100)]
    assert 0.5 < min(gains) < 0.6 and 1.8 < max(gains) <= 2.0
    for row in range(20):
        noise = parse("noise", "audio").apply(sound, 0, 0, row) - sound
        assert 9.5 < 10 * math.log10(float(sound.square().mean() / noise.square().mean())) < 30.5


@pytest.mark.parametrize(("text", "modality", "told"), [
    ("crop,spin", "image", "'spin'.*flip, crop, shift, rotate"), ("", "image", "''"), ("flip,", "image", "''"),
    ("flip,flip", "image", "twice"), ("flip", "audio", "shift, gain, noise, speed"), ("crop", "text", "drop, swap"),
    ("flip", "table", "audio, image, text")])
def test_unknown_words_are_refused_and_the_known_ones_told(text: str, modality: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parse(text, modality)


def test_every_word_that_is_listed_is_there() -> None:
    assert set(_MODULES) == set(WORDS)
    for modality, module in _MODULES.items():
        assert list(import_module(module).OPERATIONS) == list(WORDS[modality])
