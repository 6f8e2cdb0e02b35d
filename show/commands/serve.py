"""Serve a page on this machine on which images can be dropped to see what a run predicts, and where it sees it."""

import argparse
from pathlib import Path

HOST, PORT = "127.0.0.1", 8000

PIP_LINE = "pip install starlette uvicorn python-multipart matplotlib"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run or ensemble")
    parser.add_argument("--host", default=HOST, help=f"address to listen on ({HOST}: this machine alone)")
    parser.add_argument("--port", type=int, default=PORT, metavar="N", help=f"its port ({PORT}); 0 for any free one")


def run(args: argparse.Namespace) -> None:
    """Open the run, and answer until the user ends it."""
    from cache.support.errors import NotInstalledError
    from cache.support.reporting import report, warn
    from show.overlay import require_matplotlib
    from show.predictor import ImagePredictor

    require_matplotlib()
    try:
        import python_multipart  # noqa: F401

        from show.server.application import make_application
        from show.server.gate import LOOPBACK
        from show.server.listener import answer, find_url, open_socket
    except ModuleNotFoundError as error:
        raise NotInstalledError(f"{error.name} is not installed: {PIP_LINE}") from error

    with open_socket(args.host, args.port) as listener:
        predictor = ImagePredictor(args.run)
        if args.host not in LOOPBACK:
            warn(f"host {args.host}: there is no password; everyone who reaches this machine can use the page, and "
                 "images travel unencrypted")  # fmt: skip
        app = make_application(predictor, args.host)
        answer(app, listener, f"{find_url(listener, args.host)} shows {args.run}; Ctrl-C ends it")
    report("ended; no image was kept")
