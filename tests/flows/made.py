"""Made tables whose answer is known, for the flows of learning."""

from __future__ import annotations

import json
import random
from pathlib import Path

LETTERS = ("-e", "a=tiny-letters", "-e", "b=tiny-letters")


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def table(folder: Path, rows: int = 120, *, split: bool = True, missing: float = 0.0, seed: int = 0) -> Path:
    """`label` says whether text a is high in the alphabet; b knows nothing; `xor` needs both; `sum` is a number."""
    rng = random.Random(seed)
    out = []
    for i in range(rows):
        a, b = rng.choice("az"), rng.choice("az")
        shown = {"a": a, "b": b}
        if rng.random() < missing:
            shown[rng.choice("ab")] = ""
        row: dict[str, object] = {"id": f"r{i}", **shown, "label": "high" if a == "z" else "low", "other": rng.choice("xy"),
                                  "xor": "same" if a == b else "different", "sum": str(ord(a) + 2 * ord(b)),
                                  "tags": f"a{a}|b{b}", "group": f"g{i // 4}", "number": str(i % 7),
                                  "colour": rng.choice(["red", "blue"])}
        if split:
            row["split"] = "test" if i % 4 == 0 else "val" if i % 4 == 1 else "train"
        out.append(row)
    return write(folder / "data.jsonl", out)


def metrics(folder: Path) -> dict[str, dict]:
    return json.loads((folder / "metrics.json").read_text())
