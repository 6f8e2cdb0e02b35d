"""Draw where in an image a run sees its concepts, or list the training images that decide."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from show.explainer import Explanation

N_NEIGHBOURS = 5
"""How many of the training images that decide are printed."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="files, and folders of images")
    parser.add_argument("--concepts", nargs="+", metavar="CONCEPT", help="codes or names (what is predicted)")
    parser.add_argument("--out", type=Path, default=Path("heat_maps"), metavar="FOLDER",
                        help="where to write a PNG file per image (heat_maps)")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Explain each image, and draw its maps."""
    from cache.images import find_files
    from cache.support.command import check_interrupted, print_line
    from cache.support.errors import DataError, ParameterError
    from cache.support.messages import count
    from cache.support.reporting import report, warn
    from featurize.decoding.image import decode_picture
    from show.explainer import Explainer, read_image
    from show.overlay import require_matplotlib, save_overlays

    paths = find_files(args.images)
    place = next(each for each in (args.out, *args.out.absolute().parents) if each.exists())
    if not place.is_dir():
        raise ParameterError(f"{place}: is a file, expected a folder for the pictures; name another OUT (--out)")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ParameterError(f"{place}: cannot be written, but the pictures go there; name another OUT (--out)")
    require_matplotlib()
    explainer = Explainer(args.run)
    concepts = explainer.find_concepts(" ".join(args.concepts)) if args.concepts else None
    pictures = _name_pictures(paths, args.out)
    method, n_written = "", 0
    for path, picture in zip(paths, pictures, strict=True):
        check_interrupted()
        try:
            content = read_image(path)
            explanation = explainer.explain(content, str(path), concepts)
        except DataError as error:
            warn(f"{error}; it is left out")
            continue
        if explanation.maps:
            save_overlays(picture, decode_picture(content), explanation.maps)
            n_written += 1
            print_line(f"{picture}: {', '.join(_describe_maps(explanation))}")
        else:
            for line in _list_neighbours(explanation):
                print_line(line)
        method = explanation.method
    if not method:
        raise DataError("no image could be read")
    pictures_in = f"; {count(n_written, 'picture')} in {args.out}" if n_written else ""
    report(f"{method}{pictures_in}")


def _name_pictures(paths: list[Path], folder: Path) -> list[Path]:
    """A file per image, named after it; with a number where names repeat."""
    names: dict[str, int] = {}
    pictures = []
    for path in paths:
        names[path.stem] = names.get(path.stem, 0) + 1
        number = f"_{names[path.stem]}" if names[path.stem] > 1 else ""
        pictures.append(folder / f"{path.stem}{number}.png")
    return pictures


def _describe_maps(explanation: "Explanation") -> list[str]:
    from eval.concept_names import name_concept

    names = explanation.prediction.names
    return [f"{name_concept(each.concept, names)} {each.probability:.2f}" for each in explanation.maps]


def _list_neighbours(explanation: "Explanation") -> list[str]:
    """The image, and a line per training image: distance, id and concepts."""
    from eval.concept_names import name_concept

    names = explanation.prediction.names
    lines = [explanation.prediction.image]
    for each in explanation.neighbours[:N_NEIGHBOURS]:
        concepts = ", ".join(name_concept(concept, names) for concept in each.concepts)
        lines.append(f"  {each.distance:.4f}  {each.id}: {concepts}")
    rest = len(explanation.neighbours) - N_NEIGHBOURS
    return [*lines, f"  and {rest:,} more"] if rest > 0 else lines
