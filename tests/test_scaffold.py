"""`mmtool plugins new`: what it writes installs, keeps the contract and extracts, as it is and without a network."""

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from mmtool import scaffold
from mmtool.errors import MMToolError, UsageError

MODALITIES = ("image", "text", "audio", "table", "series")
KINDS = ("fusion", "task")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a new package for each modality, a fusion and a task."""
    folder = tmp_path_factory.mktemp("packages")
    for modality in MODALITIES:
        scaffold.write(f"new-{modality}", folder, modality=modality)
    for kind in KINDS:
        scaffold.write(f"new-{kind}", folder, kind=kind)
    return folder


@pytest.fixture(scope="module")
def python(packages: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the Python of an environment of its own, which sees what this one has installed, but no network."""
    venv.create(packages / "env", with_pip=False, symlinks=True)
    scheme = {"base": str(packages / "env"), "platbase": str(packages / "env")}
    site = Path(sysconfig.get_path("purelib", "venv", vars=scheme))
    (site / "outer.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    executable = Path(sysconfig.get_path("scripts", "venv", vars=scheme)) / Path(sys.executable).name
    variables = {**os.environ, "PIP_NO_INDEX": "1", "PYTHONPATH": ""}
    variables.pop("VIRTUAL_ENV", None)

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(executable), "-m", *arguments], cwd=packages, env=variables, capture_output=True,
                              text=True, timeout=120)

    return call


@pytest.fixture(scope="module")
def installed(python: Callable[..., subprocess.CompletedProcess[str]]) -> list[list[str]]:
    """Kinds and names of all the packages, installed at once."""
    ran = python("mmtool", "plugins", "install", *[f"./mmtool-new-{name}" for name in (*MODALITIES, *KINDS)])
    assert ran.returncode == 0, ran.stderr
    return [line.split()[:2] for line in ran.stdout.splitlines()]


@pytest.mark.usefixtures("installed")
def test_new_plugins_keep_the_contract_by_the_command_and_by_their_own_tests(
        python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    checked = python("mmtool", "plugins", "check", *[f"new-{m}" for m in MODALITIES], "new-fusion:dim=8", "new-task")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "failed" not in checked.stdout
    tested = python("pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib",
                    *[f"mmtool-new-{name}" for name in ("text", *KINDS)])
    assert tested.returncode == 0, tested.stdout
    assert "passed" in tested.stdout


def test_new_encoders_are_found_and_extract(packages: Path, python: Callable[..., subprocess.CompletedProcess[str]],
                                            installed: list[list[str]]) -> None:
    assert installed == [["kind", "name"], *[["encoder", f"new-{m}"] for m in sorted(MODALITIES)],
                         ["fusion", "new-fusion"], ["task", "new-task"]]
    Image.new("RGB", (30, 20), (255, 0, 9)).save(packages / "a.png")
    soundfile.write(packages / "a.wav", np.zeros(8000, np.float32), 8000)
    (packages / "a.ecg").write_bytes(b"1,2,3")
    (packages / "data.csv").write_text("photo,title,clip,price,trace\na.png,a red thing,a.wav,3,a.ecg\n,,,,\n")
    columns = dict(zip(("photo", "title", "clip", "price", "trace"), MODALITIES, strict=True))
    extracted = python("mmtool", "extract", "data.csv", "-o", "feats",
                       *[part for c, m in columns.items() for part in ("-e", f"{c}=new-{m}")])
    assert (extracted.returncode, extracted.stdout) == (0, "feats\n"), extracted.stderr
    assert all(f"{c}: 1 ok, 1 missing, 0 bad" in extracted.stderr for c in columns)


@pytest.mark.usefixtures("installed")
def test_a_new_fusion_and_task_train(packages: Path, python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    rows = [f"{i % 5},{i % 3},{'red' if i % 2 else 'blue'},{i % 5 + 2 * (i % 2)},{'train' if i % 4 else 'test'}"
            for i in range(60)]
    (packages / "counts.csv").write_text("\n".join(["size,rooms,colour,sold,split", *rows, "1,1,red,none,train"]) + "\n")
    trained = python("mmtool", "train", "counts.csv", "--target", "sold=new-task", "-e", "size+rooms=table",
                     "-e", "colour=table", "-f", "new-fusion", "--epochs", "5", "-o", "m.safetensors")
    assert (trained.returncode, trained.stdout) == (0, "m.safetensors\n"), trained.stderr
    assert "1 rows have a sold that cannot be read" in trained.stderr
    assert "deviance" in trained.stderr


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_whole_plugin_is_under_forty_lines(packages: Path, modality: str) -> None:
    package = packages / f"mmtool-new-{modality}"
    text = "\n".join(p.read_text() for p in (*package.glob("*.py"), package / "pyproject.toml"))
    assert len([line for line in text.splitlines() if line.strip()]) < 40
    assert "@" not in text.replace("@classmethod", "")


def test_the_command_prints_the_folder_and_what_to_do_next(mmtool: Callable, tmp_path: Path) -> None:
    ran = mmtool("plugins", "new", "colour-histogram", "-o", tmp_path)
    folder = tmp_path / "mmtool-colour-histogram"
    assert (ran.code, ran.out) == (0, f"{folder}\n")
    assert "mmtool plugins check colour-histogram" in ran.err
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == \
        ["README.md", "mmtool_colour_histogram.py", "pyproject.toml", "tests/test_contract.py"]
    assert "class ColourHistogramEncoder(Encoder):" in (folder / "mmtool_colour_histogram.py").read_text()


def test_a_name_may_bring_the_prefix_of_the_package(tmp_path: Path) -> None:
    assert scaffold.write("mmtool-scent", tmp_path) == tmp_path / "mmtool-scent"


@pytest.mark.parametrize("name", ["", "Colour", "two words", "two_words", "-x", "x-", "a--b", "../up", "3d", "é", "a\n"])
def test_a_name_that_is_no_package_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lower-case words joined by hyphens"):
        scaffold.write(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_modality_that_would_break_the_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot name a modality"):
        scaffold.write("x", tmp_path, modality='a"; import os')


def test_an_unknown_kind_and_a_modality_of_a_fusion_are_refused(mmtool: Callable, tmp_path: Path) -> None:
    ran = mmtool("plugins", "new", "x", "--kind", "metric", "-o", tmp_path)
    assert (ran.code, ran.out) == (2, "")
    assert "--kind 'metric' is not known use encoder, fusion, task" in " ".join(ran.err.split())
    with pytest.raises(UsageError, match="a fusion has none"):
        scaffold.write("x", tmp_path, kind="fusion", modality="image")
    assert not list(tmp_path.iterdir())


def test_the_name_of_an_installed_plugin_of_any_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'concat' is installed already"):
        scaffold.write("concat", tmp_path)
    with pytest.raises(UsageError, match="'timm' is installed already"):
        scaffold.write("timm", tmp_path)


def test_a_folder_that_exists_is_left_alone(mmtool: Callable, tmp_path: Path) -> None:
    (tmp_path / "mmtool-scent").mkdir()
    ran = mmtool("plugins", "new", "scent", "-o", tmp_path)
    assert (ran.code, ran.out) == (5, "")
    assert "mmtool-scent exists already" in ran.err
    assert not list((tmp_path / "mmtool-scent").iterdir())


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MMToolError, match="cannot be made"):
        scaffold.write("scent", tmp_path / "file")
