"""Mutated pictures and sounds through the decoders: each is decoded or refused; nothing else may happen.

    python tests/benchmarks/fuzz_media.py [--count 20000] [--seed 0] [--limit-mb 600]

Works in a process of its own, which is told anew where it was if it dies. Prints a line for each failure, with what makes the
file again (seed and number), then counts by outcome, and the slowest file. Exit code 1 where anything failed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "media"))

SECONDS = 10
"""A file that takes longer hangs."""


def seeds() -> list[tuple[str, str, bytes]]:
    """(modality, name, bytes) of every whole file."""
    from media_samples import painting, pictures, saved, sounds

    more = {"gif-interlaced": saved(painting().quantize(), "GIF", interlace=1),
            "gif-animated": saved(painting(), "GIF", save_all=True, append_images=[painting().rotate(90)]),
            "webp-animated": saved(painting(), "WEBP", save_all=True, append_images=[painting().rotate(90)]),
            "webp-alpha": saved(painting().convert("RGBA").rotate(20), "WEBP"),
            "tiff-strips": saved(painting(200, 200), "TIFF", compression="tiff_lzw", strip_size=4096)}
    return [*(("image", name, data) for name, data in {**pictures(), **more}.items()),
            *(("audio", name, data) for name, data in sounds().items())]


def mutated(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """One to six changes: bits and bytes, most in the header; numbers that matter; parts cut, doubled or of another file."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        if not found:
            break
        at = rng.randrange(min(len(found), rng.choice((64, 512, len(found)))))
        kind = rng.randrange(8)
        if kind == 0:
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            found[at] = rng.randrange(256)
        elif kind == 2:
            size = rng.choice((2, 4, 8))
            number = rng.choice((0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1)) % 2 ** (8 * size)
            found[at : at + size] = number.to_bytes(size, rng.choice(("little", "big")))
        elif kind == 3:
            del found[rng.randrange(len(found)) :]
        elif kind == 4:
            del found[at : at + rng.randrange(1, 40)]
        elif kind == 5:
            found[at:at] = found[at : at + rng.randrange(1, 400)]
        elif kind == 6:
            other = rng.choice(others)
            start = rng.randrange(len(other))
            found[at:at] = other[start : start + rng.randrange(1, 400)]
        else:
            found[at : at + rng.randrange(1, 200)] = bytes(rng.randrange(1, 200))
    return bytes(found)


def of_number(number: int, seed: int, files: list[tuple[str, str, bytes]]) -> tuple[str, str, bytes]:
    """The modality, name and bytes of the file with a number."""
    rng = random.Random(f"{seed} {number}")
    modality, name, data = files[number % len(files)]
    return modality, name, mutated(data, [d for _, _, d in files], rng)


def work(connection: Any, start: int, count: int, seed: int, limit_mb: int) -> None:
    """Decode files from `start` on; tells each one's number before, and its outcome after."""
    import torch

    from mmtool.errors import CellError
    from mmtool.media.audio import decode_audio
    from mmtool.media.images import decode_image

    torch.set_num_threads(1)
    files = seeds()
    status = Path("/proc/self/status").read_text().splitlines()
    now = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:"))
    resource.setrlimit(resource.RLIMIT_DATA, (now + limit_mb * 2**20, resource.RLIM_INFINITY))
    for number in range(start, count):
        modality, _, data = of_number(number, seed, files)
        connection.send((number, None, 0.0))
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        began = time.perf_counter()
        try:
            decoded = decode_image(data) if modality == "image" else decode_audio(data, 16_000)
            right = decoded.numel() > 0 and bool(torch.isfinite(decoded.float()).all())
            outcome = "ok" if right else "FAILED: not a whole tensor"
        except CellError as error:
            outcome = error.code if error.code != "E_CELL" and 0 < len(str(error)) < 160 else f"FAILED: reason {error.status!r}"
        except MemoryError:
            outcome = "E_CELL_MEMORY"
        except Exception as error:
            outcome = f"FAILED: {type(error).__name__}: {error}"
        signal.setitimer(signal.ITIMER_REAL, 0)
        connection.send((number, outcome, time.perf_counter() - began))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit-mb", type=int, default=600, help="Memory that a decoder may take.")
    asked = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    files = seeds()
    outcomes: Counter[str] = Counter()
    failures, slowest, at, began = 0, (0.0, 0), 0, time.monotonic()
    while at < asked.count:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(theirs, at, asked.count, asked.seed, asked.limit_mb))
        process.start()
        theirs.close()
        try:
            while at < asked.count:
                number, outcome, seconds = ours.recv()
                if outcome is None:
                    continue
                at, slowest = number + 1, max(slowest, (seconds, number))
                outcomes[outcome.partition(":")[0]] += 1
                if outcome.startswith("FAILED"):
                    failures += 1
                    print(f"{number} {files[number % len(files)][1]}: {outcome}", flush=True)
        except EOFError:
            process.join()
            failures += 1
            print(f"{at} {files[at % len(files)][1]}: the process ended with {process.exitcode}", flush=True)
            at += 1
        process.join()
    for outcome, n in outcomes.most_common():
        print(f"{n:8} {outcome}")
    print(f"{asked.count} files of {len(files)} kinds in {time.monotonic() - began:.0f} s, {failures} failed; the slowest took "
          f"{slowest[0]:.2f} s ({files[slowest[1] % len(files)][1]}, number {slowest[1]})")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
