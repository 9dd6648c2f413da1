"""What the `sentencepiece` encoder learns: a sample of texts -> pieces -> vectors of pieces. No file is written."""

from __future__ import annotations

import io
import random
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np
import sentencepiece
import torch
from scipy.sparse import csr_array
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits
from torch import Tensor

from mmtool.api import DataError

MOST_TEXTS = 200_000
MOST_CHARACTERS = 20_000_000
"""Of all texts together: they need about 60 bytes each while pieces and vectors are learned."""
MOST_OF_ONE = 2_000
"""Characters of one text."""
RESERVED = 260
"""The bytes, the unknown piece, and a few to spare."""


def valid(text: str) -> str:
    """The text without halves of surrogate pairs, which JSON can bring and UTF-8 cannot write, and without NUL."""
    return text.replace("\0", " ").encode("utf-8", "replace").decode("utf-8")


def sample(cells: Iterable[str], most: int = MOST_TEXTS, characters: int = MOST_CHARACTERS) -> list[str]:
    """Texts drawn evenly in one pass (algorithm R of Vitter, 1985), always the same ones; blank ones are left out.

    Never more than `most`; whenever they have more than `characters` together, half of them are drawn again.
    """
    chance = random.Random(0)
    kept: list[str] = []
    seen = total = 0
    for cell in cells:
        text = valid(cell[:MOST_OF_ONE]).strip()
        if not text:
            continue
        seen += 1
        if len(kept) < most:
            kept.append(text)
            total += len(text)
        elif (place := chance.randrange(seen)) < most:
            total += len(text) - len(kept[place])
            kept[place] = text
        if total > characters and len(kept) > 1:
            most = len(kept) // 2
            kept = chance.sample(kept, most)
            total = sum(map(len, kept))
    return kept


def learn_pieces(texts: list[str], vocab_size: int, model_type: str, *, lowercase: bool) -> bytes:
    """The serialized SentencePiece model with at most `vocab_size` pieces. Raises MMToolError where none can be made."""
    written = io.BytesIO()
    sentences = _common_characters(texts, (vocab_size - RESERVED) // 2)
    try:
        sentencepiece.set_random_generator_seed(0)
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sentences, model_writer=written, vocab_size=vocab_size, model_type=model_type,
            normalization_rule_name="nmt_nfkc_cf" if lowercase else "nmt_nfkc", byte_fallback=True,
            hard_vocab_limit=False, character_coverage=0.9995, max_sentence_length=16 * MOST_OF_ONE,
            num_threads=1, bos_id=-1, eos_id=-1, minloglevel=2)
    except (RuntimeError, OSError) as error:
        raise DataError(f"no pieces can be learned from the {len(texts)} texts: {error}",
                        "give more text, or another encoder") from error
    return written.getvalue()


def _common_characters(texts: list[str], most: int) -> Iterator[str]:
    # Chinese or Japanese has more characters than a small vocabulary has room for, which SentencePiece refuses:
    # a space stands for the rarest, which the encoder then spells in bytes
    counts = Counter(chain.from_iterable(unicodedata.normalize("NFKC", text) for text in texts))
    kept = {c for c, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]}
    for text in texts:
        yield "".join(c if c in kept else " " for c in unicodedata.normalize("NFKC", text))


def latent_vectors(documents: Iterable[list[int]], pieces: int, dim: int) -> Tensor:
    """Ids of each document's pieces -> a vector for each piece, float32 `[pieces, dim]`, scaled by its idf.

    The sum of these vectors over a document is its place in the latent space, up to its length: a truncated
    singular value decomposition of tf-idf. Directions that the documents do not have are zero.
    """
    ids, ends = array("i"), array("q", [0])
    for document in documents:
        ids.extend(document)
        ends.append(len(ids))
    indices, indptr = np.frombuffer(ids, np.int32), np.frombuffer(ends, np.int64)
    counts = csr_array((np.ones(len(indices)), indices, indptr), shape=(len(indptr) - 1, pieces))  # [N, V]
    counts.sum_duplicates()
    n = counts.shape[0]
    found = np.bincount(counts.indices, minlength=pieces)  # documents with each piece, [V]
    idf = np.log((1 + n) / (1 + found)) + 1
    tfidf = csr_array((counts.data * idf[counts.indices], counts.indices, counts.indptr), shape=counts.shape)
    length = np.sqrt(np.asarray(tfidf.multiply(tfidf).sum(axis=1)).ravel())
    tfidf.data /= np.repeat(np.maximum(length, 1e-12), np.diff(tfidf.indptr))
    rank = min(dim, n, pieces)
    with threadpool_limits(1):  # the same bits with any number of cores
        _, strength, axes = randomized_svd(tfidf, rank, n_iter=4, random_state=0, flip_sign=True)  # [k], [k, V]
    axes[strength < 1e-6 * strength[0]] = 0
    vectors = np.zeros((pieces, dim))
    vectors[:, :rank] = axes.T * idf[:, None]
    return torch.from_numpy(vectors.astype(np.float32))
