"""A file system without locks: one writer all the same, or a refusal that says what to do."""

import errno
import fcntl
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import reported, warned

from cache import lock
from cache.lock import find_holder, lock_until_exit, locked
from cache.support.errors import RunError, StoreError

ERRORS = [errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.EIO]


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of the machine, where there are locks."""
    folder = tmp_path / "local"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def network(tmp_path: Path, local: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on a file system without locks."""
    folder = tmp_path / "network"
    folder.mkdir()
    fail_to_lock(monkeypatch, errno.ENOLCK, folder)
    return folder


def fail_to_lock(monkeypatch: pytest.MonkeyPatch, code: int, folder: Path = Path("/")) -> None:
    def flock(descriptor: int, operation: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).is_relative_to(folder):
            raise OSError(code, os.strerror(code))
        fcntl.flock(descriptor, operation)

    names = {name: getattr(fcntl, name) for name in ("LOCK_EX", "LOCK_SH", "LOCK_NB")}
    monkeypatch.setattr(lock, "fcntl", SimpleNamespace(flock=flock, **names))


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("error", [StoreError, RunError])
def test_without_any_lock_the_path_is_refused_with_what_to_do(
    tmp_path: Path, local: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[StoreError]
) -> None:
    fail_to_lock(monkeypatch, code)
    message = rf"s\.h5: cannot be locked \({os.strerror(code)}\), .*; choose a place on a local disk"
    with pytest.raises(error, match=message), locked(tmp_path / "s.h5", error):
        pass
    assert list(tmp_path.iterdir()) == [local]
    assert find_holder(tmp_path / "s.h5") is None
    assert list(local.iterdir()) == []


def test_a_local_lock_and_a_file_stand_for_the_lock_that_is_missing(network: Path, local: Path) -> None:
    with warned() as lines:
        for path in (network / "s.h5", network / "run"):
            with locked(path):
                assert find_holder(path) == f"process {os.getpid()} on {os.uname().nodename}"
                with pytest.raises(RunError, match=rf"is being fitted by process {os.getpid()} on .*; wait until"), \
                     locked(path, RunError, "fitted"):  # fmt: skip
                    pass
            assert find_holder(path) is None
    assert lines == [
        f"{network / name}: its file system has no locks (No locks available); .{name}.writer beside it keeps other "
        "machines from writing to it"
        for name in ("s.h5", "run")
    ]
    assert list(network.iterdir()) == list(local.iterdir()) == []


def test_what_a_writer_of_this_machine_left_when_it_was_killed_stops_nobody(network: Path) -> None:
    with warned(), locked(network / "s.h5"):
        left = (network / ".s.h5.writer").read_text()
    (network / ".s.h5.writer").write_text(left.replace(str(os.getpid()), "4711"))
    assert find_holder(network / "s.h5") is None
    with warned(), locked(network / "s.h5"):
        assert find_holder(network / "s.h5") == f"process {os.getpid()} on {os.uname().nodename}"
    assert list(network.iterdir()) == []


@pytest.mark.parametrize("text", ["process 4711 on elsewhere\nelsewhere 0-0 1:2 .lock", ""])
def test_a_writer_of_another_machine_is_believed_and_its_file_named(network: Path, text: str) -> None:
    (network / ".s.h5.writer").write_text(text)
    who = text.partition("\n")[0] or "another process"
    assert find_holder(network / "s.h5") == who
    message = rf"s\.h5: is being written by {who}; wait .*; if it was killed, remove {network}/\.s\.h5\.writer"
    with pytest.raises(StoreError, match=message), locked(network / "s.h5"):
        pass
    assert (network / ".s.h5.writer").read_text() == text


def test_another_start_of_this_machine_is_another_machine(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with warned(), locked(network / "s.h5"):
        left = (network / ".s.h5.writer").read_text()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (network / ".s.h5.writer").write_text(left.replace(boot, "0"))
    with pytest.raises(StoreError, match="if it was killed, remove"), locked(network / "s.h5"):
        pass


def test_an_error_in_the_block_leaves_no_file(network: Path, local: Path) -> None:
    with reported(), pytest.raises(ValueError, match="mine"), locked(network / "s.h5"):
        raise ValueError("mine")
    assert list(network.iterdir()) == list(local.iterdir()) == []


def test_without_a_folder_for_local_locks_the_path_is_refused(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(network / "nowhere"))
    with pytest.raises(StoreError, match=r"s\.h5: cannot be locked \(No locks available\)"), locked(network / "s.h5"):
        pass


def test_what_is_locked_until_exit_is_locked_once(tmp_path: Path, network: Path, local: Path) -> None:
    for file in (tmp_path / ".gpu0.lock", network / ".gpu0.lock", network / "nowhere" / ".gpu0.lock"):
        assert [lock_until_exit(file), lock_until_exit(file)] == [True, False]


def test_a_link_in_the_temporary_folder_is_not_followed(network: Path, local: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    with warned(), locked(network / "s.h5"):
        [file] = local.iterdir()
    file.symlink_to(tmp_path / "precious")
    with pytest.raises(StoreError, match="cannot be locked"), locked(network / "s.h5"):
        pass
    assert (tmp_path / "precious").read_text() == "precious"
