"""Kill commands with SIGKILL, give them again, and compare the result with an undisturbed one.

`featurize` is killed at 25 moments spread over a run: the real command with the real network on drawn images. After
every kill it is said how many images the part files hold; the next run must embed just the others. Ctrl-C is timed as
well.

Commands of `heads` are killed before each call that changes a name or the bytes of a file, one call after another. Each
run must then be a whole earlier one, or say that it is unfinished. The same command must then give the files that it
gives undisturbed, and leave nothing else. They are also given on disks with too little room, where root can mount one,
and two at once.
"""

import argparse
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fuzz_targets import make_data

from cache.parts import find_unfinished
from cache.store import FeatureStore
from cache.support.errors import RunError
from heads import fit_run
from heads.__main__ import main as give_command
from heads.registry import make_head
from heads.runs.files import SEAL, RunFiles
from heads.runs.folder import METRICS

OPTIONS = ["--weights", "random:0", "--size", "128"]

HEADS = (
    "fit ridge --out run --decoder global",
    "predict run",
    "fit knn --out run --decoder fixed:0.3",
    "sweep ridge --out swept --grid alpha=10,1000 --decoder fixed:0.3",
)
"""Commands of `heads` that are killed, in this order."""

CALLS = ("fsync", "mkdir", "open", "rename", "replace", "rmdir", "truncate", "ftruncate", "unlink", "write")
"""Functions of `os` before which a command is killed."""

NOT_COMPARED = ("seconds", SEAL, METRICS, "members/")
"""Keys, and beginnings of keys, of JSON files that differ between equal runs: times, and digests of files with them."""


def start(data: Path, store: Path) -> subprocess.Popen[str]:
    """Start the command."""
    words = [sys.executable, "-m", "featurize", str(data), "--store", str(store), *OPTIONS]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(data: Path, store: Path) -> tuple[float, int]:
    """Run the command to its end; returns seconds and how many images it embedded."""
    begun = time.perf_counter()
    with start(data, store) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    found = re.search(r"([\d,]+) images to embed", out)
    return time.perf_counter() - begun, int(found.group(1).replace(",", "")) if found else 0


def kept(store: Path) -> int:
    """How many images are finished."""
    if store.exists():
        return sum(len(split.ids) for split in FeatureStore(store).splits.values())
    return sum(len(rows.digests) for parts in find_unfinished(store) for rows in parts)


def interrupt(data: Path, store: Path) -> float:
    """Seconds from Ctrl-C, once half a unit is under way, to the end of the command."""
    with start(data, store) as process:
        while kept(store) == 0:
            time.sleep(0.05)
        begun = time.perf_counter()
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 130
    return time.perf_counter() - begun


def kill_at_every_step(words: list[str], place: Path, every: int = 1, forked: bool = True) -> int:
    """Kill a command of `heads` at every step, and give it again.

    It runs in children of this process. With `forked` they are forked from it, which is quick; then there must be no
    other threads, and TensorFlow must not be loaded.

    Parameters
    ----------
    words : list of str
        The words after ``python -m heads``, with paths below `place`.
    place : Path
        The folder that the command reads and writes. It is put back before each kill, and has the undisturbed result
        at the end.
    every : int
        Only one of so many steps, for a quick check.
    forked : bool
        Whether the children are forks.

    Returns
    -------
    int
        How many steps there are.

    Raises
    ------
    AssertionError
        A run reads as finished and is not, the same command fails, or its result is another one.
    """
    give = _fork if forked else _start
    before = place.with_name(f"{place.name}.before")
    shutil.copytree(place, before, symlinks=True)
    try:
        assert give(words, place, 0) == 0, f"{words}: fails undisturbed"
        expected = dict(_read_results(place))
        for step in range(1, sys.maxsize, every):
            shutil.rmtree(place)
            shutil.copytree(before, place, symlinks=True)
            status = give(words, place, step)
            if status != signal.SIGKILL:
                assert status == 0, f"{words}: fails undisturbed"
                return step - 1  # the last step, but for those that were left out
            _check_runs(place, f"{words} killed at step {step}")
            assert give(words, place, 0) == 0, f"{words} killed at step {step}: fails the second time"
            found = dict(_read_results(place))
            differ = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
            assert not differ, f"{words} killed at step {step}: {', '.join(differ)} differ"
        raise AssertionError
    finally:
        shutil.rmtree(before)


def _fork(words: list[str], place: Path, step: int, errors: int = 2) -> int:
    """Give a command in a child, which is killed before a step; returns its status, or its signal."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.chdir(place)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(errors, 2)
            status = give_dying(words, step)
        finally:
            os._exit(status)
    return abs(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _start(words: list[str], place: Path, step: int) -> int:
    """As `_fork`, in a new process."""
    code = "import sys, faults; sys.exit(faults.give_dying(sys.argv[2:], int(sys.argv[1])))"
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent)])
    command = [sys.executable, "-c", code, str(step), *words]
    done = subprocess.run(command, cwd=place, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.DEVNULL)
    return abs(done.returncode)


def load_libraries() -> None:
    """Import what commands of `heads` need, so that no child has to do it."""
    for name in ("kernel", "knn", "ridge"):
        make_head(name)
    for module in (
        "heads.ensembles.builder",
        "heads.ensembles.prediction",
        "heads.runs.builder",
        "heads.selection.sweep",
    ):
        importlib.import_module(module)


def give_dying(words: list[str], step: int) -> int:
    """Give a command of `heads` in this process, which is killed before a step; no step if it is 0."""
    steps = iter(range(1, sys.maxsize))
    for name in CALLS if step else ():
        setattr(os, name, _dying(getattr(os, name), name, steps, step))
    return give_command(words)


def _dying(real: Callable[..., Any], name: str, steps: Iterator[int], last: int) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        reads = name == "open" and not args[1] & os.O_CREAT
        if not reads and next(steps) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    return call


def _check_runs(place: Path, when: str) -> None:
    """Check that every run is whole, or says that it is unfinished."""
    for folder in {path.parent for path in place.rglob("run.json")}:
        if ".tmp" in str(folder.relative_to(place)):
            continue  # not yet in its place
        try:
            files = RunFiles.open(folder)
        except RunError as error:
            if "no finished run" not in str(error):
                raise AssertionError(f"{when}: {error}") from error
        else:
            assert files.is_whole(), f"{when}: {folder} reads as finished and is not"


def _read_results(place: Path) -> Iterator[tuple[str, Any]]:
    """The files below a folder, without what differs between equal runs."""
    for path in sorted(place.rglob("*")):
        if path.is_dir():
            yield f"{path.relative_to(place)}/", None
        elif path.suffix == ".json":
            yield str(path.relative_to(place)), _without_times(json.loads(path.read_text()))
        else:
            yield str(path.relative_to(place)), path.read_bytes()


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(each) for key, each in value.items() if not key.startswith(NOT_COMPARED)}
    return [_without_times(each) for each in value] if isinstance(value, list) else value


def fill_disk(words: list[str], place: Path, levels: int = 17) -> Counter[str]:
    """Give a command of `heads` on a disk with more and more room, from none to plenty.

    Parameters
    ----------
    words : list of str
        The words after ``python -m heads``; the command writes below the present folder.
    place : Path
        What it reads and writes. File systems in memory are mounted over it, which takes the rights of root.
    levels : int
        Amounts of room that are tried.

    Returns
    -------
    Counter
        How often the command ended in which way.

    Raises
    ------
    AssertionError
        It crashes, says more than one line, spoils an earlier run, or fails once there is room.
    PermissionError
        File systems cannot be mounted.
    """
    before, ends = place.with_name(f"{place.name}.before"), Counter[str]()
    shutil.copytree(place, before)
    assert _fork(words, place, 0) == 0, f"{words}: fails undisturbed"
    expected = dict(_read_results(place))
    needed = 2 * sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) + 65_536
    try:
        for level in range(levels):
            room = needed * level // (levels - 1)
            with _mounting(place):
                shutil.copytree(before, place, dirs_exist_ok=True)
                with _leaving(place, room), open(place.with_name("errors"), "w+b") as errors:
                    status = _fork(words, place, 0, errors.fileno())
                    errors.seek(0)
                    lines = [line for line in errors.read().decode().splitlines() if ": warning: " not in line]
                assert status in (0, 1), f"{words} with {room:,} bytes left: status {status}"
                assert len(lines) == status, f"{words} with {room:,} bytes left: {lines}"
                ends["done" if status == 0 else "one line"] += 1
                _check_runs(place, f"{words} with {room:,} bytes left")
                assert _fork(words, place, 0) == 0, f"{words}: fails after {room:,} bytes were left"
                found = dict(_read_results(place))
                differ = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
                assert not differ, f"{words} after {room:,} bytes were left: {', '.join(differ)} differ"
    finally:
        shutil.rmtree(before)
    return ends


@contextmanager
def _mounting(place: Path) -> Iterator[None]:
    """A file system in memory, empty, in the place of a folder."""
    words = ["mount", "-t", "tmpfs", "-o", "size=256M", "tmpfs", place]
    if subprocess.run(words, capture_output=True).returncode:
        raise PermissionError("no rights to mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


@contextmanager
def _leaving(place: Path, room: int) -> Iterator[None]:
    """Fill the file system of a folder but for some bytes."""
    path = place / "filler"
    with open(path, "wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, max(shutil.disk_usage(place).free - room, 1))
    try:
        yield
    finally:
        path.unlink()


def give_two_at_once(commands: list[list[str]], place: Path, run: str, rounds: int = 10) -> Counter[str]:
    """Give two commands that write one run at the same time; one may be refused, and the run is one of the two.

    Raises
    ------
    AssertionError
        A command ends in another way, or the run is a mixture.
    """
    ends = Counter[str]()
    for _ in range(rounds):
        shutil.rmtree(place / run, ignore_errors=True)
        words = [[sys.executable, "-m", "heads", *each] for each in commands]
        path = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        started = [subprocess.Popen(each, cwd=place, env=path, **pipes) for each in words]
        errors = [process.communicate()[1] for process in started]
        for process, error in zip(started, errors, strict=True):
            refused = process.returncode == 1 and "is being written by process" in error
            assert process.returncode == 0 or refused, error
            ends["refused" if refused else "done"] += 1
        files = RunFiles.open(place / run)
        heads = {
            json.loads((place / run / name).read_text())[key]
            for name, key in (("head.json", "head"), (METRICS, "head"))
        }
        assert files.is_whole(), heads
        assert len(heads) == 1, heads
    return ends


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--every", type=int, default=5, help="export loads TensorFlow: one of so many steps")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data, whole, store = (Path(folder, name) for name in ("data", "whole.h5", "s.h5"))
        subprocess.run([sys.executable, "-m", "featurize.phantoms", data, "--images", str(args.images)], check=True)
        seconds, total = finish(data, whole)
        print(f"undisturbed: {total:,} images in {seconds:.0f} s; Ctrl-C: {interrupt(data, store):.1f} s")
        subprocess.run(["rm", "-rf", f"{store}.parts"], check=True)
        twice = wrong = 0
        for number in range(args.kills):
            moment = seconds * (number + 0.5) / args.kills
            with start(data, store) as process:
                try:
                    process.wait(moment)
                except subprocess.TimeoutExpired:
                    process.kill()
            finished = kept(store)
            _, embedded = finish(data, store)
            twice += embedded - (total - finished) if finished < total else embedded
            made, expected = FeatureStore(store), FeatureStore(whole)
            same = all(
                made.split(name).embeddings.tobytes() == split.embeddings.tobytes()
                for name, split in expected.splits.items()
            )
            wrong += not (same and made.content == expected.content)
            print(f"killed after {moment:5.1f} s with {finished:5,} finished: {embedded:5,} embedded", flush=True)
            store.unlink()
        print(f"{args.kills} kills: {twice} images embedded twice, {wrong} results that differ in any byte")
        place = Path(folder, "exported")
        place.mkdir()
        fit_run("prior", whole, data, place / "run", decoder="fixed:0.3")
        n_steps = kill_at_every_step(["export", "run", "--store", str(whole)], place, args.every, forked=False)
        print(
            f"heads export run: killed at every {args.every}th of {n_steps} steps, ended as if undisturbed", flush=True
        )
        _try_heads(Path(folder, "place"))


def _try_heads(place: Path) -> None:
    """Kill commands of `heads`, fill their disk, give two at once; on a small store, since only the steps count."""
    place.mkdir()
    make_data(place)
    load_libraries()
    read = {"predict": ["--store", "s.h5"]}
    everything = ["--store", "s.h5", "--data", "data"]
    for command in HEADS:
        words = command.split()
        n_steps = kill_at_every_step([*words, *read.get(words[0], everything)], place)
        print(f"heads {command}: killed at each of {n_steps} steps, ended as if undisturbed", flush=True)
    for command in ("fit knn --out new", "fit kernel --out run", "predict run"):
        words = command.split()
        try:
            ends = fill_disk([*words, *read.get(words[0], everything)], place)
        except PermissionError as error:
            print(f"heads {command} on a full disk: not run ({error})")
            break
        print(f"heads {command} on a disk with 17 amounts of room: {dict(ends)}, then as if undisturbed", flush=True)
    commands = [f"fit {head} --out two --decoder global".split() + everything for head in ("ridge", "knn")]
    ends = give_two_at_once(commands, place, "two")
    print(f"two commands into one run, 10 times: {dict(ends)}, never a mixture")


if __name__ == "__main__":
    main()
