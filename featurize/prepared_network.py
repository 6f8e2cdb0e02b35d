"""The network beside the store: built once, in a process that ends, and run by others from its files.

``STORE.network/`` holds the front as a Keras model and, for OpenVINO, converted; after a cut, the tail too. A later run
needs neither the weights file nor, on OpenVINO, TensorFlow: adding ten images does not wait for a network to be built.
"""

import contextlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cache.support.command import muted_imports
from cache.support.errors import UserError
from cache.support.files import digest_file, write_text, writing
from cache.support.reporting import report
from featurize.backbone import Backbone, Cut
from featurize.engines.base import FRONT, Choice, Engine, convert, engine_on, openvino_batch
from featurize.request import Request

FACTS, TAIL = "network.json", "tail.keras"


@dataclass(frozen=True)
class Network:
    """A front that is ready to run.

    Parameters
    ----------
    cut : Cut
        What is known of it.
    choice : Choice
        What executes it.
    engine : Engine
        From pixels to embeddings; it travels to other processes as a path.
    """

    cut: Cut
    choice: Choice
    engine: Engine


def network_folder(store: Path) -> Path:
    """Where the network of a store is kept."""
    return store.with_name(store.name + ".network")


def prepare_network(request: Request, choice: Choice, store: Path) -> Network:
    """Find the network beside a store, or build it there.

    Parameters
    ----------
    request : Request
    choice : Choice
        From `featurize.engines.base.choose`.
    store : Path

    Returns
    -------
    Network

    Raises
    ------
    UserError
        The request is at fault, the weights cannot be had, or the folder cannot be written.
    """
    folder = network_folder(store)
    wanted = _wanted(request, choice)
    cut = _find(folder, wanted)
    if cut is None:
        report(f"building the network, once: it stays in {folder}")
        cut = _run_apart(_build, request.backbone, choice, folder, wanted)
    return Network(cut, choice, engine_on(choice, folder))


def _wanted(request: Request, choice: Choice) -> dict[str, Any]:
    """What decides the files, as far as it is known before the network is built."""
    backbone = vars(request.backbone) | {"weights": request.weights_source}
    if choice.engine == "openvino":
        # A lower precision is OpenVINO's own doing: the layers are the same.
        return backbone | {"engine": "openvino", "layers": "float32", "batch": openvino_batch(choice.precision)}
    return backbone | {"engine": choice.engine, "layers": choice.precision}


def has_network(store: Path) -> bool:
    """Whether a whole network stands beside a store, of whatever features."""
    folder = network_folder(store)
    try:
        return _is_whole(folder, json.loads((folder / FACTS).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _is_whole(folder: Path, files: dict[str, str]) -> bool:
    return all(digest_file(folder / Path(name).name).hex() == digest for name, digest in files.items())


def _find(folder: Path, wanted: dict[str, Any]) -> Cut | None:
    """The cut of the network in a folder, if it is the wanted one and whole."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        if facts["wanted"] != wanted:
            return None
        cut = Cut(**facts["cut"] | {"shape": tuple(facts["cut"]["shape"])})
        return cut if _is_whole(folder, facts["files"]) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _build(backbone: Backbone, choice: Choice, folder: Path, wanted: dict[str, Any]) -> Cut:
    """Build the network and write its files; the facts come last, so that they are never ahead of the files."""
    with muted_imports():
        import tensorflow  # noqa: F401
    front = backbone.build(wanted["layers"])
    with writing(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        front.model.save(folder / FRONT)  # whatever executes it: a run is taken out with it
        if choice.engine == "openvino":
            convert(front.model, folder, wanted["batch"])
        if front.tail is not None:
            front.tail.save(folder / TAIL)
        files = {path.name: digest_file(path).hex() for path in sorted(folder.iterdir())}
        facts = {"wanted": wanted, "cut": asdict(front.cut), "files": files}
        write_text(folder / FACTS, json.dumps(facts, indent=1))
    return front.cut


def _run_apart(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a process of its own, whose memory ends with it: TensorFlow gives none back.

    Where TensorFlow is loaded already, nothing would be saved. A process that multiprocessing starts would run the
    caller's script a second time; and this one hears nothing of Ctrl-C, which is for the caller, who ends it.
    """
    if "tensorflow" in sys.modules:
        return function(*args)
    ours, theirs = multiprocessing.Pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", f"from featurize.prepared_network import _answer; _answer({theirs.fileno()})"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        pass_fds=[theirs.fileno()],
        start_new_session=True,
    )
    theirs.close()
    try:
        ours.send((function, args))
        answer = ours.recv()
    except (EOFError, ConnectionError) as error:
        raise UserError("the process that builds the network was ended, most likely for lack of memory") from error
    finally:
        process.kill()
        process.wait()
        ours.close()
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _answer(descriptor: int) -> None:
    """What the other process does: call what it is sent, send what comes of it."""
    caller = Connection(descriptor)
    function, args = caller.recv()
    threading.Thread(target=_end_with, args=[caller], daemon=True).start()
    try:
        caller.send(function(*args))
    except Exception as error:
        caller.send(error)


def _end_with(caller: Connection) -> None:
    """End this process when its caller is killed: nobody may write the folder of a store without its claim."""
    with contextlib.suppress(OSError):
        caller.poll(None)
    os._exit(1)
