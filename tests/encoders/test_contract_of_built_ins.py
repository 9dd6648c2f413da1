"""The contract of encoders, kept by variants of the built-in ones that their own `example` does not try."""

from __future__ import annotations

import pytest

from mmtool.testing import encoder_checks

NEEDED = {"gives-tokens", "batching-changes-nothing", "repeats-its-bits", "pools-to-one-width", "ignores-masked-values",
          "stays-finite-where-missing", "survives-save-and-load", "can-be-pickled", "prepares-in-another-process"}


@pytest.mark.usefixtures("small_bundles", "no_network")
@pytest.mark.parametrize("encoder", [
    "timm:mobilenetv3_small_050,img_size=64",  # the pooled feature is wider than a token
    "timm:vit_tiny_patch16_224,img_size=32",
    "timm:mambaout_femto,img_size=64",  # channels last
    "torchaudio:TINY_GROUP,random=true",
    "torchaudio:TINY_LAYER,random=true",
    "torchaudio:TINY_LAYER,random=true,layer=2",
    "torchaudio:TINY_WAVLM,random=true",
    "spectral:8000,n_mels=24,n_mfcc=10",
    "sentencepiece:512,dim=8,max_pieces=20",
    "sentencepiece:600,model_type=bpe,lowercase=false",
    "table:2",
])
def test_variant_keeps_the_contract(encoder: str) -> None:
    outcomes = {str(check): check.run() for check in encoder_checks(encoder)}
    assert [f"{o.check}: {o.reason}" for o in outcomes.values() if o.status == "failed"] == []
    assert {name for name, o in outcomes.items() if o.status == "ok"} >= NEEDED


@pytest.mark.usefixtures("small_bundles")
def test_padding_is_tried_where_cells_are_padded() -> None:
    for encoder in ("torchaudio:TINY_LAYER,random=true", "spectral", "sentencepiece:512"):
        outcomes = {str(check): check.run().status for check in encoder_checks(encoder)}
        assert outcomes["ignores-padding"] == "ok", encoder
