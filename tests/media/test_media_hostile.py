"""A table of hostile files through the command line: every row is accounted for, and nothing is replaced silently."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from media_samples import painting, pictures, png, saved, sound, sounds, tone, wav
from PIL import Image
from test_media_bad_images import DIRECTORY_LAST, bombs

from mmtool.features.reader import Features

ENCODE = ("-e", "photo=tiny-colour", "-e", "clip=tiny-loudness")
TRUNCATED = {"image": {"E_CELL_EMPTY", "E_IMG_TRUNCATED", "E_IMG_FORMAT"},
             "audio": {"E_CELL_EMPTY", "E_SND_TRUNCATED", "E_SND_BROKEN", "E_SND_FORMAT"}}
BROKEN = {"image": {"E_IMG_TRUNCATED", "E_IMG_BROKEN", "E_IMG_FORMAT", "E_IMG_TOO_LARGE", "E_IMG_SAMPLES"},
          "audio": {"E_SND_TRUNCATED", "E_SND_BROKEN", "E_SND_FORMAT", "E_SND_RATE", "E_SND_TOO_LONG", "E_SND_SAMPLES",
                    "E_SND_TOO_SHORT"}}
OK = {"ok"}
Cases = dict[str, tuple[bytes | str, set[str]]]
"""Name -> a file's bytes, or a cell as written, and the codes that its row may get (or "ok")."""


def cut(files: dict[str, bytes], modality: str) -> Cases:
    found: Cases = {}
    for name, data in files.items():
        for percent in range(0, 100, 5):
            late = name in DIRECTORY_LAST and percent >= 80  # what follows may be what no pixel needs
            codes = TRUNCATED[modality] | ({*OK, "E_IMG_BROKEN"} if late else set())
            found[f"cut-{percent}-{name}"] = data[: len(data) * percent // 100], codes
    return found


def flipped(files: dict[str, bytes], modality: str) -> Cases:
    found: Cases = {}
    rng = np.random.default_rng(5)
    for name, data in files.items():
        for number in range(4):
            changed = bytearray(data)
            for at in rng.integers(0, len(data) if number % 2 else min(60, len(data)), 3):
                changed[at] ^= 1 << int(rng.integers(8))
            found[f"flipped-{number}-{name}"] = bytes(changed), BROKEN[modality] | OK
    return found


def cells(modality: str) -> Cases:
    """What is no file of its own."""
    no_format = {"image": "E_IMG_FORMAT", "audio": "E_SND_FORMAT"}[modality]
    return {"nothing": ("nowhere/at-all", {"E_CELL_NOT_FOUND"}), "folder": (".", {"E_CELL_PATH"}),
            "url": ("https://example.org/a.png", {"E_CELL_URL"}), "long-name": ("x" * 5000, {"E_CELL_READ"}),
            "no-base64": ("data:image/png;base64,!!!", {"E_CELL_DATA_URI"}), "missing": ("", {"missing"}),
            "a-text": (b"hello, I am a text", {no_format}), "zeros": (bytes(5000), {no_format}),
            "zero-bytes": (b"", {"E_CELL_EMPTY"})}


def hostile_pictures() -> Cases:
    files = pictures()
    found = {**cut(files, "image"), **flipped(files, "image"), **cells("image")}
    found |= {f"bomb-{name}": (data, {"E_IMG_TOO_LARGE"}) for name, data in bombs().items()}
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        found[f"exif-{orientation}"] = upright(orientation, exif), OK
    deep = np.linspace(0, 65535, 48 * 64).astype("u2").reshape(48, 64)
    sound_file = sounds()["wav"]
    return found | {
        "wrong-suffix.jpg": (files["png"], OK), "a-sound.png": (sound_file, {"E_IMG_FORMAT"}),
        "one-pixel": (png(1, 1, 8, 0, b"\0\x80"), OK), "cmyk": (files["jpeg-cmyk"], OK),
        "16-bit": (saved(Image.fromarray(deep), "PNG"), OK),
        "8-bit": (saved(Image.fromarray((deep >> 8).astype("u1")), "PNG"), OK),
    }


def upright(orientation: int, exif: Image.Exif) -> bytes:
    """A picture stored turned, so that its EXIF orientation brings it back."""
    turned = {1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
              5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
              8: Image.Transpose.ROTATE_270}[orientation]
    im = painting(64, 48)
    return saved(im if turned is None else im.transpose(turned), "PNG", exif=exif)


def hostile_sounds() -> Cases:
    files, x = sounds(), tone()
    nan = x.copy()
    nan[-1] = np.nan
    twelve = struct.pack("<I", 16) + struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 12)
    samples = ((x * 2047).round().astype("<i2") << 4).tobytes()
    twelve_bit = b"WAVEfmt " + twelve + b"data" + struct.pack("<I", len(samples)) + samples
    silence = bytearray(sound(np.zeros(8000 * 602, np.int16), "FLAC", rate_hz=8000))  # 30 KB
    unknown = bytearray(silence)
    unknown[21] &= 0xF0
    unknown[22:26] = bytes(4)
    return {
        **cut(files, "audio"), **flipped(files, "audio"), **cells("audio"),
        "bomb-flac": (bytes(silence), {"E_SND_TOO_LONG"}), "bomb-flac-unknown": (bytes(unknown), {"E_SND_TOO_LONG"}),
        "a-picture.wav": (pictures()["png"], {"E_SND_FORMAT"}), "wrong-suffix.mp3": (files["flac"], OK),
        "8-bit": (sound(x, "WAV", "PCM_U8"), OK), "24-bit": (sound(x, "WAV", "PCM_24"), OK),
        "12-bit": (b"RIFF" + struct.pack("<I", len(twelve_bit)) + twelve_bit, OK),
        "float-nan": (sound(nan, "WAV", "FLOAT"), {"E_SND_SAMPLES"}),
        "seven-channels": (sound(np.stack([x] * 7, 1), "WAV", "PCM_24"), OK),
        "rate-0": (wav(bytes(64), rate_hz=0), {"E_SND_RATE"}), "rate-huge": (wav(bytes(64), rate_hz=2**31 - 1), {"E_SND_RATE"}),
        "zero-frames": (wav(b""), {"E_SND_TOO_SHORT"}), "promises-more": (wav(bytes(64), data_size=4096), {"E_SND_TRUNCATED"}),
    }


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Cases]]:
    """A manifest with a hostile picture and a hostile sound a row."""
    folder = tmp_path_factory.mktemp("hostile")
    columns = {"photo": hostile_pictures(), "clip": hostile_sounds()}
    written: dict[str, list[str]] = {}
    for column, found in columns.items():
        (folder / column).mkdir()
        written[column] = []
        for name, (cell, _) in found.items():
            if isinstance(cell, bytes):
                (folder / column / name).write_bytes(cell)
            written[column].append(f"{column}/{name}" if isinstance(cell, bytes) else cell)
    rows = max(map(len, columns.values()))
    with (folder / "data.jsonl").open("w") as f:
        for i in range(rows):
            f.write(json.dumps({c: cells[i] if i < len(cells) else "" for c, cells in written.items()}) + "\n")
    return folder / "data.jsonl", columns


def test_every_row_is_accounted_for_and_nothing_is_replaced(mmtool: Callable, cases: tuple[Path, dict[str, Cases]],
                                                            tmp_path: Path) -> None:
    manifest, columns = cases
    ran = mmtool("extract", manifest, "-o", tmp_path / "f", *ENCODE, "--no-cache", "--json")
    assert ran.code == 3
    told = json.loads(ran.out)
    features = Features(tmp_path / "f")
    errors = {(e["input"], e["id"]): e for e in map(json.loads, (tmp_path / "f/errors.jsonl").read_text().splitlines())}
    for column, found in columns.items():
        statuses = features.rows[f"status:{column}"].to_pylist()
        counts = told["inputs"][column]
        assert counts["ok"] + counts["missing"] + counts["bad"] == told["rows"] == len(statuses)
        assert counts["bad"] == sum(name == column for name, _ in errors) > 100
        present = features.tokens(column, range(len(statuses))).present.tolist()
        for row, (name, (_, codes)) in enumerate(found.items()):
            status = statuses[row]
            code = status.partition(": ")[0]
            assert code in codes, (name, status)
            assert present[row] == (status == "ok")
            if status not in ("ok", "missing"):
                error = errors[column, str(row)]
                assert f"{error['code']}: {error['reason']}" == status
                assert 0 < len(error["reason"]) < 160
    assert len(ran.err.splitlines()) < 12

    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    for (column, row) in errors:
        rows[int(row)][column] = ""
    (manifest.parent / "good.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert mmtool("extract", manifest.parent / "good.jsonl", "-o", tmp_path / "g", *ENCODE, "--no-cache").code == 0
    good = Features(tmp_path / "g")
    for column in columns:
        a, b = (x.tokens(column, range(len(rows))) for x in (features, good))
        assert torch.equal(a.values, b.values)
        assert torch.equal(a.mask, b.mask)

    photo = {name: features.tokens("photo", [row]).values[0, 0] for row, name in enumerate(columns["photo"])}
    assert torch.equal(photo["16-bit"], photo["8-bit"])
    clip = {name: features.tokens("clip", [row]).values[0, 0] for row, name in enumerate(columns["clip"])}
    for name in ("8-bit", "12-bit", "seven-channels"):
        torch.testing.assert_close(clip[name], clip["24-bit"], rtol=2e-3, atol=0)


def test_every_orientation_has_the_same_features(mmtool: Callable, cases: tuple[Path, dict[str, Cases]],
                                                 tmp_path: Path) -> None:
    folder = cases[0].parent / "photo"
    (tmp_path / "not-turned").write_bytes(saved(painting().transpose(Image.Transpose.ROTATE_90), "PNG"))
    paths = [*(folder / f"exif-{n}" for n in range(1, 9)), tmp_path / "not-turned"]
    (tmp_path / "data.csv").write_text("photo\n" + "\n".join(map(str, paths)) + "\n")
    ran = mmtool("extract", tmp_path / "data.csv", "-o", tmp_path / "f", "-e", "photo=image-cnn:width=4,img_size=16",
                 "--allow-random", "--no-cache")
    assert ran.code == 0, ran.err
    values = Features(tmp_path / "f").tokens("photo", range(9)).values[:, 0]
    assert all(torch.equal(values[n], values[0]) for n in range(8))
    assert not torch.equal(values[8], values[0])
