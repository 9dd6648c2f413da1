"""Makes mmtool/samples/clipart from openclipart's pictures and docs/sample.tsv; the same bytes each time.

    python docs/make_sample.py DATA      DATA holds clipart.csv, and the pictures that it names; needs espeak-ng

docs/sample.tsv says which pictures, under which titles and keywords; the keywords of what a picture shows are joined by
its main colours, which are measured. Which rows are for testing, and which lack an input, is decided by a hash.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
import shutil
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import soundfile
import soxr
from PIL import Image, ImageChops

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "mmtool/samples/clipart"
SIZE_PX = 128
RATE_HZ = 16_000
LACKING = {"title": range(12), "speech": range(6, 18), "image": range(18, 30)}  # places in the order of a hash
HUES = ((14, "red"), (42, "orange"), (66, "yellow"), (165, "green"), (262, "blue"), (290, "purple"), (345, "pink"),
        (361, "red"))  # each up to so many degrees
COLUMNS = ("id", "image", "title", "speech", "keywords", "category", "colour_bits", "split")


def order(text: str) -> str:
    """A place among the others that says nothing about the text."""
    return hashlib.sha256(text.encode()).hexdigest()


def on_white(path: Path) -> Image.Image:
    """The picture in RGB, transparency laid on white."""
    with Image.open(path) as opened:
        picture = opened.convert("RGBA")
    page = Image.new("RGBA", picture.size, "white")
    page.alpha_composite(picture)
    return page.convert("RGB")


def small(picture: Image.Image) -> Image.Image:
    """Without its white margin, at most 128 pixels wide and high."""
    box = ImageChops.difference(picture, Image.new("RGB", picture.size, "white")).getbbox()
    picture = picture.crop(box)
    picture.thumbnail((SIZE_PX, SIZE_PX), Image.Resampling.LANCZOS)
    return picture


def colour_bits(picture: Image.Image) -> float:
    """How rich in colours it is: log2 of how many different ones there are, with 4 bits a channel."""
    return math.log2(len(picture.point(lambda value: value >> 4).getcolors(1 << 12) or ()))


def name_of(hue: int, saturation: int, value: int) -> str:
    """A colour's name; hue, saturation and value are 0 to 255."""
    if value < 55:
        return "black"
    if saturation < 40:
        return "white" if value > 225 else "grey"
    degrees = hue * 360 / 256
    name = next(name for end, name in HUES if degrees < end)
    return "brown" if name in ("red", "orange", "yellow") and value < 190 else name


def main_colours(picture: Image.Image) -> list[str]:
    """The colours that fill a quarter of what is not white, the largest first; black and grey only where no other does."""
    counts = Counter(name_of(*pixel) for pixel in np.asarray(picture.convert("HSV")).reshape(-1, 3).tolist())
    del counts["white"]
    filling = [name for name, count in counts.most_common() if count * 4 >= counts.total()]
    return [name for name in filling if name not in ("black", "grey")] or filling[:1]


def write_png(path: Path, picture: Image.Image) -> None:
    """A palette of 64 colours, without dithering, which would cost more bytes than it is worth here."""
    picture.quantize(64, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)


def spoken(text: str) -> bytes:
    """The text as espeak-ng says it: OGG Opus, 16 kHz, mono."""
    wav = subprocess.run(["espeak-ng", "-v", "en", "-s", "150", "--stdout", text], capture_output=True, check=True).stdout
    sound, rate_hz = soundfile.read(io.BytesIO(wav), dtype="float32")
    out = io.BytesIO()
    soundfile.write(out, soxr.resample(sound, rate_hz, RATE_HZ), RATE_HZ, format="OGG", subtype="OPUS", compression_level=0.9)
    return with_serial(out.getvalue(), 1)


def with_serial(ogg: bytes, serial: int) -> bytes:
    """The stream under another serial number: libsndfile draws one at random. Layout and checksum as in RFC 3533."""
    pages, at = [], 0
    while at < len(ogg):
        lacing = ogg[at + 27 : at + 27 + ogg[at + 26]]
        end = at + 27 + len(lacing) + sum(lacing)
        blank = ogg[at : at + 14] + struct.pack("<I", serial) + ogg[at + 18 : at + 22] + bytes(4) + ogg[at + 26 : end]
        pages.append(blank[:22] + struct.pack("<I", checksum(blank)) + blank[26:])
        at = end
    return b"".join(pages)


def checksum(page: bytes) -> int:
    """CRC-32 as OGG has it: polynomial 04c11db7, not reflected, from 0."""
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x104C11DB7 if crc & 0x80000000 else 0)
    return crc


def splits(rows: list[dict[str, str]]) -> dict[str, str]:
    """Of each category, a fifth for testing and a tenth for validation."""
    found = {}
    for category in sorted({row["category"] for row in rows}):
        ids = sorted((row["id"] for row in rows if row["category"] == category), key=order)
        test, val = round(len(ids) / 5), round(len(ids) / 10)
        found |= {name: "test" if i < test else "val" if i < test + val else "train" for i, name in enumerate(ids)}
    return found


def main() -> None:
    data = Path(sys.argv[1])
    with (ROOT / "docs/sample.tsv").open(encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f, delimiter="\t"))
    with (data / "clipart.csv").open(encoding="utf-8", newline="") as f:
        pictures = {row["id"]: data / row["image"] for row in csv.DictReader(f)}
    for row in rows:
        row["id"] = re.sub("[^a-z0-9]+", "-", row["title"].lower())
    assert len({row["id"] for row in rows}) == len(rows), "two rows have one title"
    split = splits(rows)
    place = {name: i for i, name in enumerate(sorted(split, key=lambda name: order("lacking " + name)))}

    for folder in ("images", "speech"):
        shutil.rmtree(OUT / folder, ignore_errors=True)
        (OUT / folder).mkdir(parents=True)
    for row in rows:
        name = row["id"]
        shown = small(on_white(pictures[row["source"]]))
        keywords = [row["keywords"], *main_colours(shown)]
        title = row["title"]
        row |= {"image": f"images/{name}.png", "speech": f"speech/{name}.ogg", "keywords": "|".join(keywords),
                "colour_bits": f"{colour_bits(shown):.2f}", "split": split[name]}
        row |= {column: "" for column, places in LACKING.items() if place[name] in places}
        if row["image"]:
            write_png(OUT / row["image"], shown)
        if row["speech"]:
            (OUT / row["speech"]).write_bytes(spoken(title))
    with (OUT / "data.csv").open("w", encoding="utf-8", newline="") as f:
        writer = csv.DictWriter(f, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: order(row["id"])))


if __name__ == "__main__":
    main()
