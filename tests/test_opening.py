"""What `train` and `eval` begin with."""

from __future__ import annotations

from pathlib import Path

from flows.made import table

from mmtool.manifest.open import open_manifest
from mmtool.opening import Opened


def test_ids_are_listed_once_for_all_rows(tmp_path: Path) -> None:
    opened = Opened("data", ("a",), None, open_manifest(str(table(tmp_path))))
    assert list(opened.ids([0, 1])) == ["r0", "r1"]
    assert opened.column("id") is opened.column("id")  # one list for each row would take the square of the rows
