"""mmtool's default head against scikit-learn's tuned logistic regression, on the same frozen features of stamps.csv.

    [SPEECH=1] MMTOOL_DATA=... python tests/benchmarks/train_stamps.py [FEATURES]

Accuracy and macro-F1 on the test rows over five seeds: a seed orders the folds that choose the L2 strength, here and there.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from mmtool.cli.main import run
from mmtool.features.reader import Features
from mmtool.training.data import pooled

SEEDS = range(5)
SPEECH = os.environ.get("SPEECH") == "1"
"""French speech as a third input."""


def ours(folder: Path, seed: int, work: Path) -> dict[str, dict[str, float]]:
    model, report = work / f"{seed}.safetensors", work / f"report{seed}"
    assert run(["train", str(folder), "--target", "category", "-o", str(model), "--seed", str(seed), "-q"]) == 0
    assert run(["eval", str(model), str(folder), "-o", str(report), "-q"]) == 0
    return json.loads((report / "metrics.json").read_text())["overall"]


def theirs(features: Features, seed: int) -> tuple[float, float]:
    split, label = (np.array(features.rows[c].to_pylist()) for c in ("split", "category"))
    x = np.concatenate([t.mean().numpy() for t in pooled(features, features.inputs, range(len(features))).values()], 1)
    learn, test = split != "test", split == "test"
    scaler = StandardScaler().fit(x[learn])
    with warnings.catch_warnings():  # of versions to come, and of steps that are not all taken
        warnings.simplefilter("ignore")
        model = LogisticRegressionCV(Cs=np.logspace(-4, 2, 7), cv=StratifiedKFold(5, shuffle=True, random_state=seed),
                                     max_iter=200, tol=1e-3).fit(scaler.transform(x[learn]), label[learn])
    found = model.predict(scaler.transform(x[test]))
    return accuracy_score(label[test], found), f1_score(label[test], found, average="macro")


def main() -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else work / "features"
        if not folder.exists():
            print("with speech" if SPEECH else "picture and text", flush=True)
            data = Path(os.environ["MMTOOL_DATA"]) / "stamps.csv"
            assert run(["extract", str(data), "-o", str(folder), "-e", "image=effnet-lite0", "-e", "text=minilm",
                        *(["-e", "speech_fr=whisper-tiny"] if SPEECH else [])]) == 0
        print("seed  mmtool accuracy        mmtool macro-F1        s     sklearn accuracy, macro-F1     s", flush=True)
        for seed in SEEDS:
            started = time.monotonic()
            found = ours(folder, seed, work)
            middle = time.monotonic()
            accuracy, f1 = theirs(Features(folder), seed)
            cells = [f"{m['value']:.3f} [{m['low']:.3f}, {m['high']:.3f}]" for m in (found["accuracy"], found["f1_macro"])]
            print(f"{seed:<4}  {'   '.join(cells)}   {middle - started:4.1f}   {accuracy:.3f}  {f1:.3f}   "
                  f"{time.monotonic() - middle:4.1f}", flush=True)


if __name__ == "__main__":
    main()
