"""Damage files of every kind that the project reads, and see whether each damage is found.

Wrong are: an exception that is not the user's error, a crash, a hang, more than 10 s or 1.5 GB for an input, damage
that is believed, and a file outside that is opened. Each input can be made again from its target and number. Every
target runs in processes of its own, so that a crash is seen and costs one input.
"""

import argparse
import ctypes
import json
import mmap
import os
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

MAX_SECONDS, MAX_BYTES = 10, 1_500_000_000
"""The most that an input may take, in time and in memory over what the process had before it."""

PARENT_SECONDS, PARENT_BYTES = 30, 8_000_000_000
"""When an input is ended from outside."""

SHARES = {
    "labels": 35,
    "submissions": 35,
    "images": 30,
    "dicom": 30,
    "stores": 20,
    "parts": 15,
    "runs": 20,
    "memo": 10,
    "weights": 5,
}
"""How many of 200 inputs each target gets."""

CHUNK = 2_500
"""Inputs per process."""

IN_OPEN, IN_NONBLOCK = 0x20, 0x800
"""Constants of inotify(7)."""


@dataclass(frozen=True)
class Finding:
    """What was wrong with one input."""

    target: str
    number: int
    kind: str
    text: str


class Watch:
    """Notices when a file is opened, by whatever library, in this process or another."""

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(IN_NONBLOCK)
        if self._descriptor < 0 or libc.inotify_add_watch(self._descriptor, os.fsencode(path), IN_OPEN) < 0:
            raise OSError(ctypes.get_errno(), "inotify")

    def has_opened(self) -> bool:
        """Whether it has been opened since the last call."""
        try:
            return bool(os.read(self._descriptor, 65536))
        except BlockingIOError:
            return False


def peak_bytes() -> int:
    """The most memory that this process has had since `forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def forget_peak() -> None:
    """Count the peak of memory from now."""
    Path("/proc/self/clear_refs").write_text("5")


def run_child(name: str, folder: Path, first: int, last: int, seed: int) -> None:
    """Try inputs; print a line per finding, and note in ``progress`` which input is under way."""
    from fuzz_targets import TARGETS, quiet

    from cache.support.errors import UserError

    quiet()
    target = TARGETS[name]()
    target.open(folder)
    place = Path(tempfile.mkdtemp(dir=folder))
    (place / "outside.h5").symlink_to(folder / "outside.h5")
    watch = Watch(folder / "outside.h5")
    with open(folder / f"progress.{os.getpid()}", "w+b") as file:
        file.truncate(16)
        progress = mmap.mmap(file.fileno(), 16)
        refused = 0
        for number in range(first, last):
            progress[:] = struct.pack("qd", number, time.monotonic())
            forget_peak()
            before, begun = peak_bytes(), time.perf_counter()
            found = []
            try:
                wrong = target.attempt(place, random.Random(f"{seed} {name} {number}"))
                found += [("believed", wrong)] if wrong else []
            except UserError as error:
                refused += 1
                if "\n" in str(error).strip():
                    found.append(("message", f"more than one line: {str(error)[:200]!r}"))
            except Exception as error:
                found.append(("exception", f"{type(error).__name__}: {str(error)[:200]}"))
            seconds, taken = time.perf_counter() - begun, peak_bytes() - before
            if seconds > MAX_SECONDS:
                found.append(("slow", f"{seconds:.1f} s"))
            if taken > MAX_BYTES:
                found.append(("memory", f"{taken / 1e9:.1f} GB"))
            if watch.has_opened():
                found.append(("outside", "a file outside was opened"))
            for kind, text in found:
                print(json.dumps({"number": number, "kind": kind, "text": text}), flush=True)
        print(json.dumps({"refused": refused}), flush=True)


def run_chunk(name: str, folder: Path, first: int, last: int, seed: int) -> tuple[list[Finding], int]:
    """Try inputs in processes; a new one follows where one was ended. Returns findings, and how many were refused."""
    findings, refused = [], 0
    while first < last:
        words = [sys.executable, __file__, "--child", name, str(folder), str(first), str(last), str(seed)]
        with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as lines:
            process = subprocess.Popen(words, stdout=lines, stderr=errors)
            ended, number = _watch(process, folder / f"progress.{process.pid}")
            lines.seek(0)
            for line in lines.read().decode().splitlines():
                found = json.loads(line)
                refused += found.get("refused", 0)
                if "kind" in found:
                    findings.append(Finding(name, found["number"], found["kind"], found["text"]))
            if process.returncode == 0:
                return findings, refused
            errors.seek(0)
            tail = errors.read().decode(errors="replace").strip().splitlines()[-1:]
            if number < 0:
                raise RuntimeError(f"{name}: did not start: {tail}")
            findings.append(Finding(name, number, ended or "crash", f"status {process.returncode}; {' '.join(tail)}"))
            first = number + 1
    return findings, refused


def _watch(process: subprocess.Popen[bytes], progress: Path) -> tuple[str, int]:
    """Wait for a process; end it if an input takes far too much. Returns why it was ended, and the last input."""
    ended = ""
    while process.poll() is None:
        time.sleep(0.05)
        try:
            _, begun = struct.unpack("qd", progress.read_bytes())
            resident = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * resource.getpagesize()
        except (OSError, struct.error, IndexError):
            continue
        if begun and time.monotonic() - begun > PARENT_SECONDS:
            ended = "hang"
        elif resident > PARENT_BYTES:
            ended = "memory"
        if ended:
            process.kill()
            process.wait()
    number = struct.unpack("qd", progress.read_bytes())[0] if progress.exists() else -1
    return ended, number


def chunks(names: list[str], inputs: int, first: int) -> Iterator[tuple[str, int, int]]:
    """The inputs of each target, divided into those of one process."""
    for name in names:
        last = first + round(inputs * SHARES[name] / sum(SHARES[each] for each in names))
        for start in range(first, last, CHUNK):
            yield name, start, min(start + CHUNK, last)


def main() -> int:
    """Print a table, and each finding; the status is 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", default=list(SHARES), help="of these: " + ", ".join(SHARES))
    parser.add_argument("--inputs", type=int, default=200_000, help="in all")
    parser.add_argument("--first", type=int, default=0, help="number of the first input of each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    from fuzz_targets import TARGETS, make_outside, quiet

    quiet()
    findings: list[Finding] = []
    tried, refused, seconds = Counter[str](), Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(args.workers) as pool:
        folders = {}
        for name in args.targets:
            folders[name] = Path(temporary, name)
            folders[name].mkdir()
            make_outside(folders[name])
            TARGETS[name]().prepare(folders[name])

        def run(name: str, first: int, last: int) -> None:
            begun = time.perf_counter()
            found, n_refused = run_chunk(name, folders[name], first, last, args.seed)
            findings.extend(found)
            tried[name] += last - first
            refused[name] += n_refused
            seconds[name] += time.perf_counter() - begun
            for each in found:
                print(f"{each.target} {each.number}: {each.kind}: {each.text}", flush=True)

        for future in [pool.submit(run, *each) for each in chunks(args.targets, args.inputs, args.first)]:
            future.result()
    kinds = Counter((each.target, each.kind) for each in findings)
    for name in args.targets:
        rate = tried[name] / max(seconds[name], 1e-9)
        found = ", ".join(f"{n} {kind}" for (target, kind), n in kinds.items() if target == name) or "0 findings"
        print(f"{name:12} {tried[name]:8,} inputs {refused[name]:8,} refused {rate:7.0f}/s  {found}")
    print(f"{'all':12} {tried.total():8,} inputs {refused.total():8,} refused            {len(findings)} findings")
    return bool(findings)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        run_child(sys.argv[2], Path(sys.argv[3]), *map(int, sys.argv[4:7]))
    else:
        sys.exit(main())
