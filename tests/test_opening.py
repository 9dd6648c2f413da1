"""What `train` and `eval` begin with."""

from __future__ import annotations

from pathlib import Path

from flows.made import table

from mmtool.manifest.open import open_manifest
from mmtool.opening import Opened


def test_ids_are_listed_once_for_all_rows(tmp_path: Path) -> None:
    opened = Opened("data", ("a",), None, open_manifest(str(table(tmp_path))))
    assert opened.ids[:2] == ["r0", "r1"]
    assert opened.ids is opened.ids  # one list for each row would take the square of the rows
