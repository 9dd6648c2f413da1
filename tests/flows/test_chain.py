"""The whole chain of verbs, exactly as the README prints it, on the sample that the package ships."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_chain_of_the_readme_runs_as_it_is_printed(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    printed = re.search(r"^```sh\n(DATA=.*?)^```$", readme, re.M | re.S)
    assert printed is not None
    assert printed[1] == (ROOT / "docs/chain.sh").read_text(encoding="utf-8")
    assert len(printed[1].splitlines()) == 12
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ran = subprocess.run(["bash", "-euo", "pipefail", "-c", printed[1]], cwd=tmp_path, env={**os.environ, "PATH": path},
                         capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "warning" not in ran.stderr
    page = (tmp_path / "report/report.html").read_text(encoding="utf-8")
    assert "data:image/jpeg;base64," in page  # the wrong rows' pictures
    metrics = json.loads((tmp_path / "report/metrics.json").read_text())
    assert metrics["rows"] == 48
    assert metrics["overall"]["accuracy"]["value"] > 0.6
    assert set(metrics["by_inputs"]) == {"image", "image+speech", "image+speech+title", "image+title", "speech",
                                         "speech+title", "title"}
    predictions = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert len(predictions) == 240
    assert {len(p["inputs"]) for p in predictions} == {1, 2, 3}  # some inputs are missing
    assert json.loads((tmp_path / "check/metrics.json").read_text())["rows"] == 48  # the test alone
    assert "music" in ran.stdout
    assert '"prediction": "vehicles"' in ran.stdout
