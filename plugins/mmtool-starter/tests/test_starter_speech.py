"""whisper-tiny: honest lengths, equal bits, and English transcripts."""

import copy
import csv
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
import torch

pytest.importorskip("ctranslate2", reason="the extra [speech] is not installed")

from mmtool_starter import engine
from mmtool_starter.logmel import filterbank, log_mel
from mmtool_starter.speech import WhisperTiny

from mmtool.api import CellError, MMToolError, Tokens


@pytest.fixture(scope="module")
def whisper():
    encoder = WhisperTiny().eval()
    encoder.load()
    return encoder


@pytest.fixture(scope="module")
def noise():
    return torch.randn(16_000 * 12, generator=torch.Generator().manual_seed(0)) / 10


def test_mel_bands_are_torchaudios(noise):
    torchaudio = pytest.importorskip("torchaudio")
    bank = torchaudio.functional.melscale_fbanks(201, 0.0, 8000.0, 80, 16_000, norm="slaney", mel_scale="slaney")
    torch.testing.assert_close(filterbank(), bank, rtol=0, atol=1e-6)
    power = torch.stft(noise, 400, 160, window=torch.hann_window(400), return_complex=True)[:, :-1].abs().square()
    bels = (power.T @ bank).clamp(min=1e-10).log10()
    torch.testing.assert_close(log_mel(noise), (bels.clamp(min=bels.max() - 8) + 4) / 4, rtol=0, atol=1e-4)


def test_a_sound_has_50_tokens_a_second_whatever_the_batch(whisper, noise, run, same):
    cells = [noise[:1000], noise[:20_000], noise, noise[:161_000], noise.repeat(3)[: 16_000 * 31]]
    together = run(whisper, cells)
    assert together.lengths.tolist() == [3, 63, 600, 503, 1550]
    for i in (1, 4):
        assert same(run(whisper, cells[i : i + 1]), Tokens(together.values[i : i + 1], together.mask[i : i + 1]))
    assert torch.equal(run(whisper, cells).values, together.values)


def test_values_after_the_end_of_a_row_are_not_read(whisper, noise, same):
    x = whisper.prepare(noise[:20_000]).unsqueeze(0)
    junk = torch.cat([x, torch.full((1, 50, 80), 9.0)], 1)
    n = torch.tensor([x.shape[1]])
    assert same(whisper(x, n), whisper(junk, n))


def test_a_sound_under_40_ms_is_a_bad_cell(whisper):
    with pytest.raises(CellError, match="lasts 20 ms"):
        whisper.prepare(torch.zeros(320))


def test_nobody_speaks_in_silence_and_noise(whisper, minilm, noise, run):
    tokens = run(whisper, [torch.zeros(32_000), noise[:48_000]])
    assert whisper.transcript(tokens) == ["", ""]
    torch.testing.assert_close(whisper.to_space(tokens), minilm.to_space(run(minilm, [""])).expand(2, -1))


def test_pooled_tokens_hold_no_words(whisper):
    with pytest.raises(MMToolError, match="--tokens"):
        whisper.transcript(Tokens.pooled(torch.zeros(2, 384)))


def test_the_engine_stays_in_its_process(whisper, noise, run):
    before = run(whisper, [noise])
    for other in (copy.deepcopy(whisper), pickle.loads(pickle.dumps(whisper))):  # noqa: S301
        assert torch.equal(run(other, [noise]).values, before.values)
    assert whisper.state_dict() == {} and len(whisper.weights_sha256) == 64


def test_other_weights_are_refused(monkeypatch):
    monkeypatch.setitem(engine.SHA256, "config.json", "0" * 64)
    engine.folder.cache_clear()
    with pytest.raises(MMToolError, match=r"config\.json: SHA-256 is .*, not 0000"):
        WhisperTiny().load()
    engine.folder.cache_clear()


@pytest.mark.real
def test_english_prompts_are_transcribed(whisper, minilm, real_data, run):
    soundfile, soxr = pytest.importorskip("soundfile"), pytest.importorskip("soxr")
    with (real_data / "prompts.csv").open(encoding="utf-8", newline="") as f:
        rows = {r["text"]: r for r in csv.DictReader(f) if r["split"] == "train" and r["language"] == "en"}
    texts = ["That is not a valid conference number.  Please try again.", "Your message has been saved."]
    cells = []
    for text in texts:
        samples, rate_hz = soundfile.read(real_data / rows[text]["audio"], dtype="float32")
        cells.append(torch.from_numpy(soxr.resample(samples, rate_hz, 16_000)))
    tokens = run(whisper, cells)
    assert [t.split() for t in whisper.transcript(tokens)] == [t.split() for t in texts]
    assert (whisper.to_space(tokens) @ minilm.to_space(run(minilm, texts)).T).argmax(1).tolist() == [0, 1]


def test_threads_that_ask_at_the_same_time_get_one_engine(monkeypatch):
    meet, opened = threading.Barrier(2, timeout=20), []

    def slow(*_):
        opened.append(object())
        time.sleep(0.05)
        return opened[-1]

    monkeypatch.setattr(engine, "Engine", slow)
    monkeypatch.setattr(engine, "_opened", cache(engine._opened.__wrapped__))
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: (meet.wait(), engine.engine(torch.device("cpu")))[1], range(2))
    assert one is two and len(opened) == 1
