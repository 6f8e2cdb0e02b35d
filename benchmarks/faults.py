"""Kill the writer with SIGKILL at 25 moments spread over a run, and compare the result with an undisturbed one.

The real command with the real network runs on drawn images. After every kill it is said how many images the part
files hold; the next run must embed just the others. Ctrl-C is timed as well.
"""

import argparse
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cache.parts import find_unfinished
from cache.store import FeatureStore

OPTIONS = ["--weights", "random:0", "--size", "128"]


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


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--images", type=int, default=1500)
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


if __name__ == "__main__":
    main()
