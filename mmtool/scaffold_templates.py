"""What `mmtool plugins new` writes for an encoder, and around every kind. Words between two @ are filled in."""

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "mmtool-@NAME@"
version = "0.1.0"
dependencies = ["mmtool"]

[project.entry-points."mmtool.@KIND@s"]
@NAME@ = "@MODULE@:@CLASS@"

[tool.setuptools]
py-modules = ["@MODULE@"]
"""

TEST = """
import pytest
from mmtool.testing import @KIND@_checks


@pytest.mark.parametrize("check", @KIND@_checks("@NAME@"), ids=str)
def test_contract(check):
    check()
"""

README = """
# mmtool-@NAME@

@ABOUT@

```
mmtool plugins install .
mmtool plugins info @NAME@
mmtool plugins check @NAME@
@USE@
```

`@MODULE@.py` is all there is to change. @CARE@
"""

ABOUT = "An encoder of mmtool for the modality @MODALITY@."
USE = "mmtool extract data.csv -o feats -e COLUMN=@NAME@"
CARE = """Count `revision` up whenever its output changes, so that features written
before are not mixed with those written after."""

_CLASS = '''
class @CLASS@(Encoder):
    """{about}"""

    api = 1  # the version of mmtool's contract that this was written for
    modality = "@MODALITY@"  # what `prepare` gets
    revision = 1  # count it up when the output changes
    pretrained = True  # nothing to train; False where weights start out random
{more}'''

_IMAGE = '''
"""@NAME@: an encoder of mmtool for pictures."""

import torch

from mmtool.api import CellError, Encoder, Tokens

''' + _CLASS.format(more="", about="Colour histogram: how often each level of red, green and blue occurs.") + '''
    def __init__(self, *, bins: int = 16):  # options are keyword-only and annotated: @NAME@:bins=8
        super().__init__()
        self.bins = bins
        self.dim = 3 * bins  # D, the width of a token

    def prepare(self, cell):  # one picture, uint8 [3, H, W] -> [L, ...], on the CPU, in a reader process
        counts = [torch.histc(channel.float(), self.bins, 0, 256) for channel in cell]
        return torch.stack(counts) / cell[0].numel()  # [3, bins]

    def forward(self, x, lengths):  # a batch [B, 3, bins] -> tokens [B, 1, dim]
        return Tokens.pooled(x.flatten(1))
'''

_TEXT = '''
"""@NAME@: an encoder of mmtool for texts."""

import zlib

import torch

from mmtool.api import Encoder, Tokens

''' + _CLASS.format(more="", about="Hashed character trigrams: how often each bucket of them occurs, normalised.") + '''
    def __init__(self, *, buckets: int = 256):  # options are keyword-only and annotated: @NAME@:buckets=64
        super().__init__()
        self.dim = buckets  # D, the width of a token

    def prepare(self, cell):  # one text, a str -> [L, ...], on the CPU, in a reader process
        text = f" {cell.lower()} "  # not hash() below: it differs from process to process
        grams = [zlib.crc32(text[i : i + 3].encode()) % self.dim for i in range(len(text) - 2)]
        return torch.bincount(torch.tensor(grams), minlength=self.dim).float().unsqueeze(0)  # [1, dim]

    def forward(self, x, lengths):  # a batch [B, 1, dim] -> tokens [B, 1, dim]
        return Tokens.pooled(torch.nn.functional.normalize(x[:, 0], dim=1))
'''

_AUDIO = '''
"""@NAME@: an encoder of mmtool for sounds."""

import torch

from mmtool.api import CellError, Encoder, Tokens

''' + _CLASS.format(about="Energy envelope: loudness and zero crossings of every 25 ms.", more='''\
    sample_rate_hz = 16_000  # the host resamples to it
    dim = 2  # D, the width of a token
''') + '''
    def __init__(self, *, frame_ms: int = 25):  # options are keyword-only and annotated: @NAME@:frame_ms=50
        super().__init__()
        self.samples = self.sample_rate_hz * frame_ms // 1000

    def prepare(self, cell):  # one sound, float32 [S] in [-1, 1] -> [L, ...], on the CPU, in a reader process
        if len(cell) < self.samples:
            raise CellError(f"shorter than a frame of {self.samples} samples")  # the row goes on without it
        frames = cell.unfold(0, self.samples, self.samples)  # [L, samples]
        loudness = frames.square().mean(1).clamp(min=1e-8).log10()  # [L]
        crossings = (frames[:, 1:].sign() != frames[:, :-1].sign()).float().mean(1)  # [L]
        return torch.stack([loudness, crossings], 1)  # [L, 2]

    def forward(self, x, lengths):  # a batch [B, L, 2], padded with zeros, and its lengths [B] -> tokens [B, L, 2]
        return Tokens(x, torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(1))
'''

_TABLE = '''
"""@NAME@: an encoder of mmtool for tables."""

import math
import zlib

import torch

from mmtool.api import Encoder, Tokens

''' + _CLASS.format(more="", about="Hashed columns: a bucket for each number and for each column's text.") + '''
    def __init__(self, *, buckets: int = 64):  # options are keyword-only and annotated: @NAME@:buckets=128
        super().__init__()
        self.dim = buckets  # D, the width of a token

    def prepare(self, cell):  # one row, {column: number, str or None} -> [L, ...], on the CPU, in a reader process
        x = torch.zeros(1, self.dim)
        for column, value in sorted(cell.items()):
            number = isinstance(value, (int, float))  # not hash() below: it differs from process to process
            bucket = zlib.crc32((column if number else f"{column}={value}").encode()) % self.dim
            x[0, bucket] += math.asinh(value) if number else 1.0
        return x  # [1, dim]

    def forward(self, x, lengths):  # a batch [B, 1, dim] -> tokens [B, 1, dim]
        return Tokens.pooled(x[:, 0])
'''

OTHER = '''
"""@NAME@: an encoder of mmtool for the modality @MODALITY@."""

import torch

from mmtool.api import Encoder, Tokens

''' + _CLASS.format(about="Byte histogram: how often each byte occurs in the file.", more='''\
    dim = 256  # D, the width of a token
''') + '''
    def prepare(self, cell):  # a file's bytes, or a str that names none -> [L, ...]; put your own reading here
        data = cell.encode() if isinstance(cell, str) else cell
        return torch.bincount(torch.tensor(list(data)), minlength=256).float().unsqueeze(0) / len(data)  # [1, 256]

    def forward(self, x, lengths):  # a batch [B, 1, 256] -> tokens [B, 1, 256]
        return Tokens.pooled(x[:, 0])

    @classmethod
    def sample_cells(cls):  # what `mmtool plugins check` tries; let these be small files of your kind
        return [b"1,2,3", b"4,5,6,7", bytes(range(256))]
'''

MODULES = {"image": _IMAGE, "text": _TEXT, "audio": _AUDIO, "table": _TABLE}
