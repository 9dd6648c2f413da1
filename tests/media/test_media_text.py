"""Text files are strict UTF-8; sniffing tells pictures, sounds and texts apart without importing anything heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest
from media_samples import pictures, sounds

from mmtool.errors import CellError
from mmtool.media.limits import Limits
from mmtool.media.sniff import modality_of_bytes, modality_of_name
from mmtool.media.text import decode_text


def reason(data: bytes, limits: Limits = Limits()) -> str:
    with pytest.raises(CellError) as caught:
        decode_text(data, limits)
    return str(caught.value)


def test_text_is_utf_8_without_its_mark() -> None:
    assert decode_text("grün 猫\r\n".encode()) == "grün 猫\r\n"
    assert decode_text(b"\xef\xbb\xbfabc") == "abc"
    assert decode_text(b"") == ""


def test_bytes_that_are_no_utf_8_are_named() -> None:
    assert reason("grün".encode("latin-1")) == "text is not UTF-8: byte 0xfc at offset 2"
    assert reason(b"\xef\xbb\xbfab\xff") == "text is not UTF-8: byte 0xff at offset 5"
    assert reason(b"cut \xe7\x8c") == "text is not UTF-8: byte 0xe7 at offset 4"
    assert reason(b"surrogate \xed\xa0\x80") == "text is not UTF-8: byte 0xed at offset 10"
    assert reason("abc".encode("utf-16")) == "text is UTF-16, not UTF-8"


def test_the_limit_counts_characters() -> None:
    assert decode_text("猫".encode() * 10, Limits(max_text_chars=10)) == "猫" * 10
    assert reason("猫".encode() * 11, Limits(max_text_chars=10)) == "text of 11 characters is over the limit of 10"
    assert reason(b"a" * 100, Limits(max_text_chars=10)) == "text of 100 bytes is over the limit of 10 characters"


def test_bytes_tell_their_modality_whatever_the_name() -> None:
    assert {modality_of_bytes(data) for data in pictures().values()} == {"image"}
    assert {modality_of_bytes(data) for data in sounds().values()} == {"audio"}
    for text in (b"BMW", b"RIFF", b"ID3", "猫".encode() * 2000, b"GIF", b"a\tb\r\n"):
        assert modality_of_bytes(text) == "text"
    for other in (b"", b"\0\0\0\x18ftypisom", b"PK\x03\x04\0\0", b"\xff\xfea\0", b"RIFF\0\0\0\0AVI LIST", b"\xff" * 9):
        assert modality_of_bytes(other) is None


@pytest.mark.parametrize(("name", "modality"), [
    ("a.JPG", "image"), ("dir.x/b.jpeg", "image"), ("c.tif", "image"), ("c.tiff", "image"), ("c.webp", "image"),
    ("c.png", "image"), ("c.gif", "image"), ("c.bmp", "image"), ("d.wav", "audio"), ("d.flac", "audio"),
    ("d.ogg", "audio"), ("d.oga", "audio"), ("d.opus", "audio"), ("d.Mp3", "audio"), ("e.txt", "text"),
    ("jpg", None), ("f.csv", None), ("f.", None), ("", None), ("x.jpg.zip", None),
])
def test_names_tell_their_modality_by_suffix(name: str, modality: str | None) -> None:
    assert modality_of_name(name) == modality


def test_sniffing_imports_nothing_heavy() -> None:
    code = ("import sys, mmtool.media, mmtool.media.sniff, mmtool.media.limits; "
            "print(sorted({'torch', 'PIL', 'numpy', 'soundfile', 'soxr'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
