"""Codes of failures: each is documented with its exit code, and the command prints it in one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import mmtool as package
from mmtool import errors
from mmtool.errors import CellError, MMToolError, split_status, storage_error

ROOT = Path(__file__).parents[1]
DOCS = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
CODE = re.compile(r"\"(E_[A-Z0-9_]+)\"|\b(E_[A-Z0-9_]+): ")
NEVER_PRINTED = {"E_OUTPUT_CLOSED"}


def classes() -> list[type[MMToolError]]:
    return [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, MMToolError)]


def used() -> set[str]:
    folders = [Path(package.__file__).parent, ROOT / "plugins/mmtool-starter/mmtool_starter"]
    found = {code for folder in folders for path in folder.rglob("*.py")
             for pair in CODE.findall(path.read_text(encoding="utf-8")) for code in pair if code}
    return found - NEVER_PRINTED


def documented() -> dict[str, int | None]:
    runs = {code: int(number) for code, number in re.findall(r"^\| `(E_[A-Z0-9_]+)` \| (\d+) \|", DOCS, re.M)}
    cells = {code: None for line in re.findall(r"^\| (`E_[^|]*) \|", DOCS, re.M) for code in re.findall(r"E_[A-Z0-9_]+", line)}
    return {**cells, **runs}


def test_every_code_is_documented_and_every_documented_code_is_used() -> None:
    assert used() == set(documented())


def test_every_class_has_the_exit_code_that_the_page_states() -> None:
    stated = documented()
    assert {c.code: c.exit_code for c in classes() if c.code not in NEVER_PRINTED} == \
        {c.code: stated[c.code] for c in classes() if c.code not in NEVER_PRINTED}
    assert [int(n) for n in re.findall(r"^\| (\d+) \| ", DOCS, re.M)] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 130]


@pytest.mark.parametrize("name", ["StorageError", "ArtefactError", "DataError", "PluginError", "DeviceError"])
def test_codes_given_at_a_place_have_the_exit_code_of_their_class(name: str) -> None:
    exit_code = getattr(errors, name).exit_code
    stated = documented()
    for path in Path(package.__file__).parent.rglob("*.py"):
        for call in re.findall(rf"{name}\((?:[^()]|\([^()]*\))*?code=\"(E_\w+)\"", path.read_text(encoding="utf-8")):
            assert stated[call] == exit_code, (path, call)


def test_every_test_that_the_page_names_is_there() -> None:
    sources = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"\b(test_\w+)`", DOCS))
    missing = [n for n in named if f"def {n}(" not in sources]
    assert len(named) > 30 and missing == []
    files = set(re.findall(r"`((?:tests/[a-z/]*)?test_\w+\.py)", DOCS))
    assert [f for f in files if not any(str(p).endswith(f) for p in (ROOT / "tests").rglob("*.py"))] == []


@pytest.mark.parametrize(("number", "code"), [(2, "E_NOT_FOUND"), (28, "E_NO_SPACE"), (30, "E_READ_ONLY"), (13, "E_PERMISSION"),
                                              (5, "E_IO")])
def test_errors_of_the_system_have_codes(number: int, code: str) -> None:
    told = storage_error(OSError(number, "said so", b"a\xff.csv"), "writing")
    assert (told.code, told.exit_code, told.message) == (code, 5, "writing: a\udcff.csv: said so")


def test_a_status_is_taken_apart() -> None:
    assert split_status(CellError("truncated: JPEG", "E_IMG_TRUNCATED").status) == ("E_IMG_TRUNCATED", "truncated: JPEG")
    assert split_status("of an older mmtool") == ("E_CELL", "of an older mmtool")


def test_a_mistake_is_two_lines_and_with_debug_it_shows_where(mmtool: Callable, tmp_path: Path) -> None:
    for arguments, code, line in ((["extract", "no.csv", "-o", tmp_path / "f"], 5, "error[E_NOT_FOUND]: no.csv does not exist"),
                                  (["extract", "--nonsense"], 2, "error[E_USAGE]: No such option: --nonsense"),
                                  (["nonsense"], 2, "error[E_USAGE]: No such command 'nonsense'"),
                                  (["extract", "a.csv"], 2, "error[E_USAGE]: Missing option"),
                                  (["train", "a", "-o", "m.safetensors", "--folds", "x"], 2, "error[E_USAGE]: Invalid value")):
        ran = mmtool(*arguments)
        assert (ran.code, ran.out, ran.err.startswith(line)) == (code, "", True), ran.err
        assert len(ran.err.splitlines()) == 2
    ran = mmtool("extract", "no.csv", "-o", tmp_path / "f", "--debug")
    assert "Traceback" in ran.err
    assert ran.err.splitlines()[-2] == "error[E_NOT_FOUND]: no.csv does not exist"
    assert "Traceback" not in mmtool("extract", "no.csv", "-o", tmp_path / "f").err
