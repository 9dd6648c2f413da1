"""minilm: sentence-transformers' numbers, whatever the batch, in any process."""

import copy
import multiprocessing
import pickle

import pytest
import torch
from mmtool_starter.bert import DIM, Bert

from mmtool.api import CellError, Tokens

GOLDEN = {  # sentence-transformers 6.2: the first four numbers, and the sum of all 384
    "A small dog.": ([0.078616, 0.064524, 0.030956, 0.078671], 0.31212),
    "Das ist eine Straße in 東京, naïve café!": ([0.071611, 0.040801, 0.025866, -0.001489], -0.03008),
    "word " * 400: ([-0.008124, -0.095586, -0.038673, 0.049662], -0.78597),
    "": ([-0.118838, 0.048299, -0.002548, -0.011011], 0.62907),
}


def test_embeddings_are_those_of_sentence_transformers(minilm, run):
    embedded = minilm.to_space(run(minilm, list(GOLDEN)))
    for vector, (first, total) in zip(embedded, GOLDEN.values(), strict=True):
        assert vector[:4].tolist() == pytest.approx(first, abs=1e-5)
        assert float(vector.sum()) == pytest.approx(total, abs=1e-4)
        assert float(vector.norm()) == pytest.approx(1)


def test_padding_and_company_change_nothing(minilm, run, same):
    cells = ["A small dog.", "A much longer text about a dog, a cat, and the weather of last week.", "rain"]
    together = run(minilm, cells)
    for i, cell in enumerate(cells):
        assert same(run(minilm, [cell]), Tokens(together.values[i : i + 1], together.mask[i : i + 1]))
    assert torch.equal(run(minilm, cells).values, together.values)


def test_layers_of_a_shorter_type_than_their_input_take_texts_of_different_lengths(minilm):
    """On CUDA, autocast gives products in bfloat16 beside sums in float32, and mixes them for `index_copy` no more."""
    class Short(torch.nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(x.float()).bfloat16()

    layer = copy.deepcopy(minilm.network.layers[0])
    for name in ("qkv", "out", "up", "down"):
        setattr(layer, name, Short(getattr(layer, name)))
    mask = torch.tensor([[True, True, True], [True, False, False]])
    at, which = torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 2, 3, 0, 0])
    x = torch.randn(4, 384, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        theirs = minilm.network.layers[0](x, at, which, mask)
        torch.testing.assert_close(layer(x, at, which, mask), theirs, rtol=5e-2, atol=5e-2)


def test_a_row_of_no_tokens_is_zero_and_stays_finite(minilm):
    with torch.inference_mode():
        tokens = minilm(torch.tensor([[101, 102], [0, 0]]), torch.tensor([2, 0]))
    assert minilm.to_space(tokens)[1].eq(0).all() and tokens.values.isfinite().all()


def test_long_texts_are_cut_at_256_tokens_in_little_time(minilm):
    assert len(minilm.prepare("word " * 2_000_000)) == 256


def test_text_that_is_not_unicode_is_a_bad_cell(minilm):
    with pytest.raises(CellError, match="not valid Unicode"):
        minilm.prepare("half a pair: \ud800")


def test_prepare_survives_pickling_and_a_spawned_process(minilm):
    ids = minilm.prepare("A small dog.")
    assert torch.equal(pickle.loads(pickle.dumps(minilm)).prepare("A small dog."), ids)  # noqa: S301
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_prepared, (minilm, "A small dog.")) == ids.tolist()


def _prepared(encoder, cell):
    return encoder.prepare(cell).tolist()


def test_a_batch_without_a_token_gives_nothing():
    with torch.no_grad():
        states = Bert()(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3, dtype=torch.bool))
    assert torch.equal(states, torch.zeros(2, 3, DIM))
