"""How long one 512-px JPEG takes to decode, and to decode and prepare for EfficientNet-Lite0, by several libraries.

    python tests/benchmarks/decoding.py [--rounds 15] [--photos FOLDER] [--reduced]

CPU time of one thread in ms a picture, medians of interleaved rounds, and how far the prepared pixels are from ours. Preparing:
shorter side to 256 by an antialiased bicubic filter, the centre of 224. Pictures: the photos that mmtool and scikit-learn ship,
one made with a photo's spectrum, and those of a folder. `--reduced` prints instead what decoding at 1/2, 1/4 and 1/8 does to
pixels and to EfficientNet-Lite0's features, by how many times the target the reduced shorter side is (needs mmtool-starter).
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.nn.functional import cosine_similarity, interpolate

import mmtool
from mmtool.api import resize_image
from mmtool.media import fast_jpeg, images

SIDE_PX, WHOLE_PX, SIZE_PX = 512, 256, 224
Way = Callable[[bytes], Any]


def photos(folder: Path | None) -> dict[str, Image.Image]:
    found = {p.name: Image.open(p).convert("RGB") for p in sorted((Path(mmtool.__file__).parent / "samples").glob("*.jpg"))}
    theirs = load_sample_images()
    found |= {Path(n).name: Image.fromarray(x) for n, x in zip(theirs.filenames, theirs.images, strict=True)}
    noise = np.fft.fft2(np.random.default_rng(0).standard_normal((640, 640)))
    f = np.hypot(np.fft.fftfreq(640)[:, None], np.fft.fftfreq(640)[None])
    grey = np.real(np.fft.ifft2(noise / np.maximum(f, 1 / 640)))
    found["made (1/f)"] = Image.fromarray((grey / grey.std() * 50 + 128).clip(0, 255).astype("u1")).convert("RGB")
    if folder is not None:
        found |= {p.name: Image.open(p).convert("RGB") for p in sorted(folder.iterdir())}
    return found


def jpeg(im: Image.Image, quality: int = 90) -> bytes:
    file = io.BytesIO()
    im.save(file, "JPEG", quality=quality)
    return file.getvalue()


def pillow(data: bytes, *, draft: bool = False) -> Image.Image:
    im = Image.open(io.BytesIO(data))
    if draft:
        im.draft("RGB", (WHOLE_PX, WHOLE_PX))
    im.load()
    return im


def centre(x: Any) -> Any:
    """`[256, 256, 3]` -> `[224, 224, 3]`."""
    margin = (WHOLE_PX - SIZE_PX) // 2
    return x[margin : margin + SIZE_PX, margin : margin + SIZE_PX]


def by_pillow(im: Image.Image) -> Any:
    return centre(np.array(im.resize((WHOLE_PX, WHOLE_PX), Image.Resampling.BICUBIC)))


def by_torch(pixels: Any) -> Any:
    return resize_image(torch.from_numpy(pixels).permute(2, 0, 1), SIZE_PX, crop=SIZE_PX / WHOLE_PX).permute(1, 2, 0).numpy()


def by_torchvision(x: Tensor) -> Any:
    whole = interpolate(x.unsqueeze(0), (WHOLE_PX, WHOLE_PX), mode="bicubic", antialias=True)[0]
    return centre(whole.permute(1, 2, 0).numpy())


def ways() -> dict[str, tuple[Way, Callable[[Any], Any]]]:
    """Decoder, and what prepares what it gives."""
    found: dict[str, tuple[Way, Callable[[Any], Any]]] = {
        "mmtool": (lambda d: images.decode_image(d, shorter_side_px=WHOLE_PX).permute(1, 2, 0).numpy(), by_torch),
        "Pillow": (pillow, by_pillow),
        "Pillow, draft (1/2)": (lambda d: pillow(d, draft=True), by_pillow),
        "Pillow, then torch": (lambda d: np.array(pillow(d)), by_torch),
    }
    modules = {}
    for name in ("torchvision.io", "simplejpeg", "cv2", "pyvips"):
        try:
            modules[name] = importlib.import_module(name)
        except (ImportError, OSError):
            print(f"{name} is not installed: left out")
    if (tv := modules.get("torchvision.io")) is not None:
        rgb = tv.ImageReadMode.RGB
        found["torchvision.io"] = (
            lambda d: tv.decode_jpeg(torch.frombuffer(bytearray(d), dtype=torch.uint8), mode=rgb), by_torchvision)
    if (sj := modules.get("simplejpeg")) is not None:
        found["simplejpeg"] = (sj.decode_jpeg, by_torch)
        found["simplejpeg, fast DCT"] = (lambda d: sj.decode_jpeg(d, fastdct=True, fastupsample=True), by_torch)
        for eighths in (6, 5, 4):
            side = SIDE_PX * eighths // 8
            found[f"simplejpeg, {eighths}/8"] = (
                lambda d, side=side: sj.decode_jpeg(d, min_height=side, min_width=side), by_torch)
    if (cv := modules.get("cv2")) is not None:
        cv.setNumThreads(1)
        size = (WHOLE_PX, WHOLE_PX)
        full: Way = lambda d: cv.cvtColor(cv.imdecode(np.frombuffer(d, np.uint8), cv.IMREAD_COLOR), cv.COLOR_BGR2RGB)  # noqa: E731
        found["OpenCV, INTER_AREA"] = (full, lambda x: centre(cv.resize(x, size, interpolation=cv.INTER_AREA)))
        found["OpenCV, then torch"] = (full, by_torch)
    if (vips := modules.get("pyvips")) is not None:
        found["pyvips"] = (lambda d: vips.Image.new_from_buffer(d, "").numpy(), by_torch)
    return found


def speed(files: list[bytes], rounds: int) -> None:
    found = ways()
    ours = [found["mmtool"][1](found["mmtool"][0](d)).astype(int) for d in files]
    taken: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in found}
    for _ in range(rounds):
        for name, (decode, prepare) in found.items():
            for times, run in zip(taken[name], (decode, lambda d, f=decode, g=prepare: g(f(d))), strict=True):
                began = time.process_time()
                for data in files:
                    run(data)
                times.append((time.process_time() - began) / len(files) * 1000)
    print(f"{'':24}{'decode':>8}{'prepared':>10}{'ratio':>8}{'mean error':>12}{'largest':>9}")
    base = statistics.median(taken["mmtool"][1])
    for name, (decode, prepare) in found.items():
        errors = [np.abs(prepare(decode(d)).astype(int) - x) for d, x in zip(files, ours, strict=True)]
        alone, whole = map(statistics.median, taken[name])
        print(f"{name:24}{alone:8.3f}{whole:10.3f}{whole / base:8.2f}"
              f"{np.mean([e.mean() for e in errors]):12.2f}{max(e.max() for e in errors):9}")


def mosaic(im: Image.Image, side: int) -> Image.Image:
    """The centre of the picture at its own sharpness, mirrored until it is large enough."""
    x = np.asarray(im)
    while min(x.shape[:2]) < side:
        more = [(0, max(0, min(side - n, n - 1))) for n in x.shape[:2]]
        x = np.pad(x, (*more, (0, 0)), "reflect")
    top, left = ((n - side) // 2 for n in x.shape[:2])
    return Image.fromarray(x[top : top + side, left : left + side])


def reduced(pictures: list[Image.Image]) -> None:
    from mmtool_starter.image import EffNetLite0

    encoder = EffNetLite0()
    encoder.load()
    encoder.eval()
    print(f"{len(pictures)} photos; errors of 255 after resizing, cosine of the features\n"
          f"{'margin':>7}{'scale':>7}{'mean':>8}{'worst mean':>12}{'largest':>9}{'cosine, median':>16}{'worst':>9}")
    for margin in (2.0, 1.5, 1.25, 1.0):
        for scale in (2, 4, 8):
            side = round(WHOLE_PX * margin * scale)
            errors, cosines = [], []
            for im in pictures:
                data = jpeg(mosaic(im, side))
                prepared = [by_torch(fast_jpeg.decode(data, (side, side), s)) for s in (1, scale)]
                both = [torch.from_numpy(x).permute(2, 0, 1) for x in prepared]
                errors.append((both[0].int() - both[1].int()).abs().float())
                with torch.inference_mode():
                    features = [encoder.pool(encoder(x.unsqueeze(0), torch.tensor([3]))) for x in both]
                cosines.append(float(cosine_similarity(*features)))
            means, largest = [float(e.mean()) for e in errors], max(float(e.max()) for e in errors)
            print(f"{margin:7}{f'1/{scale}':>7}{statistics.mean(means):8.2f}{max(means):12.2f}{largest:9.0f}"
                  f"{statistics.median(cosines):16.4f}{min(cosines):9.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--reduced", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    versions = ", ".join(f"{name} {version(name)}" for name in ("pillow", "simplejpeg", "torch"))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}; Python {platform.python_version()}, {versions}", flush=True)
    pictures = photos(asked.photos)
    if asked.reduced:
        reduced(list(pictures.values()))
        return
    files = []
    for im in pictures.values():
        side = min(im.size)
        files.append(jpeg(im.crop((0, 0, side, side)).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)))
    mean_kb = sum(map(len, files)) / len(files) / 1000
    print(f"{len(files)} JPEGs of {SIDE_PX} px, {mean_kb:.0f} kB each; ms of CPU time a picture")
    speed(files, asked.rounds)


if __name__ == "__main__":
    main()
