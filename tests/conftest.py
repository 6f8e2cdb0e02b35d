"""What several tests share: a folder of phantoms, and a store of drawn embeddings that needs no network."""

import json
import logging
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:  # a process per core: threads of one would wait for those of the others
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, "1")

import numpy as np
import PIL.Image
import pytest
from sklearn.exceptions import ConvergenceWarning

from cache.images import Listing
from cache.provenance import Provenance
from cache.rows import OK, UNREADABLE, Rows
from cache.support.keras import import_keras, import_tensorflow
from cache.support.reporting import DataWarning, logger
from cache.writer import write_store
from featurize.phantoms import anatomy, findings, modalities
from featurize.phantoms.canvas import draw, resize
from featurize.phantoms.dataset import make_phantoms
from heads.registry import HEADS, make_head
from heads.runs.files import DIGESTS, REQUEST, SEAL, write_digests, write_sealed

for name in ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS"):
    os.environ.pop(name, None)  # those of `make test` are not for the make of a test

ROOT = Path(__file__).parent.parent
EMBEDDING_HEADS = [name for name, place in HEADS.items() if not resolve_name(place).takes_maps]
"""All heads but those that learn from maps, which have tests of their own."""

PROVENANCE = Provenance(
    backbone="densenet121",
    weights="0" * 64,
    layer="relu",
    pooling="avg",
    size=224,
    decoding="1",
    resizing="bilinear antialiased",
    preprocessing="densenet",
    engine="openvino",
    precision="float32",
)
RECORD = {"asked": {"weights": "random:0", "layer": ""}, "weights_source": "random:0"}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the seed of the order, which `pytest -q` would not."""
    seed = config.getoption("randomly_seed", None)
    if seed is not None:
        terminalreporter.write_line(f"the same order again: --randomly-seed={seed}")


def quick_params(name: str, epochs: int = 3) -> dict[str, int]:
    """Parameters with which a head is fast to train: few epochs if it has any."""
    return {"epochs": epochs} if "epochs" in make_head(name).get_params() else {}


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty phantoms; a test that changes them copies them first."""
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    make_phantoms(folder, 40, 0)
    return folder


@pytest.fixture(scope="module")
def without_tracing() -> Iterator[None]:
    """Let TensorFlow run step by step: for a few small steps per fit, compiling a function takes most of the time."""
    import_keras()
    config = import_tensorflow().config
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Even though the `tf.config")  # it does not change tf.data
        config.run_functions_eagerly(True)
        yield
    config.run_functions_eagerly(False)


@pytest.fixture(scope="session")
def masses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn abdomens, every second one with a mass, in ``data``, their store ``s.h5`` with its network, and ``runs``."""
    from featurize import make_features
    from heads import fit_run

    place = tmp_path_factory.mktemp("masses")
    draw_masses(place / "data")
    with reported():
        make_features(place / "data", place / "s.h5", **FEATURES_OF_MASSES)
        for name in ("kernel", "logistic", "knn", "prior"):
            fit_run(name, place / "s.h5", place / "data", place / "runs" / name)
    return place


FEATURES_OF_MASSES: dict[str, Any] = {
    "backbone": "mobilenet", "weights": "random:0", "size": 64, "layer": "conv_pw_3_relu", "precision": "float32",
}  # fmt: skip

MASS, ABDOMEN, NO_MASS = "C0577559", "C0000726", "C9900003"
MASS_SPLITS = {"train": 100, "valid": 20, "test": 24}


def draw_mass(number: int) -> tuple[np.ndarray, tuple[float, float, float, float] | None]:
    """Grey levels of a drawn abdomen, and the box of its mass if it has one."""
    drawings = [findings.mass] if number % 2 else []
    pixels, boxes = draw(anatomy.abdomen, "axial", drawings, modalities.ct, [], np.random.default_rng([7, number]))
    return np.round(255 * resize(pixels, 120, 160)).astype(np.uint8), boxes[0] if boxes else None


def draw_masses(data: Path) -> None:
    """Write a data folder of drawn abdomens; their numbers go on from split to split."""
    number = 0
    for split, n_images in MASS_SPLITS.items():
        (data / split).mkdir(parents=True)
        rows = ["ID,CUIs"]
        for _ in range(n_images):
            pixels, box = draw_mass(number)
            PIL.Image.fromarray(pixels).save(data / split / f"{number:04d}.png")
            rows.append(f"{number:04d},{ABDOMEN}{f';{MASS}' if box else f';{NO_MASS}'}")
            number += 1
        if split != "test":
            (data / f"{split}_concepts.csv").write_text("\n".join(rows) + "\n")
    (data / "cui_mapping.csv").write_text(
        f"CUI,Canonical name\n{MASS},Mass\n{ABDOMEN},Abdomen\n{NO_MASS},No mass here\n"
    )


@contextmanager
def warned() -> Iterator[list[str]]:
    """What the project warns about while the block runs, one line each."""
    lines: list[str] = []
    with warnings.catch_warnings():
        for kind in (DataWarning, ConvergenceWarning):
            warnings.simplefilter("always", kind)
        warnings.showwarning = lambda message, *args: lines.append(str(message))  # type: ignore[assignment]
        yield lines


@contextmanager
def reported() -> Iterator[list[str]]:
    """What the project reports and warns about while the block runs, one line each, in order."""
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with warned() as lines:
            yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """The files below a folder with their bytes, and its folders, to compare it with later.

    The digests that are remembered beside a store (`cache.digest_memo`) are left out. They are those of the images as
    they are, whatever a command makes of them, and a misspelt option must not cost the reading of a hundred thousand
    images again.
    """
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if not (path.name.startswith(".") and path.name.endswith(".seen.json"))
    }


def reseal(place: Path) -> None:
    """Give every run below a folder right digests again, as a stranger could who had made it so on purpose."""
    for path in sorted(place.rglob(DIGESTS), reverse=True):  # members before the ensemble that has their digests
        request = json.loads((path.parent / REQUEST).read_text())
        request.pop(SEAL, None)
        write_sealed(path.parent / REQUEST, request)
        write_digests(path.parent)


@pytest.fixture
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command of the project in a new process."""

    def run(*args: object, **kwargs: object) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", *map(str, args)]
        return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False, **kwargs)  # type: ignore[call-overload, no-any-return]

    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("needs Chromium (apt install chromium)")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def wait_for_end(pids: Iterable[int], seconds: float = 10) -> list[int]:
    """Wait until processes have ended; gives those that have not. It needs Linux's /proc."""

    def is_running(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    deadline, left = time.monotonic() + seconds, list(pids)
    while (left := [pid for pid in left if is_running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def digest(number: int) -> bytes:
    """A digest that stands for an image's bytes."""
    return number.to_bytes(32, "big")


def make_rows(numbers: list[int], embeddings: np.ndarray, unreadable: dict[int, str] | None = None) -> Rows:
    """Rows whose digests are numbers; those in `unreadable` have a reason instead of an embedding."""
    reasons = [(unreadable or {}).get(number, "") for number in numbers]
    values = np.array(embeddings, np.float32)
    values[[bool(reason) for reason in reasons]] = np.nan
    return Rows(
        digests=np.frombuffer(b"".join(map(digest, numbers)), np.uint8).reshape(-1, 32),
        status=np.array([UNREADABLE if reason else OK for reason in reasons], np.uint8),
        reasons=reasons,
        embeddings=values,
    )


def make_store(
    path: Path,
    splits: dict[str, dict[str, np.ndarray]],
    unreadable: dict[str, str] | None = None,
    provenance: Provenance = PROVENANCE,
    record: dict[str, Any] = RECORD,
) -> None:
    """Write a store from ``{split: {id: embedding}}``; ids in `unreadable` get a reason instead of an embedding."""
    ids = [id for rows in splits.values() for id in rows]
    numbers = {id: number for number, id in enumerate(ids, 1)}
    listings = {
        name: Listing(list(rows), [digest(numbers[id]) for id in rows], [""] * len(rows))
        for name, rows in splits.items()
    }
    values = np.array([embedding for rows in splits.values() for embedding in rows.values()])
    reasons = {numbers[id]: reason for id, reason in (unreadable or {}).items()}
    rows = make_rows(list(numbers.values()), values, reasons)
    write_store(path, provenance, record, listings, [rows], values.shape[1:])
