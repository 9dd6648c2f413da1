"""Pictures keep their colours together in memory, from the decoder to an encoder that wants them so; values stay the same."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor

from mmtool.api import Encoder, Tokens, resize_image
from mmtool.encoding import pad
from mmtool.engine import Engine


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    """`[3, H, W]` as it comes from the decoder."""
    made = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=made).permute(2, 0, 1)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (90, 51), (20, 31), (32, 32)])
@pytest.mark.parametrize("squash", [False, True])
def test_resizing_gives_the_same_values_however_a_picture_lies(height: int, width: int, squash: bool) -> None:
    x = picture(height, width)
    for interpolation in ("bilinear", "bicubic"):
        found = resize_image(x, 28, crop=0.875, squash=squash, interpolation=interpolation)  # type: ignore[arg-type]
        planes = resize_image(x.contiguous(), 28, crop=0.875, squash=squash, interpolation=interpolation)  # type: ignore[arg-type]
        assert torch.equal(found, planes) and found.shape == (3, 28, 28)
        assert found.stride(0) == 1 and found.stride(2) == 3


class Seen(Encoder):
    """Keeps what it got."""

    api: ClassVar[int] = 1
    modality: ClassVar[str] = "image"
    dim = 3
    x: Tensor

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        self.x = x
        return Tokens(x.float().mean((2, 3)).unsqueeze(1), (lengths > 0).unsqueeze(1))


class SeenColoursLast(Seen):
    channels_last: ClassVar[bool] = True


@pytest.mark.parametrize("lies", ["colours last", "planes"])
def test_an_encoder_gets_the_memory_that_it_states_whatever_the_cells_have(lies: str) -> None:
    cells = [picture(8, 9, seed) for seed in range(3)]
    given = [cell.contiguous() if lies == "planes" else cell for cell in cells]
    for encoder in (Seen(), SeenColoursLast()):
        engine = Engine(encoder, torch.device("cpu"), "fp32", 4)
        rows = engine.encode([given[0], None, *given[1:]], keep="tokens")
        assert [row is None for row in rows] == [False, True, False, False]
        assert torch.equal(encoder.x, torch.stack([cells[0], torch.zeros_like(cells[0]), *cells[1:]]))
        assert encoder.x.is_contiguous(memory_format=torch.channels_last if encoder.channels_last else torch.contiguous_format)


def test_only_pictures_of_one_size_lie_colours_last() -> None:
    x, _ = pad([torch.ones(3, 2), torch.zeros(3, 2)], channels_last=True)
    assert x.shape == (2, 3, 2) and x.is_contiguous()
    x, lengths = pad([torch.ones(3, 2, 2), torch.ones(4, 2, 2)], channels_last=True)
    assert x.shape == (2, 4, 2, 2) and lengths.tolist() == [3, 4]
