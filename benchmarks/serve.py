"""A thousand uploads from twenty clients at once: none may be lost, and the server's memory must stay flat.

Every upload is another image, which no store holds, so that each is decoded and runs through the network. Prints
requests per second, the time that a request takes, and the memory of the server after 100, 500 and 1,000 answers.

    python benchmarks/serve.py              a run on 300 phantoms, made here
    python benchmarks/serve.py RUN          a run that there is
"""

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np

from featurize.phantoms.dataset import make_phantoms
from featurize.pipeline import make_features
from heads.runs.builder import fit_run

N_REQUESTS, N_CLIENTS = 1_000, 20
MARKS = (1, 100, 500, N_REQUESTS)
"""After how many answers memory is read."""

MOST_GROWTH = 0.05
"""How much memory may grow from the 100th to the last answer."""

SEED = 77
"""Of the images that are sent; those of the run have another."""


def make_run(place: Path) -> Path:
    """A run on phantoms, with the default network."""
    make_phantoms(place / "data", 300, 0)
    make_features(place / "data", place / "s.h5", weights="random:0")
    fit_run("logistic", place / "s.h5", place / "data", place / "run")
    return place / "run"


def read_memory(pid: int) -> float:
    """The resident memory of a process, in MB."""
    (kilobytes,) = re.findall(r"VmRSS:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(kilobytes) / 1024


def read_processor_time(pid: int) -> float:
    """The processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Load:
    """Clients that send images one after another, until all are sent."""

    def __init__(self, url: str, pid: int, images: list[Path]) -> None:
        self.url, self.pid = url, pid
        self.waiting = iter(images)
        self.statuses: Counter[int] = Counter()
        self.seconds: list[float] = []
        self.memory: dict[int, float] = {}
        self.lock = threading.Lock()

    def run_client(self, number: int) -> None:
        """Send images over one connection."""
        with httpx2.Client(base_url=self.url, timeout=300) as client:
            while True:
                with self.lock:
                    path = next(self.waiting, None)
                if path is None:
                    return
                start = time.perf_counter()
                answer = client.post("api/predict", files={"images": (path.name, path.read_bytes())})
                (image,) = answer.json()["images"]
                assert image["image"] == path.name
                assert image["unreadable"] is None
                self.note(answer.status_code, time.perf_counter() - start)

    def note(self, status: int, seconds: float) -> None:
        """Count an answer."""
        with self.lock:
            self.statuses[status] += 1
            self.seconds.append(seconds)
            if len(self.seconds) in MARKS:
                self.memory[len(self.seconds)] = read_memory(self.pid)


def main() -> None:
    """Serve, load and print."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        run = Path(sys.argv[1]) if len(sys.argv) > 1 else make_run(place)
        make_phantoms(place / "sent", N_REQUESTS, SEED)
        images = sorted(path for path in (place / "sent").rglob("*.jpg"))
        assert len(images) == N_REQUESTS
        words = [sys.executable, "-m", "show", "serve", str(run), "--port", "0"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout
                load = Load(server.stdout.readline().partition(" ")[0], server.pid, images)
                start, before = time.perf_counter(), read_processor_time(server.pid)
                with ThreadPoolExecutor(N_CLIENTS) as clients:
                    list(clients.map(load.run_client, range(N_CLIENTS)))
                elapsed, used = time.perf_counter() - start, read_processor_time(server.pid) - before
            finally:
                server.terminate()
    print(f"{N_REQUESTS:,} requests from {N_CLIENTS} clients: {load.statuses[200]:,} answers")
    print(f"{N_REQUESTS / elapsed:.1f} requests per second, {used / N_REQUESTS:.3f} s of the processor per request")
    median, late = np.percentile(load.seconds, [50, 99])
    print(f"a request takes {median:.2f} s in the middle, 99 of 100 less than {late:.2f} s; most of it is waiting")
    print("memory of the server: " + ", ".join(f"{mb:.0f} MB after {n:,}" for n, mb in load.memory.items()))
    assert load.statuses == {200: N_REQUESTS}
    assert load.memory[N_REQUESTS] < (1 + MOST_GROWTH) * load.memory[100]


if __name__ == "__main__":
    main()
