"""`mmtool extract` on JPEGs of 512 px: pictures a second after the first 256, against a plain loop and against the machine.

    python tests/benchmarks/extract_images.py [--images 5000] [--networks effnet-lite0 ...] [--json FILE]

Ours are whole commands without a cache; when a row of files was done is told by the times at which the shards were written,
of which the first holds 256 rows. The plain loop (plain_loop.py) runs over 600 files, as it is slow: effnet-lite0 with the
better of 0 and 2 workers, others with 2. The limit is the fastest forward of the backend on tensors that are ready
(forward_limit.py), with the CPU seconds of the cheapest decoder spread over all cores: 1 / (1 / forward + decoding / cores).
It is the machine's only in a full run of effnet-lite0; elsewhere torch.compile is left out, as runs of so few files are over
before it pays. Of the rounds, the first runs over all files.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import harness
from harness import Row
from pictures import manifest, pictures

FIRST = 256
NETWORKS = {"effnet-lite0": "tf_efficientnet_lite0", "timm:resnet18": "resnet18",
            "timm:vit_small_patch16_224": "vit_small_patch16_224"}
"""Our encoders, and timm's names of the same networks."""
PROMISED = {("torch", "fp32"): 4.0, ("openvino", "fp32"): 5.0, ("torch", "bf16"): 5.0, ("openvino", "bf16"): 7.5}
OF_LIMIT = 0.85
FILES, AGAIN, OTHERS, FAST, PLAIN, QUICK = 5000, 1536, 512, 1536, 512, 640
"""Files of the first round with effnet-lite0, of its second, of other networks, of these in bfloat16, of the plain loop, and of
a quick run. Some 500 are read before the first is encoded, which flatters a short run of a fast network."""


def shard_rate(folder: Path, rows: int) -> float:
    """Rows a second from when the first shard was written until the last was."""
    times = [p.stat().st_mtime_ns for p in sorted(folder.glob("[0-9]*.safetensors"))]
    assert len(times) > 1, f"{folder}: one shard, which tells no rate"
    return (rows - FIRST) / (max(times) - times[0]) * 1e9


def ours(work: Path, table: Path, rows: int, encoder: str, backend: str, precision: str) -> tuple[float, float]:
    """Rate after the first 256, and seconds of the whole command."""
    out = work / "features"
    shutil.rmtree(out, ignore_errors=True)
    ran = harness.mmtool("extract", table, "-o", out, "-e", f"image={encoder}", "--no-cache", "-q", "--precision", precision,
                         "--allow-random", "--backend", backend)
    return shard_rate(out / "image", rows), ran.seconds


def plain(work: Path, table: Path, network: str, precision: str, workers: int, *more: str) -> float:
    """Rate of the plain loop after the first 256."""
    return float(harness.script("plain_loop.py", table, work / "plain.npy", "--network", network, "--precision", precision,
                                "--workers", workers, *more)["rate"])


def same(work: Path) -> float:
    """The least cosine of a row of ours and the plain loop's; other weights would show here."""
    import numpy as np
    from safetensors.torch import load_file

    theirs = np.load(work / "plain.npy")
    shards = sorted((work / "features/image").glob("[0-9]*.safetensors"))
    mine = np.concatenate([load_file(shard)["values"].float().numpy() for shard in shards])
    mine = mine[:len(theirs)].astype(np.float32)
    return float(((mine * theirs).sum(1) / np.linalg.norm(mine, axis=1) / np.linalg.norm(theirs, axis=1)).min())


def backends() -> list[str]:
    """What --backend can be asked for here."""
    return ["torch", "openvino"] if harness.has("openvino") else ["torch"]


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    """A row for each network, precision and backend, and another for its limit."""
    quick, found, cores = arguments.quick, backends(), os.cpu_count() or 1
    networks = arguments.networks or (["effnet-lite0"] if quick else list(NETWORKS))
    if "openvino" not in found:
        print("no OpenVINO figures: openvino is not installed", file=sys.stderr)
    images = arguments.images or (QUICK if quick else FILES if networks[0] == "effnet-lite0" else OTHERS)
    files = pictures(FAST if images == OTHERS else images)
    decoding = min(harness.script("forward_limit.py", "decode", *files[:100], env={"OMP_NUM_THREADS": "1"}).values())
    part = files[:min(images, FIRST + (128 if quick or images <= OTHERS else PLAIN - FIRST))]
    for encoder in networks:
        first = encoder == "effnet-lite0" and not quick
        promised = encoder == "effnet-lite0"
        with TemporaryDirectory() as name:
            work = Path(name)
            for precision in arguments.precisions or (("fp32",) if quick else ("fp32", "bf16")):
                most = FAST if precision == "bf16" and images == OTHERS else images
                again = AGAIN if first else most
                tables = {n: manifest(work / f"{n}.csv", files[:n]) for n in {most, again, len(part)}}
                best, whole = 2, {}
                rates: dict[str, list[float]] = {b: [] for b in found}
                loops: dict[int, list[float]] = {}
                for turn in range(2 if first else 1):
                    if turn and time.monotonic() > arguments.until:
                        break
                    rows = again if turn else most
                    for backend in found:
                        rate, seconds = ours(work, tables[rows], rows, encoder, backend, precision)
                        rates[backend].append(rate)
                        whole.setdefault(backend, seconds)
                    for workers in (0, 2) if first and turn == 0 else (best,):
                        loops.setdefault(workers, []).append(plain(work, tables[len(part)], NETWORKS[encoder], precision,
                                                                   workers))
                    best = max(loops, key=lambda w: statistics.median(loops[w]))
                loop = statistics.median(loops[best])
                note = f"plain: {best} workers, best of {sorted(loops)}, {len(part)} files"
                if encoder == "effnet-lite0":
                    note += f"; least cosine {same(work):.4f}"
                for backend in found:
                    what, mine = f"extract {encoder} {precision} {backend}", statistics.median(rates[backend])
                    runs = {"ours": rates[backend], "plain": loops[best]}
                    yield Row(what + " ÷ plain loop", mine, "plain", "img/s", plain=loop, runs=runs,
                              promised=PROMISED[backend, precision] if promised else None,
                              note=f"{note}; whole command {whole[backend]:.1f} s for {most} files")
                    ways = harness.script("forward_limit.py", "forward", "--network", NETWORKS[encoder], "--backend", backend,
                                          "--precision", precision, "--seconds", 2, *([] if first else ["--no-compile"]))
                    fastest = max(ways, key=ways.get)
                    limit = 1 / (1 / ways[fastest] + decoding / cores)
                    yield Row(what + " ÷ limit", mine, "limit", "img/s", limit=limit, runs=runs,
                              promised=OF_LIMIT if promised and first else None,
                              note=f"{fastest}: {ways[fastest]:.0f} img/s, decoding {1e3 * decoding:.2f} ms of a core")


if __name__ == "__main__":
    harness.program(__doc__, measure, add=lambda parser: (
        parser.add_argument("--images", type=int), parser.add_argument("--networks", nargs="+", choices=list(NETWORKS)),
        parser.add_argument("--precisions", nargs="+", choices=["fp32", "bf16"])))
