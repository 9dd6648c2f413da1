"""Plugins: found without being imported, harmless until they are named, and told apart by their distribution."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from mmtool import installed, plugins
from mmtool.cli.main import run
from mmtool.errors import MMToolError, PluginError, UsageError

Install = Callable[..., None]

GOOD = """
    import pathlib
    pathlib.Path(__file__).with_suffix(".imported").touch()
    class Plugin:
        '''Reads scents.

        More about it.
        '''
        api = 1
        modality = "scent"
        def __init__(self, *, model: str, size: int = 3, weights: pathlib.Path | None = None): ...
"""
BROKEN = {
    "raises": ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
    "exits": ("import sys; sys.exit(3)", "it called sys.exit(3)"),
    "future": ("class Plugin: api = 99", "states api 99"),
    "stateless": ("class Plugin: pass", "states no api version"),
    "function": ("def Plugin(): pass", "is no class but a function"),
    "nameless": ("x = 1", "has no attribute 'Plugin'"),
}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """`install(distribution, name, code)` puts a distribution with one plugin on sys.path, as pip would leave it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def put(distribution: str, name: str, code: str = GOOD, kind: str = "encoder") -> None:
        module = f"{distribution}_{name}".replace("-", "_")
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(code))
        info = tmp_path / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        with (info / "entry_points.txt").open("a") as f:
            f.write(f"[{plugins.GROUPS[kind]}]\n{name} = {module}:Plugin\n")
        monkeypatch.delitem(sys.modules, module, raising=False)
        plugins.found.cache_clear()

    yield put
    plugins.found.cache_clear()


@pytest.fixture
def broken(install: Install) -> None:
    """Every kind of broken plugin, a good one, and two that share a name."""
    for name, (code, _) in BROKEN.items():
        install(f"pkg-{name}", name, code)
    install("pkg-good", "good")
    install("pkg-one", "twin")
    install("pkg-two", "twin")


def _lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_plugins_are_listed_from_metadata_alone(install: Install, tmp_path: Path,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    install("pkg-good", "good")
    assert run(["plugins", "list"]) == 0
    assert "encoder good pkg-good 1.2" in _lines(capsys)
    assert not list(tmp_path.glob("*.imported"))


@pytest.mark.usefixtures("broken")
def test_broken_plugins_harm_neither_the_help_nor_the_list_nor_other_plugins() -> None:
    code = textwrap.dedent("""
        import sys
        from mmtool.cli.main import run
        codes = [run(["--help"]), run(["plugins", "list"]), run(["plugins", "info", "good"])]
        heavy = {"torch", "numpy", "timm", "pyarrow", "pkg_exits_exits"} & set(sys.modules)
        sys.exit(f"{codes} {heavy}" if any(codes) or heavy else 0)
    """)
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage:" in done.stdout
    assert all(name in done.stdout for name in BROKEN)


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("name", BROKEN)
def test_naming_a_broken_plugin_tells_its_distribution_and_the_cause(name: str,
                                                                     capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "info", name]) == 7
    out, err = capsys.readouterr()
    assert out == ""
    assert f"encoder '{name}' of pkg-{name} 1.2" in err
    assert BROKEN[name][1] in err
    assert f"pkg-{name}" in err.splitlines()[-1] or "upgrade mmtool" in err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 3


@pytest.mark.usefixtures("broken")
def test_two_plugins_of_one_name_are_marked_and_told_apart_by_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "list"]) == 0
    assert "encoder twin pkg-two 1.2 ambiguous: write pkg-two/twin" in _lines(capsys)
    assert run(["plugins", "info", "twin"]) == 7
    assert "pkg-one/twin or pkg-two/twin" in capsys.readouterr().err
    assert run(["plugins", "info", "pkg-two/twin", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["distribution"] == "pkg-two"


def test_a_name_in_two_kinds_is_told_apart_by_the_kind(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("pkg-one", "mix")
    install("pkg-two", "mix", "class Plugin:\n    api = 1\n    returns = 'pooled'", kind="fusion")
    assert run(["plugins", "info", "mix"]) == 7
    err = capsys.readouterr().err
    assert "'mix' is the name of an encoder and of a fusion" in err
    assert "encoder/mix or fusion/mix" in err
    for name, kind in (("fusion/mix", "fusion"), ("encoder/mix", "encoder"), ("pkg-two/mix", "fusion"),
                       ("encoder/pkg-one/mix", "encoder")):
        assert plugins.find_any(name).kind == kind
        assert plugins.find(name, kind).name == "mix"
    with pytest.raises(PluginError, match="no task plugin is called 'fusion/mix'"):
        plugins.find("fusion/mix", "task")


def test_one_package_may_have_a_name_in_two_kinds_and_two_packages_one_in_a_kind(install: Install) -> None:
    install("pkg-one", "mix")
    install("pkg-one", "mix", kind="fusion")
    install("pkg-two", "mix", kind="fusion")
    with pytest.raises(PluginError, match="encoder/pkg-one/mix or fusion/pkg-one/mix"):
        plugins.find_any("pkg-one/mix")
    with pytest.raises(PluginError, match="pkg-one/mix or pkg-two/mix"):
        plugins.find_any("fusion/mix")
    assert plugins.find_any("fusion/pkg-two/mix").distribution == "pkg-two"


def test_a_plugin_of_no_kind_is_told_with_those_of_a_similar_name() -> None:
    with pytest.raises(PluginError, match=r"no plugin is called 'concatts' \(did you mean concat\?\)"):
        plugins.find_any("concatts")


def test_an_unknown_plugin_is_told_with_those_of_a_similar_name(install: Install) -> None:
    install("pkg-good", "good")
    with pytest.raises(PluginError, match=r"no encoder plugin is called 'goood' \(did you mean good\?\)"):
        plugins.find("goood")


def test_info_tells_modality_options_types_and_defaults(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("pkg-good", "good")
    assert run(["plugins", "info", "good"]) == 0
    assert capsys.readouterr().out == textwrap.dedent("""\
        encoder good: Reads scents.
        package   pkg-good 1.2
        modality  scent
        api       1
        option   type  default
        model    text  (required)
        size     int   3
        weights  path  none
        """)
    assert run(["plugins", "info", "good", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["options"][1] == {"name": "size", "type": "int", "required": False, "default": 3}


def test_fusions_and_tasks_are_plugins_too(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("pkg-mix", "mix", "class Plugin:\n    api = 1\n    returns = 'towers'", kind="fusion")
    assert run(["plugins", "info", "mix"]) == 0
    assert capsys.readouterr().out == "fusion mix\npackage  pkg-mix 1.2\nreturns  towers\napi      1\n"


def test_the_list_is_json_for_scripts(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("pkg-good", "good")
    assert run(["plugins", "list", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert {"kind": "encoder", "name": "good", "distribution": "pkg-good", "version": "1.2",
            "ambiguous": False} in json.loads(out)


def test_install_tells_which_plugins_came(install: Install, monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    install("pkg-old", "old")
    monkeypatch.setattr(installed, "_pip", lambda packages: install("pkg-good", "good"))
    assert run(["plugins", "install", "pkg-good"]) == 0
    assert capsys.readouterr().out == "kind     name  package\nencoder  good  pkg-good 1.2\n"
    monkeypatch.setattr(installed, "_pip", lambda packages: 0)
    assert run(["plugins", "install", "requests", "--json"]) == 0
    out, err = capsys.readouterr()
    assert out == "[]\n"
    assert "no plugin is new" in err


def test_install_without_pip_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "PathFinder", SimpleNamespace(find_spec=lambda name: None))
    with pytest.raises(MMToolError, match="has no pip; add it with `python -m ensurepip`"):
        installed.install(["pkg"])


def test_install_gives_pip_no_options() -> None:
    with pytest.raises(UsageError, match="'--index-url=x' is no package"):
        installed.install(["--index-url=x"])


@pytest.mark.parametrize(("tools", "code", "isolated"), [
    ('["pytest>=1"]', 0, [False]), ('["pytest>=99"]', 1, [False, True]), ('["no-such-build-tool"]', 0, [True])])
def test_a_folder_is_built_with_the_tools_at_hand_so_that_no_network_is_needed(
        tools: str, code: int, isolated: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text(f"[build-system]\nrequires = {tools}\n")
    calls: list[list[str]] = []

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(subprocess, "run", pip)
    assert installed._pip([str(tmp_path)]) == code
    assert ["--no-build-isolation" not in call for call in calls] == isolated
    assert all(call[-2:] == ["--", str(tmp_path)] for call in calls)


def test_install_that_fails_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "_pip", lambda packages: 1)
    monkeypatch.setitem(sys.modules, "distutils", ModuleType("distutils"))  # setuptools warns of that where pip is looked for
    with pytest.raises(MMToolError, match="pip could not install a, b"):
        installed.install(["a", "b"])
