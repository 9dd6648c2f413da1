"""What a cell holds, from its first bytes or from its name. Imports nothing heavy."""

from __future__ import annotations

import codecs

_SUFFIXES = {
    "image": ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"),
    "audio": ("wav", "flac", "ogg", "oga", "opus", "mp3"),
    "text": ("txt",),
}
_MODALITY_OF_SUFFIX = {suffix: modality for modality, suffixes in _SUFFIXES.items() for suffix in suffixes}
_DIB_HEADER_BYTES = (12, 40, 52, 56, 64, 108, 124)
_TEXT_BYTES = 4096
_NOT_IN_TEXT = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b"))


def modality_of_bytes(data: bytes) -> str | None:
    """"image", "audio" or "text" by the first bytes, None where they say nothing."""
    if picture_format(data):
        return "image"
    if sound_format(data):
        return "audio"
    return "text" if _looks_like_text(data[:_TEXT_BYTES]) else None


def modality_of_name(name: str) -> str | None:
    """"image", "audio" or "text" by the suffix of a path or name, None for any other suffix."""
    return _MODALITY_OF_SUFFIX.get(name.rpartition(".")[2].lower()) if "." in name else None


def picture_format(data: bytes) -> str | None:
    """JPEG, PNG, WEBP, GIF, BMP or TIFF (the names that Pillow uses), None for anything else."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    # "BM" alone also begins a text about cars.
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _DIB_HEADER_BYTES:
        return "BMP"
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    return None


def sound_format(data: bytes) -> str | None:
    """WAV, FLAC, OGG or MP3, None for anything else."""
    if data[:4] in (b"RIFF", b"RIFX", b"RF64") and data[8:12] == b"WAVE":
        return "WAV"
    if data.startswith(b"OggS"):
        return "OGG"
    start = end_of_id3(data)
    if data[start : start + 4] == b"fLaC":
        return "FLAC"
    return "MP3" if start or is_mp3_frame(data[:4]) else None


def end_of_id3(data: bytes) -> int:
    """Offset, in bytes, of what follows the ID3v2 tags at the start; 0 without a tag."""
    at = 0
    while data[at : at + 3] == b"ID3" and len(data) >= at + 10 and max(data[at + 6 : at + 10]) < 0x80:
        size = 0
        for byte in data[at + 6 : at + 10]:
            size = size << 7 | byte
        at += 10 + size + (10 if data[at + 5] & 0x10 else 0)  # a footer repeats the header
    return at


def is_mp3_frame(header: bytes) -> bool:
    """Do these 4 bytes begin a frame of MPEG layer II or III, with a known version, bit rate and sample rate?"""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return False
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    bit_rate, sample_rate = header[2] >> 4, header[2] >> 2 & 3
    return version != 1 and layer in (1, 2) and 0 < bit_rate < 15 and sample_rate != 3


def _looks_like_text(head: bytes) -> bool:
    if not head or head.translate(None, _NOT_IN_TEXT) != head:
        return False
    try:
        # Not final: the last character may be cut where the head ends.
        codecs.getincrementaldecoder("utf-8")().decode(head, final=False)
    except UnicodeDecodeError:
        return False
    return True
