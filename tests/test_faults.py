"""A run may be killed at any moment, the disk may be full, images may vanish: no finished work is lost."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import PROVENANCE, ROOT, make_store, wait_for_end, warned
from forks import Fork, run_fork

from cache.lock import find_holder, locked
from cache.parts import find_unfinished
from cache.store import FeatureStore
from cache.support.errors import RunError, StoreError


def start(data: Path, store: Path, *args: object) -> Fork:
    return Fork("import sys, cheap; sys.exit(cheap.main())", data, store, *args)


def run(data: Path, store: Path, *args: object) -> tuple[int, str, str]:
    with start(data, store, *args) as process:
        out, err = process.communicate(timeout=60)
    return process.wait(), out, err


def finished_images(store: Path) -> int:
    """How many images are in part files."""
    return sum(len(rows.digests) for parts in find_unfinished(store) for rows in parts)


def pending_images(out: str) -> int:
    """How many images a run reported that it would embed."""
    found = re.search(r"(\d+) images to embed", out)
    return int(found.group(1)) if found else 0


@pytest.fixture(scope="module")
def undisturbed(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    path = tmp_path_factory.mktemp("undisturbed") / "s.h5"
    assert run(phantoms, path)[0] == 0
    return FeatureStore(path)


def assert_same(store: Path, undisturbed: FeatureStore) -> None:
    made = FeatureStore(store)
    assert made.content == undisturbed.content
    for name, split in undisturbed.splits.items():
        assert made.split(name).embeddings.tobytes() == split.embeddings.tobytes()
    left = {path.name for path in store.parent.iterdir()} - {store.name, f".{store.name}.seen.json"}
    assert left == set()


# Ten units are written with three steps each (temporary file, sync, rename), and the provenance before and the
# store after them: these moments are the first, some between, and those around the last.
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("call", "number"), [("replace", 1), ("replace", 2), ("fsync", 8), ("replace", 6), ("fsync", 22), ("replace", 12)]
)
def test_a_run_killed_at_any_step_of_a_write_continues(
    phantoms: Path, undisturbed: FeatureStore, tmp_path: Path, call: str, number: int, when: str
) -> None:
    store = tmp_path / "place" / "s.h5"
    status, _, _ = run(phantoms, store, "--die-at", call, number, when)
    assert status == -signal.SIGKILL
    finished, complete = finished_images(store), store.exists()
    status, out, err = run(phantoms, store)
    assert status == 0, err
    assert pending_images(out) == (0 if complete else 40 - finished), "a finished unit was embedded twice"
    assert_same(store, undisturbed)


def test_a_run_killed_again_and_again_ends_the_same(phantoms: Path, undisturbed: FeatureStore, tmp_path: Path) -> None:
    store, embedded = tmp_path / "place" / "s.h5", 0
    for _ in range(4):
        before = finished_images(store)
        with start(phantoms, store, "--seconds", 0.15) as process:
            while finished_images(store) < before + 8 and process.poll() is None:
                time.sleep(0.02)
            process.kill()
        embedded += finished_images(store) - before
    status, out, _ = run(phantoms, store)
    assert status == 0
    assert embedded + pending_images(out) == 40, "a finished unit was embedded twice"
    assert_same(store, undisturbed)


def test_an_interrupted_run_ends_cleanly_and_continues(
    phantoms: Path, undisturbed: FeatureStore, tmp_path: Path
) -> None:
    store = tmp_path / "place" / "s.h5"
    with start(phantoms, store, "--seconds", 0.2, "--workers", 2) as process:
        while finished_images(store) < 8:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == "featurize: interrupted; the same command continues from what is finished\n"
    finished = finished_images(store)
    status, out, _ = run(phantoms, store)
    assert (status, pending_images(out)) == (0, 40 - finished)
    assert_same(store, undisturbed)


def find_descendants(pid: int) -> set[int]:
    """The processes that a process has started, and those that these have."""
    try:
        threads = Path(f"/proc/{pid}/task").glob("*/children")
        children = {int(child) for thread in threads for child in thread.read_text().split()}
    except OSError:  # it has ended
        return set()
    return children.union(*map(find_descendants, children))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_a_killed_run_leaves_no_process_behind(phantoms: Path, tmp_path: Path) -> None:
    store = tmp_path / "place" / "s.h5"
    with start(phantoms, store, "--seconds", 0.2, "--workers", 2) as process:
        while finished_images(store) < 8 and process.poll() is None:
            time.sleep(0.02)
        left = find_descendants(process.pid)
        process.kill()
        assert len(left) >= 2, "it had no workers"
    assert wait_for_end(left) == []


@pytest.mark.parametrize("largest", [1000, 12_000])
def test_a_full_disk_is_one_line_and_the_next_run_continues(
    phantoms: Path, undisturbed: FeatureStore, tmp_path: Path, largest: int
) -> None:
    # A part is about 1.4 KB and the store about 20: the first limit stops the first part, the second the store.
    store = tmp_path / "place" / "s.h5"
    status, _, err = run(phantoms, store, "--largest-file", largest)
    assert status == 1
    assert re.fullmatch(r"featurize: error: \S+ cannot be written \(File too large\); finished work is saved.*\n", err)
    assert not store.exists()
    finished = finished_images(store)
    assert finished == (0 if largest < 1400 else 40)
    status, out, _ = run(phantoms, store)
    assert (status, pending_images(out)) == (0, 40 - finished)
    assert_same(store, undisturbed)


def test_a_disk_without_room_is_refused_with_both_numbers(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cache.support.files import require_room

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 1_200_000_000))  # type: ignore[attr-defined]
    require_room(tmp_path / "not" / "yet" / "s.h5", 1_000_000_000)
    with pytest.raises(StoreError, match=r"needs 5\.0 GB while it is made, its disk has 1\.2 GB free"):
        require_room(tmp_path / "not" / "yet" / "s.h5", 5_000_000_000)


def test_a_folder_that_cannot_be_written_to_is_one_line(phantoms: Path) -> None:
    status, out, err = run(phantoms, Path("/proc/s.h5"))
    assert (status, out) == (1, "")
    assert re.fullmatch(r"featurize: error: /proc/.*: .*\n", err)


def test_images_that_vanish_during_a_run_lose_nothing(
    phantoms: Path, undisturbed: FeatureStore, tmp_path: Path
) -> None:
    data, store = tmp_path / "data", tmp_path / "place" / "s.h5"
    shutil.copytree(phantoms, data)
    status, _, err = run(data, store, "--remove", data)
    assert status == 1
    assert "images changed or vanished while being embedded" in err
    assert err.count("\n") == 1
    finished = finished_images(store)
    assert 0 < finished < 40
    shutil.copytree(phantoms, data)
    status, out, _ = run(data, store)
    assert (status, pending_images(out)) == (0, 40 - finished)
    assert_same(store, undisturbed)


def test_a_damaged_part_is_embedded_again(phantoms: Path, undisturbed: FeatureStore, tmp_path: Path) -> None:
    store = tmp_path / "place" / "s.h5"
    run(phantoms, store, "--die-at", "replace", 8, "before")
    finished = finished_images(store)
    path = sorted((tmp_path / "place").glob("s.h5.parts/*/*.part"))[2]
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with warned() as lines:
        assert finished_images(store) == finished - 4
    assert "1 damaged part passed over" in lines[0]
    status, out, err = run(phantoms, store)
    assert (status, pending_images(out)) == (0, 40 - finished + 4)
    assert "1 damaged part passed over" in err
    assert_same(store, undisturbed)


def test_a_second_writer_is_refused_with_the_firsts_process_and_host(phantoms: Path, tmp_path: Path) -> None:
    store = tmp_path / "place" / "s.h5"
    with start(phantoms, store, "--seconds", 0.5) as process:
        while find_holder(store) is None:
            time.sleep(0.02)
        status, out, err = run(phantoms, store)
        process.kill()
    assert (status, out) == (1, "")
    assert re.fullmatch(rf"featurize: error: {store}: is being written by process {process.pid} on \S+; wait .*\n", err)


def test_a_dead_writers_lock_is_taken_over(tmp_path: Path) -> None:
    store = tmp_path / "s.h5"
    (tmp_path / ".s.h5.lock").write_text("process 4711 on elsewhere")
    assert find_holder(store) is None
    with locked(store):
        assert find_holder(store) == f"process {os.getpid()} on {os.uname().nodename}"
    assert list(tmp_path.iterdir()) == []


def test_temporary_files_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    for name in (".s.h5.99.tmp", "..s.h5.seen.json.99.tmp", ".others.h5.99.tmp", "s.h5.parts/0123/.unit.part.99.tmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("half")
    (tmp_path / ".s.h5.network.99.tmp").mkdir()
    (tmp_path / ".s.h5.network.99.tmp" / "front.keras").write_text("half")
    with locked(tmp_path / "s.h5"):
        pass
    assert [path.name for path in tmp_path.rglob("*.tmp")] == [".others.h5.99.tmp"]


KILLING = """
import sys
from pathlib import Path
import faults
faults.load_libraries()
place = Path(sys.argv[1])
faults.kill_at_every_step(["fit", "ridge", *sys.argv[2:], "--out", "run", "--decoder", "fixed:0.3"], place, 9)
faults.kill_at_every_step(["predict", "run", "--store", "s.h5"], place, 9)
faults.kill_at_every_step(["fit", "prior", *sys.argv[2:], "--out", "run", "--decoder", "fixed:0.3"], place, 16)
"""


def test_a_run_that_is_killed_at_any_step_is_unfinished_or_whole_and_is_made_again(tmp_path: Path) -> None:
    """The first run in a folder, its submission, and another run in its place."""
    import numpy as np

    place, random = tmp_path / "place", np.random.default_rng(0)
    (place / "data").mkdir(parents=True)
    splits = {}
    for split, n_images in (("train", 20), ("valid", 8), ("test", 4)):
        splits[split] = {f"{split}_{number:02d}": row for number, row in enumerate(random.normal(size=(n_images, 3)))}
        rows = [f"{id},C{number % 3}\n" for number, id in enumerate(splits[split])]
        if split != "test":
            (place / "data" / f"{split}_concepts.csv").write_text("ID,CUIs\n" + "".join(rows))
    make_store(place / "s.h5", splits)
    path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    words = [sys.executable, "-c", KILLING, str(place), "--store", "s.h5", "--data", "data"]
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr


REPLACING = """
import sys
from pathlib import Path
import cheap
from cache.support.files import replace_folder
cheap._die_at("rename", int(sys.argv[1]), sys.argv[2])
replace_folder(Path(".s.h5.network.99.0123abcd.tmp"), Path("s.h5.network"))
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", [1, 2])
def test_a_network_that_is_replaced_is_whole_or_absent_after_a_kill(tmp_path: Path, number: int, when: str) -> None:
    for name, text in (("s.h5.network", "old"), (".s.h5.network.99.0123abcd.tmp", "new")):
        (tmp_path / name).mkdir()
        for file in ("front.keras", "network.json"):
            (tmp_path / name / file).write_text(text)
    assert run_fork(REPLACING, number, when, cwd=tmp_path).returncode == -signal.SIGKILL
    with locked(tmp_path / "s.h5"):
        pass
    found = {str(each.relative_to(tmp_path)): each.read_text() for each in tmp_path.rglob("*") if each.is_file()}
    expected = {(1, "before"): "old", (2, "after"): "new"}.get((number, when))
    files = ("s.h5.network/front.keras", "s.h5.network/network.json") if expected else ()
    assert found == dict.fromkeys(files, expected)


def test_a_folder_is_locked_like_a_store_and_by_one_thread_only(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "ridge"
    message = rf"ridge: is being fitted by process {os.getpid()} on \S+; wait until it has ended, or end it"
    with locked(run, RunError, "fitted"):
        run.mkdir()
        with pytest.raises(RunError, match=message), locked(run, RunError, "fitted"):
            pass
        (run / ".metrics.json.99.0123abcd.tmp").write_text("half")
        (run / ".mine.tmp").write_text("precious")
    with locked(run):
        assert [path.name for path in run.iterdir()] == [".mine.tmp"]
    assert [path.name for path in run.parent.iterdir()] == ["ridge"]


def test_the_current_folder_has_one_lock_under_all_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    with locked(Path(".")):
        for path in (tmp_path / "here", Path("below/..")):
            with pytest.raises(StoreError, match="is being written by process"), locked(path):
                pass


def test_a_lock_on_a_file_that_its_holder_removes_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cache import lock

    flock, file = lock.fcntl.flock, tmp_path / ".s.h5.lock"

    def remove_once_and_lock(*args: int) -> None:
        monkeypatch.setattr(lock.fcntl, "flock", flock)
        file.unlink()  # its holder ends after we have opened the file
        flock(*args)

    monkeypatch.setattr(lock.fcntl, "flock", remove_once_and_lock)
    with locked(tmp_path / "s.h5"), pytest.raises(StoreError), locked(tmp_path / "s.h5"):
        pass
    assert not file.exists()


def test_readers_are_not_stopped_by_a_writer(tmp_path: Path) -> None:
    import numpy as np

    make_store(tmp_path / "s.h5", {"train": {"a": np.ones(2)}})
    with locked(tmp_path / "s.h5"):
        assert FeatureStore(tmp_path / "s.h5").provenance == PROVENANCE
