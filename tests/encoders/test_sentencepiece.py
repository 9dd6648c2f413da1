"""`sentencepiece`: pieces and meaning from the training texts alone, in any script, in bounded memory."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from sklearn.decomposition import TruncatedSVD
from torch import Tensor, nn

from mmtool import encoding
from mmtool.api import CellError, MMToolError, Tokens, UsageError
from mmtool.encoders import sentencepiece_fit
from mmtool.encoders.sentencepiece import SentencePiece

THEMES = {
    "kitchen": ["the cook stirs the soup", "soup in the pot", "a pot on the stove", "the stove and the cook",
                "the cook tastes soup from a pot"],
    "garage": ["the mechanic mends the engine", "an engine without oil", "oil for the car", "the car and its mechanic",
               "the mechanic pours oil into an engine"],
    "jardin": ["le jardinier plante des roses", "des roses au jardin", "le jardin du jardinier", "une rose rouge",
               "des roses rouges au jardin"],
    "зима": ["снег лежит на крыше", "белый снег зимой", "зимой холодно", "крыша под снегом", "холодный снег на крыше"],
    "海": ["海の魚は青い", "青い海を泳ぐ魚", "魚が海にいる", "海は広くて青い", "青い魚と広い海"],
}
TEXTS = [text for theme in THEMES.values() for text in theme]


@pytest.fixture(scope="module")
def fitted() -> SentencePiece:
    encoder = SentencePiece(dim=16).eval()
    encoder.fit(iter(TEXTS))
    return encoder


def test_texts_of_one_theme_are_nearer_than_those_of_another(fitted: SentencePiece,
                                                             pooled: Callable[..., Tensor]) -> None:
    vectors = pooled(fitted, *TEXTS)  # [25, 16]
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(TEXTS)))
    near = (vectors @ vectors.T).fill_diagonal_(-1)
    theme = torch.arange(5).repeat_interleave(5)
    assert (theme[near.argmax(1)] == theme).float().mean() > 0.9


def test_words_that_share_no_text_are_related_by_their_company(fitted: SentencePiece,
                                                               pooled: Callable[..., Tensor]) -> None:
    stove, pot, oil = pooled(fitted, "stove", "pot", "oil")
    assert stove @ pot > 0.3 > stove @ oil


def test_the_pooled_feature_is_the_latent_semantic_one(fitted: SentencePiece, pooled: Callable[..., Tensor]) -> None:
    ids = [fitted.prepare(text).tolist() for text in TEXTS]
    counts = np.zeros((len(TEXTS), fitted.embedding.num_embeddings))
    for row, document in enumerate(ids):
        np.add.at(counts[row], document, 1)
    tfidf = counts * (np.log((1 + len(TEXTS)) / (1 + (counts > 0).sum(0))) + 1)
    tfidf /= np.linalg.norm(tfidf, axis=1, keepdims=True)
    expected = TruncatedSVD(16, algorithm="arpack", random_state=1).fit_transform(tfidf)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    ours = pooled(fitted, *TEXTS).double().numpy()
    np.testing.assert_allclose(ours @ ours.T, expected @ expected.T, atol=0.05)


def test_the_same_texts_give_the_same_bits_and_others_do_not(fitted: SentencePiece) -> None:
    again = SentencePiece(dim=16)
    again.fit(iter(TEXTS))
    assert encoding.sha256_of(again.assets()) == encoding.sha256_of(fitted.assets())
    again.fit(iter(TEXTS[:15]))
    assert encoding.sha256_of(again.assets()) != encoding.sha256_of(fitted.assets())


def test_fit_leaves_the_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    SentencePiece(dim=4).fit(iter(TEXTS))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_assets_make_a_copy_that_trained_weights_fit_into(fitted: SentencePiece) -> None:
    trained = copy.deepcopy(fitted)
    with torch.no_grad():
        trained.embedding.weight += 1
    other = SentencePiece(dim=16)
    assert not other.pretrained
    other.set_assets(trained.assets())
    assert other.pretrained and torch.equal(other.embedding.weight, fitted.embedding.weight)
    other.load_state_dict(trained.state_dict())
    assert torch.equal(other.embedding.weight, fitted.embedding.weight + 1)
    assert torch.equal(other.assets()["vectors"], fitted.embedding.weight), "assets stay as they were fitted"
    assert isinstance(other.embedding, nn.Embedding) and other.embedding.weight.requires_grad


def test_a_pickled_encoder_prepares_the_same(fitted: SentencePiece) -> None:
    there = pickle.loads(pickle.dumps(fitted))  # noqa: S301  written a moment ago
    assert all(torch.equal(there.prepare(t), fitted.prepare(t)) for t in TEXTS)


@pytest.mark.parametrize("text", ["🚲👩‍👩‍👧", "दो पहिया", "\ud83d half a pair", "a\0b", "▁<unk><0x41>", "x" * 50_000, "\u0301"])
def test_any_text_is_read_after_training_on_others(fitted: SentencePiece, text: str,
                                                   pooled: Callable[..., Tensor]) -> None:
    ids = fitted.prepare(text)
    assert ids.dtype == torch.int64 and 0 < len(ids) <= fitted.pieces.max_pieces
    assert fitted.pieces.processor.unk_id() not in ids.tolist()
    assert bool(pooled(fitted, text).isfinite().all())


@pytest.mark.parametrize("text", ["", "  \n\t ", "\0", "\u200b"])
def test_a_text_without_anything_in_it_is_a_bad_cell(fitted: SentencePiece, text: str) -> None:
    with pytest.raises(CellError, match="no text left after tokenizing"):
        fitted.prepare(text)


def test_case_is_folded_unless_asked_otherwise(fitted: SentencePiece) -> None:
    assert torch.equal(fitted.prepare("The COOK"), fitted.prepare("the cook"))
    exact = SentencePiece(dim=4, lowercase=False)
    exact.fit(iter(TEXTS))
    assert not torch.equal(exact.prepare("The COOK"), exact.prepare("the cook"))


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
@pytest.mark.parametrize("texts", [["a"], ["one text alone"] * 3, ["🚲"], ["x" * 100_000], ["\ud800a\0"]])
def test_few_texts_give_few_pieces_and_zeros_for_absent_directions(model_type: str, texts: list[str]) -> None:
    encoder = SentencePiece(model_type=model_type, dim=32)
    encoder.fit(iter(texts))
    assert encoder.embedding.weight.shape == (encoder.pieces.processor.get_piece_size(), 32)
    assert bool(encoder.embedding.weight.isfinite().all())
    assert torch.equal(encoder.embedding.weight[:, 1:], torch.zeros(encoder.pieces.processor.get_piece_size(), 31))
    assert bool(encoder.embedding.weight[:, 0].any())


def test_more_characters_than_pieces_are_spelled_in_bytes() -> None:
    texts = ["".join(chr(0x4E00 + (7 * i + 31 * j) % 3_000) for j in range(60)) for i in range(100)]
    for model_type in ("unigram", "bpe"):
        encoder = SentencePiece(vocab_size=600, dim=8, model_type=model_type)
        encoder.fit(iter(texts))
        assert encoder.pieces.processor.get_piece_size() <= 600
        assert encoder.pieces.processor.decode(encoder.prepare(texts[0]).tolist()) == texts[0]


@pytest.mark.parametrize("texts", [[], ["", "  ", "\n"]])
def test_no_text_at_all_is_an_error(texts: list[str]) -> None:
    with pytest.raises(MMToolError, match="no text to learn pieces from"):
        SentencePiece().fit(iter(texts))


def test_before_fit_it_says_so() -> None:
    with pytest.raises(MMToolError, match="not learned yet"):
        SentencePiece().prepare("a text")
    assert SentencePiece.needs_fit() and SentencePiece().assets() == {}


@pytest.mark.parametrize("options", ["100", "4000,dim=0", "4000,max_pieces=0"])
def test_options_that_leave_nothing_to_learn_are_refused(options: str) -> None:
    with pytest.raises(UsageError, match="sentencepiece: "):
        encoding.build(f"sentencepiece:{options}")


def test_a_sample_is_even_bounded_and_always_the_same() -> None:
    taken = 0

    def cells() -> Iterator[str]:
        nonlocal taken
        for i in range(20_000):
            taken += 1
            yield f"text {i}"

    kept = sentencepiece_fit.sample(cells(), most=500)
    assert (len(kept), taken) == (500, 20_000) and len(set(kept)) == 500
    places = torch.tensor([float(text.split()[1]) for text in kept])
    assert abs(places.mean() - 10_000) < 1_000 and places.min() < 500 and places.max() > 19_500
    assert kept == sentencepiece_fit.sample(cells(), most=500)


def test_long_texts_leave_fewer_of_them_in_the_sample() -> None:
    kept = sentencepiece_fit.sample((f"{i} " + "x" * 5_000 for i in range(3_000)), characters=100_000)
    assert 25 <= len(kept) <= 50 and max(map(len, kept)) == sentencepiece_fit.MOST_OF_ONE
    places = sorted(int(text.split()[0]) for text in kept)
    assert places[len(places) // 2] > 600


def test_a_missing_text_pools_to_zeros(fitted: SentencePiece) -> None:
    assert torch.equal(fitted.pool(Tokens.from_rows([None], dim=16)), torch.zeros(1, 16))


def test_training_reaches_the_vectors(fitted: SentencePiece) -> None:
    encoder = copy.deepcopy(fitted).train()
    ids = encoder.prepare("soup in the pot")
    encoder.pool(encoder(ids.unsqueeze(0), torch.tensor([len(ids)])))[0, 0].backward()
    changed = encoder.embedding.weight.grad.any(1).nonzero()[:, 0]
    assert set(changed.tolist()) <= set(ids.tolist()) and len(changed)
