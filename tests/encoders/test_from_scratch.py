"""The encoders without pretrained weights: they learn, are seeded, keep what they fitted, and refuse odd options."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmtool import encoding
from mmtool.api import CellError, Encoder, MMToolError, UsageError
from mmtool.encoders.log_mel import LogMel, spec_augment
from mmtool.encoders.recurrent import mean_and_max
from mmtool.testing import encoder_checks

CELLS = ("lstm", "bilstm", "gru", "bigru", "rnn", "birnn")
RATE_HZ = 8_000
SMALL = {"image-cnn": "image-cnn:2,width=8,img_size=16", "text-rnn": "text-rnn:bilstm,dim=16,width=12,vocab_size=512",
         "text-transformer": "text-transformer:1,heads=2,dim=16,ff=32,vocab_size=512",
         "audio-cnn": "audio-cnn:2,sample_rate=8000,n_mels=16,width=4",
         "audio-rnn": "audio-rnn:sample_rate=8000,n_mels=16,width=12,layers=1"}
NEEDED = {"gives-tokens", "batching-changes-nothing", "repeats-its-bits", "pools-to-one-width", "ignores-masked-values",
          "stays-finite-where-missing", "survives-save-and-load", "can-be-pickled", "prepares-in-another-process",
          "builds-without-files"}


def pictures() -> list[tuple[Tensor, int]]:
    """Stripes that lie or stand, in noise, anywhere."""
    chance = torch.Generator().manual_seed(0)
    made = []
    for i in range(64):
        stripes = ((torch.arange(20) + i) % 6 < 3).float() * 120
        picture = stripes.expand(20, 20) if i % 2 else stripes.unsqueeze(1).expand(20, 20)
        noise = torch.randint(0, 120, (3, 20, 20), generator=chance)
        made.append(((picture + noise).to(torch.uint8), i % 2))
    return made


def texts() -> list[tuple[str, int]]:
    """The same words: does the cat chase the dog, or the dog the cat?"""
    ends = ("", " today", " in the garden", " again and again", " far away from the house and the street")
    return [(f"{start}the {a} chases the {b}{end}", int(a == "cat"))
            for end in ends for start in ("", "now ", "they say that ") for a, b in (("cat", "dog"), ("dog", "cat"))]


def sounds() -> list[tuple[Tensor, int]]:
    """A tone that rises, or one that falls, of several lengths and loudnesses."""
    made = []
    for i in range(32):
        time_s = torch.arange(round(RATE_HZ * (0.3 + 0.02 * (i % 7)))) / RATE_HZ
        rising = 500 + 40 * (i % 5) + 1500 * time_s / time_s[-1]
        hz = rising if i % 2 else rising.flip(0)
        made.append((0.1 * (1 + i % 4) * torch.sin(2 * math.pi * torch.cumsum(hz / RATE_HZ, 0)), i % 2))
    return made


def examples(modality: str) -> list[tuple[Any, int]]:
    made: dict[str, Callable[[], list[Any]]] = {"image": pictures, "text": texts, "audio": sounds}
    return made[modality]()


def fitted(spec: str, cells: list[Any], seed: int = 0) -> Encoder:
    encoder = encoding.build(spec, seed=seed).encoder
    if encoder.needs_fit():
        encoder.fit(iter(cells))
    return encoder


def learned(spec: str, steps: int, lr: float) -> tuple[float, float]:
    """Accuracy on made examples before and after some steps of AdamW, the encoder trained with a linear head."""
    data = examples(encoding.build(spec).encoder.modality)
    encoder = fitted(spec, [cell for cell, _ in data])
    x, lengths = encoding.pad([encoder.prepare(cell) for cell, _ in data])
    y = torch.tensor([label for _, label in data])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = nn.LazyLinear(2)

        def accuracy() -> float:
            encoder.eval()
            with torch.no_grad():
                return float((head(encoder.pool(encoder(x, lengths))).argmax(1) == y).float().mean())

        before = accuracy()
        optimiser = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=lr)
        encoder.train()
        for _ in range(steps):
            loss = nn.functional.cross_entropy(head(encoder.pool(encoder(x, lengths))), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return before, accuracy()


@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
@pytest.mark.parametrize(("spec", "steps", "lr"), [
    (SMALL["image-cnn"], 30, 1e-2), (SMALL["text-transformer"], 60, 1e-2), (SMALL["audio-cnn"], 60, 1e-2),
    (SMALL["audio-rnn"], 60, 1e-2), *((f"text-rnn:{cell},dim=16,width=12,vocab_size=512", 40, 2e-2) for cell in CELLS)])
def test_a_few_steps_learn_what_order_and_place_say(spec: str, steps: int, lr: float) -> None:
    before, after = learned(spec, steps, lr)
    assert before < 0.9
    assert after > 0.95


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("spec", [
    "image-cnn:1,width=4,img_size=7", "image-cnn:4,width=2,img_size=32,dropout=0.5",
    *(f"text-rnn:{cell},dim=6,width=5,vocab_size=512" for cell in CELLS), "text-rnn:layers=2,dim=8,width=6,max_pieces=9",
    "text-transformer:1,heads=1,dim=8,ff=8,max_pieces=5,vocab_size=600,lowercase=false",
    "audio-cnn:3,width=2,n_mels=17,sample_rate=11025,mask=false", "audio-cnn:1,width=3,max_seconds=0.5",
    "audio-rnn:gru,stack=1,width=5,n_mels=8", "audio-rnn:rnn,stack=7,layers=3,width=5,max_seconds=0.2",
])
def test_variant_keeps_the_contract(spec: str) -> None:
    outcomes = {str(check): check.run() for check in encoder_checks(spec)}
    assert [f"{o.check}: {o.reason}" for o in outcomes.values() if o.status == "failed"] == []
    ragged = set() if spec.startswith("image") else {"ignores-padding"}
    assert {name for name, o in outcomes.items() if o.status == "ok"} >= NEEDED | ragged


@pytest.mark.parametrize("name", SMALL)
def test_the_seed_alone_decides_the_weights(name: str) -> None:
    cells = [cell for cell, _ in examples(encoding.build(SMALL[name]).encoder.modality)]
    digests = []
    for state, seed in ((1, 0), (2, 0), (1, 5)):
        torch.manual_seed(state)  # of the generator when `fit` makes what it could not know before
        encoder = fitted(SMALL[name], cells, seed)
        assert encoder.pretrained is False
        digests.append(encoding.sha256_of(dict(encoder.state_dict())))
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("name", SMALL)
def test_training_draws_from_torch_and_changes_with_the_seed(name: str) -> None:
    data = examples(encoding.build(SMALL[name]).encoder.modality)
    spec = SMALL[name] + ",dropout=0.3"
    encoder = fitted(spec, [cell for cell, _ in data]).train()
    x, lengths = encoding.pad([encoder.prepare(cell) for cell, _ in data])
    outputs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outputs.append(encoder.pool(encoder(x, lengths)))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize("name", ["text-rnn", "text-transformer"])
def test_fitted_pieces_round_trip_and_texts_are_needed(name: str) -> None:
    encoder, other = fitted(SMALL[name], [text for text, _ in texts()]), encoding.build(SMALL[name], seed=3).encoder
    assert other.assets() == {}
    with pytest.raises(MMToolError, match="not learned yet"):
        other.prepare("a cat")
    with pytest.raises(MMToolError, match="no text to learn"):
        other.fit(iter(["", "  "]))
    other.set_assets(encoder.assets())
    assert torch.equal(other.prepare("the cat, the dog"), encoder.prepare("the cat, the dog"))
    other.load_state_dict(encoder.state_dict())
    with pytest.raises(CellError):
        encoder.prepare("")


@pytest.mark.parametrize("name", ["text-rnn", "text-transformer", "audio-cnn", "audio-rnn"])
def test_a_row_without_steps_has_no_tokens_and_stays_finite(name: str) -> None:
    data = examples(encoding.build(SMALL[name]).encoder.modality)
    encoder = fitted(SMALL[name], [cell for cell, _ in data]).eval()
    x, lengths = encoding.pad([encoder.prepare(cell) for cell, _ in data[:3]])
    tokens = encoder(x, torch.tensor([int(lengths[0]), 0, int(lengths[2])]))
    pooled = encoder.pool(tokens)
    assert tokens.present.tolist() == [True, False, True]
    assert bool(tokens.values.isfinite().all()) and bool(pooled.isfinite().all())
    assert not pooled[1].any()
    pooled.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in encoder.parameters() if p.grad is not None)


def test_batch_norm_of_sounds_does_not_see_their_padding() -> None:
    cells = [sound for sound, _ in sounds()[:8]]
    means = []
    for extra in (0, 50):
        encoder = encoding.build(SMALL["audio-cnn"] + ",mask=false,dropout=0").encoder.train()
        x, lengths = encoding.pad([encoder.prepare(cell) for cell in cells])
        encoder(nn.functional.pad(x, (0, 0, 0, extra)), lengths)
        means.append(torch.cat([b for n, b in encoder.named_buffers() if n.endswith("running_mean")]))
    torch.testing.assert_close(means[0], means[1])


def test_log_mel_forgets_loudness_keeps_pitch_and_cuts_what_is_long() -> None:
    log_mel = LogMel("audio-cnn", sample_rate=RATE_HZ, n_mels=32, max_seconds=1.0)
    low, high = (torch.sin(2 * math.pi * hz * torch.arange(3 * RATE_HZ) / RATE_HZ) for hz in (300.0, 2500.0))
    frames = log_mel.frames(low)
    assert frames.shape == (98, 32)  # whole windows of 25 ms every 10 ms in one second
    torch.testing.assert_close(log_mel.frames(0.01 * low), frames, atol=1e-3, rtol=0)
    assert frames.mean(0).argmax() < log_mel.frames(high).mean(0).argmax() - 10
    assert abs(float(frames.mean())) < 1e-5 and abs(float(frames.std()) - 1) < 1e-3
    assert not log_mel.frames(torch.zeros(400)).any()
    with pytest.raises(CellError, match="no samples"):
        log_mel.frames(torch.zeros(0))


def test_spec_augment_hides_stretches_and_nothing_else() -> None:
    torch.manual_seed(0)
    frames = torch.ones(16, 120, 40)
    masked = spec_augment(frames) == 0  # [B, T, M]
    steps, bands = masked.all(2), masked.all(1)
    assert torch.equal(masked, steps.unsqueeze(2) | bands.unsqueeze(1))
    assert 0 < steps.float().mean() < 0.4 and 0 < bands.float().mean() < 0.4
    assert len({tuple(row) for row in bands.tolist()}) > 8, "each row has its own"


@pytest.mark.parametrize("cell", ["lstm", "birnn"])
def test_pooled_recurrent_outputs_are_mean_and_maximum(cell: str) -> None:
    encoder = fitted(f"text-rnn:{cell},dim=6,width=5,vocab_size=512", [text for text, _ in texts()]).eval()
    x, lengths = encoding.pad([encoder.prepare(text) for text in ("the cat", "the dog chases a cat far away")])
    tokens = encoder(x, lengths)
    expected = torch.stack([torch.cat([row.mean(0), row.amax(0)]) for row in tokens.rows()])
    torch.testing.assert_close(encoder.pool(tokens), expected)
    torch.testing.assert_close(mean_and_max(tokens), expected)
    assert encoder.dim == (10 if cell == "birnn" else 5)


@pytest.mark.parametrize("spec", [
    "image-cnn:0", "image-cnn:width=0", "image-cnn:3,img_size=7", "image-cnn:dropout=1", "image-cnn:dropout=nan",
    "text-rnn:transformer", "text-rnn:width=0", "text-rnn:layers=0", "text-rnn:dim=0", "text-rnn:vocab_size=100",
    "text-rnn:max_pieces=0", "text-rnn:dropout=-0.1", "text-transformer:heads=3", "text-transformer:heads=1,dim=3",
    "text-transformer:layers=0", "text-transformer:ff=0", "text-transformer:max_pieces=0", "text-transformer:dropout=1",
    "audio-cnn:0", "audio-cnn:4,n_mels=31", "audio-cnn:width=0", "audio-cnn:sample_rate=10", "audio-cnn:max_seconds=0",
    "audio-rnn:stack=0", "audio-rnn:n_mels=4", "audio-rnn:layers=0", "audio-rnn:width=0", "audio-rnn:max_seconds=1e9",
])
def test_options_out_of_range_are_refused(spec: str) -> None:
    with pytest.raises(UsageError, match=spec.partition(":")[0]):
        encoding.build(spec)
