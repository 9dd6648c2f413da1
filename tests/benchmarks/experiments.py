"""What mmtool reaches on real data: `MMTOOL_DATA=... python tests/benchmarks/experiments.py [NAME...]`.

Each experiment is one `mmtool train` from raw files with a cold cache and one `mmtool eval` on the test rows; prints the main
metrics with their intervals, what one gets without inputs, and the seconds of both. clipart's third target is log2 of the bytes
of the picture's file, which title and pixels are to tell.
"""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FROZEN = ("-e", "image=effnet-lite0", "-e", "text=minilm")
EXPERIMENTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "stamps, frozen": ("stamps", ("-t", "category", *FROZEN)),
    "stamps, frozen, and French speech": ("stamps", ("-t", "category", *FROZEN, "-e", "speech_fr=whisper-tiny")),
    "stamps, both fine-tuned": ("stamps", ("-t", "category", *FROZEN, "--finetune", "image", "--finetune", "text")),
    "stamps, text fine-tuned": ("stamps", ("-t", "category", *FROZEN, "--finetune", "text")),
    "stamps, CNN and LSTM": ("stamps", ("-t", "category", "-e", "image=image-cnn", "-e", "text=text-rnn:lstm", "--dense", "128",
                                        "--batch-rows", "32")),
    "stamps, three-block CNN and BiLSTM": ("stamps", ("-t", "category", "-e", "image=image-cnn:blocks=3", "-e",
                                                      "text=text-rnn:bilstm", "--augment", "image=crop,flip",
                                                      "--batch-rows", "32")),
    "stamps, CNN and Transformer, gated": ("stamps", ("-t", "category", "-e", "image=image-cnn", "-e", "text=text-transformer",
                                                      "-f", "gated", "--batch-rows", "32")),
    "stamps, French text without a pretrained encoder": ("stamps", ("-t", "category", "-e", "text_fr=sentencepiece")),
    "prompts, language from audio, frozen statistics": ("prompts", ("-t", "language", "-e", "audio=spectral")),
    "prompts, language from audio, log-mel CNN": ("prompts", ("-t", "language", "-e", "audio=audio-cnn:max_seconds=5",
                                                              "--epochs", "6")),
    "prompts, language from audio, log-mel BiLSTM": ("prompts", ("-t", "language", "-e", "audio=audio-rnn:max_seconds=5",
                                                                 "--epochs", "6")),
    "clipart, three targets": ("clipart", ("-t", "category", "-t", "keywords=tag:min_count=50", "-t", "log2_bytes",
                                           "-e", "image=effnet-lite0", "-e", "title=minilm")),
}
METRICS = ("accuracy", "f1_macro", "f1_micro", "average_precision_macro", "r2", "rmse")


def prepare(data: Path, name: str, folder: Path) -> Path:
    """The manifest, with absolute paths; clipart's also says how large each picture's file is, which its pixels decide.

    prompts.csv has one id twice, so its rows are numbered instead.
    """
    with (data / f"{name}.csv").open(encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    for row in rows:
        for column in set(row) & {"image", "audio", "speech_fr"}:
            row[column] = str((data / row[column]).resolve()) if row[column] else ""
        if name == "prompts":
            del row["id"]
        if name == "clipart":
            row["log2_bytes"] = f"{math.log2(Path(row['image']).stat().st_size):.4f}"
    with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as f:
        writer = csv.DictWriter(f, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / f"{name}.csv"


def run(*arguments: object) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "mmtool", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def told(found: dict[str, dict]) -> str:
    shown = {m: found[m] for m in METRICS if m in found}
    return ", ".join(f"{m} {v['value']:.3f} [{v['low']:.3f}, {v['high']:.3f}]" for m, v in shown.items())


def main() -> None:
    data, wanted = Path(os.environ["MMTOOL_DATA"]), sys.argv[1:]
    for title, (name, options) in EXPERIMENTS.items():
        if wanted and not any(title.startswith(w) for w in wanted):
            continue
        with tempfile.TemporaryDirectory() as folder:
            os.environ["MMTOOL_CACHE"] = str(Path(folder) / "cache")
            manifest, model, report = prepare(data, name, Path(folder)), Path(folder) / "m.safetensors", Path(folder) / "r"
            trained = run("train", manifest, "-o", model, *options)
            scored = run("eval", model, manifest, "-o", report)
            found = json.loads((report / "metrics.json").read_text())
            several = not all("value" in m for m in found["overall"].values())
            for column in found["overall"] if several else [""]:
                overall, baselines = (found[kind][column] if several else found[kind] for kind in ("overall", "baselines"))
                print(f"{title}{f' ({column})' if column else ''}: {told(overall)}; without inputs: "
                      f"{told(baselines['without_inputs'])}; train {trained:.0f} s, eval {scored:.0f} s", flush=True)


if __name__ == "__main__":
    main()
