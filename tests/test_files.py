"""Files and folders appear whole or not at all, and one run at a time writes them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mmtool import files, folders
from mmtool.errors import LockedError, StorageError
from mmtool.locks import Lock, locked
from mmtool.sealing import sha256_of_file


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def child(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(folder)], capture_output=True, text=True,
                          check=False)


def test_a_file_appears_whole_with_the_rights_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        digest = files.write_bytes(tmp_path / "a", b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    assert digest == sha256_of_file(tmp_path / "a")
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(type(error)), files.writing(tmp_path / "a") as f:
        f.write(b"half of the n")
        raise error
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]
    if isinstance(error, OSError):
        assert error.filename == str(tmp_path / "a")


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real/a")
    files.write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "real/a").read_bytes() == b"new"
    assert (tmp_path / "link").is_symlink()


def test_what_a_killed_writer_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    killed = child(tmp_path, """
        import os, sys
        from pathlib import Path
        from mmtool import files
        with files.writing(Path(sys.argv[1]) / "a") as f:
            f.write(b"half")
            f.flush()
            os.kill(os.getpid(), 9)""")
    assert killed.returncode == -9
    (left,) = names(tmp_path)
    assert left.startswith(".mmtool-")
    (tmp_path / ".mmtool-0.gone").mkdir()
    (tmp_path / ".mmtool-0.gone" / "x").touch()
    (tmp_path / ".mmtool-mine").touch()
    with files.writing(tmp_path / "b") as f:
        files.sweep(tmp_path)
        f.write(b"whole")
    assert names(tmp_path) == [".mmtool-mine", "b"]


def test_where_nothing_can_be_locked_only_what_is_old_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def flock(fd: int, how: int) -> None:  # as NFS, of what is open for reading
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", flock)
    with files.writing(tmp_path / "a") as f, folders.replacing(tmp_path / "r") as fresh:
        old = tmp_path / ".mmtool-0.tmp"
        old.touch()
        os.utime(old, (0, 0))
        files.sweep(tmp_path)
        assert fresh.is_dir()
        f.write(b"whole")
    assert names(tmp_path) == ["a", "r"]


def test_what_is_swept_is_held_so_that_no_run_takes_it_for_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fcntl")
    left = tmp_path / ".mmtool-0.tmp"
    taken: list[bool] = []
    unlink = Path.unlink

    def seen(path: Path, missing_ok: bool = False) -> None:
        with path.open("rb") as f:  # as the run that has just made it, and is about to hold it
            taken.append(files.hold(f.fileno()))
        unlink(path, missing_ok)

    left.touch()
    monkeypatch.setattr(Path, "unlink", seen)
    files.sweep(tmp_path)
    assert taken == [False]
    assert names(tmp_path) == []


def test_a_pipe_of_the_name_of_a_temporary_file_holds_nothing_up(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    os.mkfifo(tmp_path / ".mmtool-0.tmp")
    (tmp_path / ".mmtool-1.tmp").touch()
    files.sweep(tmp_path)
    assert names(tmp_path) == []


def test_where_no_open_file_can_be_renamed_it_is_closed_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "fcntl", None)  # as on Windows
    replace, closed = Path.replace, []
    with files.writing(tmp_path / "a") as f:
        def seen(path: Path, to: Path) -> Path:
            closed.append(f.closed)
            return replace(path, to)

        monkeypatch.setattr(Path, "replace", seen)
        f.write(b"whole")
    assert closed == [True]
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_a_folder_of_a_killed_run_among_the_systems_temporary_files_goes_with_the_next(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "mmtool-dead.scratch").mkdir()
    (tmp_path / "mmtool-mine").mkdir()
    with folders.scratch() as one, folders.scratch() as other:
        assert one.is_dir()
        assert names(tmp_path) == sorted([one.name, other.name, "mmtool-mine"])
    assert names(tmp_path) == ["mmtool-mine"]


@pytest.mark.parametrize("can_exchange", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_a_folder_takes_the_place_of_another_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, there: bool,
                                                        can_exchange: bool) -> None:
    if not can_exchange:
        monkeypatch.setattr(folders, "exchange", lambda one, other: False)
    if there:
        (tmp_path / "r").mkdir()
        (tmp_path / "r/old").touch()
    with folders.replacing(tmp_path / "r") as fresh:
        (fresh / "new").touch()
        assert (tmp_path / "r/old").exists() == there
    assert names(tmp_path) == ["r"]
    assert names(tmp_path / "r") == ["new"]


def test_folders_in_a_folder_are_synced_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync, synced = files.sync_folder, list[tuple[Path, bool]]()

    def seen(folder: Path) -> None:
        synced.append((folder, (folder / "sub").exists()))
        sync(folder)

    monkeypatch.setattr(files, "sync_folder", seen)
    with folders.replacing(tmp_path / "r") as fresh:
        files.write_bytes(fresh / "a", b"")
        (fresh / "sub").mkdir()
    assert (fresh, True) in synced


def test_killed_between_two_renames_the_old_folder_comes_back_or_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "exchange", lambda one, other: False)
    (tmp_path / "r").mkdir()
    (tmp_path / "r/old").touch()
    with pytest.raises(OSError, match="full"), folders.replacing(tmp_path / "r") as fresh:
        rename = Path.rename
        monkeypatch.setattr(Path, "rename", lambda path, to: _full() if to == tmp_path / "r" and path == fresh
                            else rename(path, to))
    monkeypatch.undo()
    assert names(tmp_path / "r") == ["old"]

    monkeypatch.setattr(folders, "exchange", lambda one, other: False)
    (tmp_path / "r").rename(folders.former(tmp_path / "r"))  # killed there
    folders.mend(tmp_path / "r")
    assert names(tmp_path / "r") == ["old"]

    folders.former(tmp_path / "r").mkdir()  # killed one step later
    (folders.former(tmp_path / "r") / "x").touch()
    with folders.replacing(tmp_path / "r") as fresh:
        (fresh / "new").touch()
    assert names(tmp_path / "r") == ["new"]
    assert [n for n in names(tmp_path) if n.endswith(".old")] == []


def _full() -> None:
    raise OSError(errno.ENOSPC, "full")


def test_two_names_are_exchanged_in_one_step(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_text("b")
    assert folders.exchange(tmp_path / "a", tmp_path / "b") == (sys.platform == "linux")
    with pytest.raises(OSError, match="No such file"):
        folders.exchange(tmp_path / "a", tmp_path / "none")


def test_a_lock_keeps_others_out_names_its_holder_and_goes_with_it(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with locked(output):
        refused = child(tmp_path, """
            import sys
            from pathlib import Path
            from mmtool.locks import Lock
            Lock(Path(sys.argv[1]) / "out")""")
        assert f"LockedError: another run writes {output}: process {os.getpid()} on " in refused.stderr
        with pytest.raises(LockedError):
            Lock(output)
    assert names(tmp_path) == []
    Lock(output).release()


def test_a_killed_holder_leaves_no_lock_even_where_its_child_lives_on(tmp_path: Path) -> None:
    killed = child(tmp_path, """
        import os, sys, time
        from pathlib import Path
        from mmtool.locks import Lock
        Lock(Path(sys.argv[1]) / "out")
        if os.fork() == 0:
            os.close(1), os.close(2)
            time.sleep(30)
            os._exit(0)
        os.kill(os.getpid(), 9)""")
    assert killed.returncode == -9
    assert names(tmp_path) == [".out.lock"]
    Lock(tmp_path / "out").release()
    assert names(tmp_path) == []


def test_where_nothing_can_be_written_is_said_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written") as found:
        Lock(Path("/proc/mmtool"))
    assert (found.value.exit_code, found.value.code) == (5, "E_NOT_FOUND")


def test_a_lock_that_another_user_left_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left, opened = tmp_path / ".out.lock", os.open
    left.write_text("{}")

    def foreign(path: object, flags: int, mode: int = 0o777) -> int:  # root may write whatever its rights are
        if path == left and flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, flags, mode)

    monkeypatch.setattr("mmtool.locks.os.open", foreign)
    with locked(tmp_path / "out"), pytest.raises(LockedError):
        Lock(tmp_path / "out")
    assert names(tmp_path) == []
