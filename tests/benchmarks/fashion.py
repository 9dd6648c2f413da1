"""Fashion-MNIST with the built-in CNN, end to end: `python tests/benchmarks/fashion.py DATA_FOLDER [EPOCHS]`.

Reads the IDX files that lie below DATA_FOLDER/fashion, packs them into one Parquet manifest, trains and evaluates through the
command line, and prints the test accuracy and the times.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

NAMES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def read_idx(path: Path) -> np.ndarray:
    """IDX as LeCun's MNIST page describes it: magic, sizes, bytes."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    dims = data[3]
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(dims)]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dims).reshape(shape)


def png(picture: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG", compress_level=1)
    return out.getvalue()


def write_manifest(folder: Path, target: Path) -> None:
    rows: dict[str, list] = {"picture": [], "garment": [], "split": []}
    for stem, split in (("train", "train"), ("t10k", "test")):
        pictures, labels = (read_idx(next(folder.rglob(f"{stem}-{kind}*"))) for kind in ("images", "labels"))
        for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
            rows["picture"].append(png(picture))
            rows["garment"].append(NAMES[label])
            rows["split"].append("val" if split == "train" and number % 12 == 0 else split)
    pq.write_table(pa.table(rows), target)


def run(*arguments: object) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "mmtool", *map(str, arguments)], check=True)
    return time.perf_counter() - started


def main() -> None:
    data, epochs = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "8"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["MMTOOL_CACHE"] = str(folder / "cache")
        write_manifest(data / "fashion", folder / "fashion.parquet")
        model, report = folder / "fashion.safetensors", folder / "report"
        trained = run("train", folder / "fashion.parquet", "-t", "garment", "-e", "picture=image-cnn:img_size=28",
                      "--augment", "picture=shift,flip", "--batch-rows", 128, "--lr", 0.003, "--epochs", epochs, "-o", model)
        scored = run("eval", model, folder / "fashion.parquet", "-o", report)
        accuracy = json.loads((report / "metrics.json").read_text())["overall"]["accuracy"]
        print(f"test accuracy {accuracy['value']:.4f} [{accuracy['low']:.4f}, {accuracy['high']:.4f}]; {epochs} epochs; "
              f"train {trained:.0f} s, eval {scored:.0f} s, on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
