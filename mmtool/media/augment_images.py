"""Augmentation of pictures, uint8 `[3, H, W]`. Every operation takes them from a single pixel up."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode, functional

SHIFT = 1 / 8
LEAST_AREA = 0.4
STRETCH = 4 / 3
DEGREES = 15.0
COLOUR = 0.4
ERASED = (0.02, 0.2)


class _Chance:
    """Numbers from a generator of its own."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def whole(self, low: int, high: int) -> int:
        """From `low` to `high`, both included."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))


def augment(image: Tensor, words: Sequence[str], seed: int) -> Tensor:
    """The operations that `words` name, in that order."""
    chance = _Chance(seed)
    for word in words:
        image = OPERATIONS[word](image, chance)
    return image.contiguous()


def _flip(image: Tensor, chance: _Chance) -> Tensor:
    return image.flip(2) if chance.whole(0, 1) else image


def _crop(image: Tensor, chance: _Chance) -> Tensor:
    # not scaled back: the encoder scales anyway, and twice is a loss
    h, w = image.shape[1:]
    area, ratio = chance.between(LEAST_AREA, 1), math.exp(chance.between(-math.log(STRETCH), math.log(STRETCH)))
    height = min(h, max(1, round(h * math.sqrt(area / ratio))))
    width = min(w, max(1, round(w * math.sqrt(area * ratio))))
    top, left = chance.whole(0, h - height), chance.whole(0, w - width)
    return image[:, top : top + height, left : left + width]


def _shift(image: Tensor, chance: _Chance) -> Tensor:
    h, w = image.shape[1:]
    y, x = (chance.whole(-int(n * SHIFT), int(n * SHIFT)) for n in (h, w))
    moved = torch.tensor(_border(image)).to(torch.uint8).view(3, 1, 1).repeat(1, h, w)
    moved[:, max(0, y) : h + y, max(0, x) : w + x] = image[:, max(0, -y) : h - y, max(0, -x) : w - x]
    return moved


def _rotate(image: Tensor, chance: _Chance) -> Tensor:
    angle = chance.between(-DEGREES, DEGREES)
    turned: Tensor = functional.rotate(image, angle, InterpolationMode.BILINEAR, fill=_border(image))
    return turned


def _border(image: Tensor) -> list[float]:
    edges = torch.cat([image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]], 1)  # [3, 2 H + 2 W]
    colours: list[float] = edges.float().mean(1).tolist()
    return colours


def _colour(image: Tensor, chance: _Chance) -> Tensor:
    for adjust in (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation):
        image = adjust(image, chance.between(1 - COLOUR, 1 + COLOUR))
    return image  # hue would cost as much as all else together


def _erase(image: Tensor, chance: _Chance) -> Tensor:
    h, w = image.shape[1:]
    if chance.whole(0, 1) or min(h, w) < 2:
        return image
    area, ratio = chance.between(*ERASED), math.exp(chance.between(-math.log(3), math.log(3)))
    height = min(h - 1, max(1, round(h * math.sqrt(area / ratio))))
    width = min(w - 1, max(1, round(w * math.sqrt(area * ratio))))
    top, left = chance.whole(0, h - height), chance.whole(0, w - width)
    noise = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=chance.generator)
    erased: Tensor = functional.erase(image, top, left, height, width, noise)
    return erased


def _drawn_by_torchvision(transform: type[nn.Module]) -> Callable[[Tensor, _Chance], Tensor]:
    def operation(image: Tensor, chance: _Chance) -> Tensor:
        # torchvision draws from torch's own generator: lent, then put back as it was (the CPU's alone)
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(chance.whole(0, 2**62))
        try:
            changed: Tensor = transform(interpolation=InterpolationMode.BILINEAR, fill=_border(image))(image)
        finally:
            torch.set_rng_state(state)
        # both can move all of a small or dark picture out of sight
        return image if bool((changed == changed[:, :1, :1]).all()) else changed
    return operation


OPERATIONS: dict[str, Callable[[Tensor, _Chance], Tensor]] = {
    "flip": _flip, "crop": _crop, "shift": _shift, "rotate": _rotate, "colour": _colour, "erase": _erase,
    "randaugment": _drawn_by_torchvision(v2.RandAugment),
    "trivial": _drawn_by_torchvision(v2.TrivialAugmentWide),
}
