"""A cluster gives the store that one machine gives, whatever ends or joins while it is made; its faults are one line."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import cheap
import numpy as np
import pytest
from conftest import ROOT, make_store, reported, warned
from test_faults import finished_images, pending_images, run, start

from cache.parts import Parts
from cache.store import FeatureStore
from cache.support import cluster as connection
from cache.support.cluster import ClusterError, describe_difference
from cache.support.errors import DataError, NotInstalledError
from featurize.cluster import checked_workers, dispatcher, worker
from featurize.cluster.worker import Description, describe_worker, take_network
from featurize.engines.registry import Choice
from featurize.pipeline import make_features
from heads.selection import trials
from heads.selection.best import find_best
from heads.selection.budget import Budget
from heads.selection.leaderboard import choose
from heads.selection.sweep import sweep_runs

distributed = pytest.importorskip("distributed", reason="Dask is not installed: pip install dask distributed")

pytestmark = pytest.mark.long  # it starts schedulers and workers, which must find a core within seconds

ENV = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}


@pytest.fixture(autouse=True)
def cheap_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The coordinator of a test is this process; its network costs nothing, nor does that of workers in it."""
    cheap.install(monkeypatch.setattr, cheap.CheapEngine(n_gpus=0))
    monkeypatch.setattr(worker, "choose_engine", lambda *args: Choice(cheap.CheapEngine(n_gpus=0), "cheap"))
    for module in (checked_workers, dispatcher):
        monkeypatch.setattr(module, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(checked_workers, "CHECK_SECONDS", 20)


@pytest.fixture(scope="module")
def alone(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """The store that one machine makes."""
    path = tmp_path_factory.mktemp("alone") / "s.h5"
    assert run(phantoms, path)[0] == 0
    return FeatureStore(path)


@contextmanager
def process(*words: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """A process of Dask, which is killed at the end."""
    command = [sys.executable, "-m", *words]
    with subprocess.Popen(command, env=ENV | env, stderr=subprocess.DEVNULL, text=True, cwd=ROOT) as started:
        try:
            yield started
        finally:
            started.kill()


class Network:
    """A scheduler and workers, each a process of its own, on ports of this machine."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack, self._folder = stack, folder
        file = folder / "scheduler.json"
        self.scheduler = stack.enter_context(
            process(
                "distributed.cli.dask_scheduler",
                "--host",
                "127.0.0.1",
                "--port",
                "0",
                "--no-dashboard",
                "--scheduler-file",
                str(file),
            )
        )
        while not file.exists() or not file.read_text():
            time.sleep(0.02)
        self.address = re.search(r"tcp://[\d.:]+", file.read_text())[0]  # type: ignore[index]

    def add(self, name: str, *options: str, **env: str) -> subprocess.Popen[str]:
        """Start a worker, and wait until the scheduler knows it."""
        started = self._stack.enter_context(
            process("distributed.cli.dask_worker", self.address, "--nthreads", "1", "--no-dashboard", "--name", name,
                    "--local-directory", str(self._folder), "--preload", str(ROOT / "tests" / "cheap_worker.py"),
                    *(options or ("--no-nanny",)), **env)
        )  # fmt: skip
        with distributed.Client(self.address, set_as_default=False) as client:
            while name not in connection.name_workers(client).values():
                assert started.poll() is None, "the worker has ended"
                time.sleep(0.05)
        return started


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    with ExitStack() as stack:
        yield Network(stack, tmp_path)


@pytest.fixture
def threads() -> Iterator[Any]:
    """A cluster in this process, whose two workers are threads."""
    with make_threads(2) as made:
        yield made


def make_threads(n_workers: int) -> Any:
    """A cluster of threads, which listens for HTTP on any free port: tests run side by side."""
    return distributed.LocalCluster(
        n_workers=n_workers,
        threads_per_worker=1,
        processes=False,
        dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
    )


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each finished unit had that was written."""
    counts: list[int] = []
    add = Parts.add
    monkeypatch.setattr(Parts, "add", lambda self, rows: (counts.append(len(rows.digests)), add(self, rows)))
    return counts


def make_slowly(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    cheap.install(monkeypatch.setattr, cheap.CheapEngine(n_gpus=0, seconds=seconds))


def after(count: int, written: list[int], act: Callable[[], Any]) -> threading.Thread:
    """Do something once so many units are written."""

    def wait() -> None:
        while len(written) < count:
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_worker_that_is_killed_changes_no_byte_and_nothing_is_written_twice(
    phantoms: Path,
    alone: FeatureStore,
    network: Network,
    tmp_path: Path,
    written: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_slowly(monkeypatch, 0.1)
    network.add("a")
    victim = network.add("b")
    killing = after(2, written, victim.kill)
    made = make_features(phantoms, tmp_path / "s.h5", **cheap.GIVEN, scheduler=network.address)
    killing.join()
    assert victim.wait() == -signal.SIGKILL
    assert sum(written) == 40
    assert made.content == alone.content
    for name, split in alone.splits.items():
        assert made.split(name).embeddings.tobytes() == split.embeddings.tobytes()
    assert not (tmp_path / "s.h5.parts").exists()


def test_a_scheduler_that_dies_is_one_line_and_the_next_run_continues(
    phantoms: Path, alone: FeatureStore, network: Network, tmp_path: Path
) -> None:
    network.add("a")
    store = tmp_path / "place" / "s.h5"
    with start(phantoms, store, "--seconds", 0.2, "--scheduler", network.address) as coordinator:
        while finished_images(store) < 8:
            assert coordinator.poll() is None, coordinator.communicate()
            time.sleep(0.02)
        network.scheduler.kill()
        _, err = coordinator.communicate(timeout=30)
    assert coordinator.returncode == 1
    assert re.fullmatch(
        r"featurize: error: the scheduler has gone \(.*\); finished units are saved: run .* again\n", err
    )
    finished = finished_images(store)
    status, out, _ = run(phantoms, store)
    assert (status, pending_images(out)) == (0, 40 - finished)
    assert FeatureStore(store).content == alone.content


def test_workers_that_join_late_are_used_or_refused_by_name(
    phantoms: Path,
    alone: FeatureStore,
    network: Network,
    tmp_path: Path,
    written: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_slowly(monkeypatch, 1.0)
    first = network.add("first")
    other, late = [], []
    adding = after(
        1, written, lambda: (other.append(network.add("other", CHEAP_VERSION="0.1")), late.append(network.add("late")))
    )
    replacing = after(3, written, lambda: (adding.join(), first.kill()))  # from here on only the late one can embed
    with warned() as lines:
        made = make_features(phantoms, tmp_path / "s.h5", **cheap.GIVEN, scheduler=network.address)
    replacing.join()
    assert made.content == alone.content
    assert sum(written) == 40
    assert len(lines) == 1
    assert re.fullmatch(r"worker other \(tcp://\S+\) tensorflow-cpu 0\.1, not \S+; it gets no images", lines[0])


def test_a_worker_with_another_version_of_the_engine_is_refused_by_name_before_any_work(
    phantoms: Path, network: Network, tmp_path: Path
) -> None:
    network.add("old", CHEAP_VERSION="0.1")
    with pytest.raises(
        ClusterError, match=r"no worker of the cluster can embed: old \(tcp://\S+\) tensorflow-cpu 0\.1, not"
    ):
        make_features(phantoms, tmp_path / "s.h5", **cheap.GIVEN, scheduler=network.address)
    assert not (tmp_path / "s.h5").exists()


def test_an_image_that_ends_worker_after_worker_is_named_and_the_others_are_embedded(
    phantoms: Path, network: Network, tmp_path: Path
) -> None:
    killer = sorted((phantoms / "train").glob("*.jpg"))[8].name
    network.add("a", "--nanny", CHEAP_KILLER=killer)
    with pytest.raises(ClusterError, match=rf"4 workers ended, .*, while they embedded 4 images \(.*{killer}.*\)"):
        make_features(phantoms, tmp_path / "s.h5", **cheap.GIVEN, scheduler=network.address)
    assert finished_images(tmp_path / "s.h5") == 36


def test_images_on_another_file_system_give_the_same_store(
    phantoms: Path, alone: FeatureStore, threads: Any, tmp_path: Path
) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for path in phantoms.rglob("*.jpg"):
        memory.pipe(f"/bucket/{path.relative_to(phantoms)}", path.read_bytes())
    made = make_features("memory://bucket", tmp_path / "s.h5", **cheap.GIVEN, scheduler=threads.scheduler_address)
    assert made.content == alone.content
    assert made.record["data"] == "memory://bucket"
    with reported() as lines:
        make_features("memory://bucket", tmp_path / "s.h5", **cheap.GIVEN)
    assert "up to date" in lines[-1]


def test_neither_results_nor_the_network_pass_through_the_scheduler_and_few_units_are_under_way(
    phantoms: Path, threads: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("gather", "scatter"):
        monkeypatch.setitem(threads.scheduler.handlers, name, lambda **kwargs: pytest.fail("through the scheduler"))
    most, submit = [0], dispatcher.Dispatcher._submit

    def count(self: Any, *args: Any, **kwargs: Any) -> None:
        submit(self, *args, **kwargs)
        most[0] = max(most[0], len(self._under_way))

    monkeypatch.setattr(dispatcher.Dispatcher, "_submit", count)
    make_features(phantoms, tmp_path / "s.h5", **cheap.GIVEN, scheduler=threads.scheduler_address)
    assert most[0] == 4


def test_a_worker_that_does_not_see_the_images_is_refused(
    phantoms: Path, threads: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open
    monkeypatch.setattr(
        Path,
        "open",
        lambda self, *args, **kwargs: opened(tmp_path / "no.jpg" if self.suffix == ".jpg" else self, *args, **kwargs),
    )
    with pytest.raises(
        ClusterError, match=r"does not see the images \(.*no.jpg: No such file .*same path or URL everywhere"
    ):
        make_features(phantoms, tmp_path / "s.h5", **cheap.GIVEN, scheduler=threads.scheduler_address)


def test_two_workers_on_one_gpu_are_not_both_used(
    phantoms: Path, threads: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cheap.install(monkeypatch.setattr, cheap.CheapEngine(n_gpus=1))
    monkeypatch.setattr(worker, "choose_engine", lambda *args: Choice(cheap.CheapEngine(n_gpus=1), "cheap"))
    with warned() as lines:
        make_features(phantoms, tmp_path / "s.h5", **cheap.GIVEN, scheduler=threads.scheduler_address)
    assert len(lines) == 1
    assert re.search(
        r"worker \d \(inproc://\S+\) shares GPU 0 of \S+ with the worker at .*; it gets no images", lines[0]
    )


def test_a_worker_uses_the_first_gpu_of_its_list_and_refuses_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,0,1,2")
    monkeypatch.setattr(worker, "choose_engine", lambda *args: Choice(cheap.CheapEngine(n_gpus=1), "cheap"))
    assert describe_worker("jax", "auto").gpu.startswith("GPU 3 of ")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(worker, "choose_engine", lambda *args: Choice(cheap.CheapEngine(n_gpus=4), "cheap"))
    assert describe_worker("jax", "auto").fault.startswith("sees 4 GPUs, expected one")


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"decoding": "0"}, "decoding 0, not "),
        ({"resizing": "nearest"}, "resizing nearest, not "),
        ({"gpu": "GPU 0 of here"}, "device a GPU, not the CPU"),
        ({"versions": {"numpy": "1"}}, "numpy 1, not 2"),
        ({"choice": Choice(cheap.CheapEngine("bfloat16"), "")}, "precision bfloat16, not float32"),
        ({"fault": "has no engine"}, "has no engine"),
    ],
)
def test_all_that_decides_numbers_is_compared(change: dict[str, Any], difference: str) -> None:
    standard = Description(Choice(cheap.CheapEngine(), ""), "", {"numpy": "2"})
    assert standard.find_difference(standard) == ""
    assert replace(standard, **change).find_difference(standard).startswith(difference)


def test_a_network_that_arrives_damaged_is_not_taken(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = type("Worker", (), {"local_directory": str(tmp_path)})
    monkeypatch.setattr(distributed, "get_worker", worker)
    image = next(phantoms.rglob("*.jpg"))
    network = cheap.Network(None, cheap.CheapEngine(), cheap.FrontFiles(Path("nowhere"), "v"))  # type: ignore[arg-type]
    assert (
        take_network(network, {"front.xml": b"x"}, {"front.xml": "0" * 64}, image)
        == "got a damaged front.xml; run the same command again"
    )
    assert list(tmp_path.rglob("front.xml")) == []


def test_a_cluster_that_has_lost_its_workers_is_waited_for_and_left_with_the_images_under_way(
    phantoms: Path, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "WORKER_SECONDS", 1)
    killer = next((phantoms / "train").glob("*.jpg")).name
    network.add("a", CHEAP_KILLER=killer)
    message = r"for 1 s there has been no worker that may embed \(\S+, .* were under way\); finished units are saved"
    with pytest.raises(ClusterError, match=message):
        make_features(phantoms, tmp_path / "s.h5", **cheap.GIVEN, scheduler=network.address)


@pytest.fixture
def labelled(tmp_path: Path) -> tuple[Path, Path]:
    """A store and its data folder, whose concepts can be read off the embeddings."""
    random, splits = np.random.default_rng(0), {}
    (tmp_path / "data").mkdir()
    for split, n_images in (("train", 60), ("valid", 20)):
        X = random.normal(size=(n_images, 6))
        splits[split] = {f"{split}_{number:03d}": row for number, row in enumerate(X)}
        rows = [f"{id},C{int(row[0] > 0)}\n" for id, row in splits[split].items()]
        (tmp_path / "data" / f"{split}_concepts.csv").write_text("ID,CUIs\n" + "".join(rows))
    make_store(tmp_path / "labelled.h5", splits)
    return tmp_path / "labelled.h5", tmp_path / "data"


def test_a_sweep_on_a_cluster_has_the_table_and_the_run_of_one_here(
    labelled: tuple[Path, Path], threads: Any, tmp_path: Path
) -> None:
    grid = {"C": [1e-5, 0.05]}
    with reported():
        here = sweep_runs("logistic", *labelled, tmp_path / "here", grid)
        there = sweep_runs("logistic", *labelled, tmp_path / "there", grid, scheduler=threads.scheduler_address)
    assert [row["params"] for row in there] == [row["params"] for row in here]
    assert [row["valid"] for row in there] == pytest.approx([row["valid"] for row in here], abs=1e-9)
    assert (tmp_path / "there" / "valid.csv").read_bytes() == (tmp_path / "here" / "valid.csv").read_bytes()
    with reported() as lines:
        sweep_runs("logistic", *labelled, tmp_path / "there", grid)
    assert any("2 of 2 trials are done already" in line for line in lines)


def test_heads_are_compared_on_a_cluster_as_they_are_here(labelled: tuple[Path, Path], threads: Any) -> None:
    given = {"heads": ["ridge", "prior"], "decoders": ["fixed:0.3", "global"]}
    with reported():
        here = choose(*labelled, **given)
        there = choose(*labelled, **given, scheduler=threads.scheduler_address)

    def scores(table: list[dict[str, Any]]) -> dict[tuple[str, str], Any]:
        return {(row["head"], row["decoder"]): (row["folds"], row["primary"], row["chosen"]) for row in table}

    assert scores(there) == scores(here)


def test_a_search_on_a_cluster_finds_what_one_here_finds(
    labelled: tuple[Path, Path], threads: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "SETTINGS", {"ridge": [{}, {"alpha": 1.0}], "prior": [{}]})
    monkeypatch.setattr(trials, "MIN_IMAGES", 20)
    with reported():
        here = find_best(*labelled, tmp_path / "here", budget="10m")
        there = find_best(*labelled, tmp_path / "there", budget="10m", scheduler=threads.scheduler_address)
    assert [(row["trial"], row["f1"]) for row in there["trials"]] == [
        (row["trial"], row["f1"]) for row in here["trials"]
    ]
    assert (there["chosen"], there["folds"], there["nested"]) == (here["chosen"], here["folds"], here["nested"])
    assert (tmp_path / "there" / "valid.csv").read_bytes() == (tmp_path / "here" / "valid.csv").read_bytes()


def test_a_search_on_a_cluster_goes_on_from_what_is_finished_and_ends_with_its_time(
    labelled: tuple[Path, Path], threads: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "SETTINGS", {"ridge": [{}, {"alpha": 1.0}, {"alpha": 2.0}]})
    with reported():
        find_best(*labelled, tmp_path / "run", budget="10m")
    numbers: list[int] = []
    real = trials.call_on_cluster
    monkeypatch.setattr(trials, "call_on_cluster", lambda *args: numbers.append(len(args[2])) or real(*args))
    given = {"budget": "10m", "scheduler": threads.scheduler_address}
    with reported():
        find_best(*labelled, tmp_path / "run", **given)
        monkeypatch.setattr(Budget, "allows", lambda self, seconds, share: seconds > 0)
        with reported() as lines:
            find_best(*labelled, tmp_path / "other", **given)
    # The scores of a finished search are removed, so its trials are done again.
    assert numbers == [3, 1]
    assert sum(line.startswith("  no time for ridge") for line in lines) == 2


def test_workers_that_see_another_folder_of_the_search_are_told_apart(
    labelled: tuple[Path, Path], threads: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "SETTINGS", {"ridge": [{}]})
    monkeypatch.setattr(trials, "save_scores", lambda *args: None)
    with pytest.raises(ClusterError, match=r"run\.search is not there; give a RUN \(--out\) whose path is the same"):
        find_best(*labelled, tmp_path / "run", budget="10m", scheduler=threads.scheduler_address)


def test_fits_on_workers_with_other_versions_are_refused(
    labelled: tuple[Path, Path], threads: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_versions = distributed.Client.get_versions

    def change(self: Any) -> dict[str, Any]:
        found = get_versions(self)
        packages = {"packages": found["client"]["packages"] | {"dask": "0"}}
        return {**found, "workers": dict.fromkeys(found["workers"], packages)}

    monkeypatch.setattr(distributed.Client, "get_versions", change)
    with pytest.raises(ClusterError, match=r"worker \d has dask 0, not \S+; install the same versions everywhere"):
        sweep_runs("ridge", *labelled, tmp_path / "run", {"alpha": [1.0]}, scheduler=threads.scheduler_address)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense", "http://127.0.0.1:9"])
def test_an_address_without_a_scheduler_is_one_line_before_an_image_is_read(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.5)
    with pytest.raises(
        ClusterError, match=rf"no scheduler answers at {address} within 0\.5 s \(.*\); start one with `dask scheduler`"
    ):
        make_features(tmp_path / "no data", tmp_path / "s.h5", scheduler=address)


def test_a_scheduler_without_workers_is_waited_for_and_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "WORKER_SECONDS", 0.2)
    with (
        make_threads(0) as made,
        pytest.raises(ClusterError, match=r"has had no worker for 0\.2 s; start some with `dask worker inproc://"),
    ):
        make_features(tmp_path / "no data", tmp_path / "s.h5", scheduler=made.scheduler_address)


def test_other_versions_of_dask_and_python_are_refused(
    threads: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = {"packages": {"python": "3.11.7.final.0", "dask": "2026.8.0", "distributed": "2026.8.0"}}
    assert describe_difference({"packages": ours["packages"] | {"python": "3.11.9.final.0"}}, ours) == ""
    other = {"packages": {"python": "3.12.1.final.0", "dask": "2026.8.0", "distributed": "2025.1.0"}}
    assert describe_difference(other, ours) == "has Python 3.12, not 3.11, distributed 2025.1.0, not 2026.8.0"
    monkeypatch.setattr(
        distributed.Client, "get_versions", lambda self: {"scheduler": other, "client": ours, "workers": {}}
    )
    with pytest.raises(ClusterError, match=r"the scheduler at inproc://\S+ has Python 3\.12, not 3\.11"):
        make_features(tmp_path / "no data", tmp_path / "s.h5", scheduler=threads.scheduler_address)


def test_a_cluster_on_this_machine_does_without_the_port_of_another() -> None:
    with socket.socket() as other:
        with suppress(OSError):  # then it is another's already
            other.bind(("127.0.0.1", 8787))
            other.listen()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with connection.connected(connection.LOCAL, workers=1) as client:
                assert client.submit(sum, (1, 2)).result() == 3


def test_dask_that_is_not_installed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(NotInstalledError, match="pip install dask distributed"):
        make_features(tmp_path / "no data", tmp_path / "s.h5", scheduler="local")


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("nothing://bucket", DataError, "nothing://bucket: cannot be listed .*credentials"),
        ("memory://nowhere", DataError, "memory://nowhere: no image found"),
    ],
)
def test_a_url_that_cannot_be_read_is_one_line(url: str, error: type[Exception], message: str, tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(error, match=message):
        make_features(url, tmp_path / "s.h5", **cheap.GIVEN)


def test_credentials_that_are_missing_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = pytest.importorskip("fsspec.implementations.memory")

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError("Unable to locate credentials")

    monkeypatch.setattr(memory.MemoryFileSystem, "find", refuse)
    with pytest.raises(
        DataError, match=r"memory://bucket: cannot be listed \(Unable to locate credentials\); check .* credentials"
    ):
        make_features("memory://bucket", tmp_path / "s.h5", **cheap.GIVEN)
