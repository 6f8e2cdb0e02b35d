"""How much of a heat map lies on the finding that was drawn: ``python benchmarks/heat_maps.py RUN ... [--data DATA]``.

The runs are those of phantoms. Phantoms of valid and test are drawn again to learn where their findings are.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cache.support.json_file import read_json
from featurize.phantoms.canvas import Box
from featurize.phantoms.concepts import make_phantom
from show import Explainer

MAX_AREA = 0.35
"""A finding with a larger box is everywhere in the picture."""


def find_places(data: Path, n_images: int) -> Iterator[tuple[Path, str, Box]]:
    """Image, finding and its box, of phantoms that the head has not learnt from."""
    seed = read_json(data / "phantoms.json", dict[str, int | str])["seed"]
    paths = sorted((data / "valid").iterdir()) + sorted((data / "test").iterdir())
    n_found = 0
    for path in paths:
        number = int(path.stem.rpartition("_")[2]) - 1
        boxes = make_phantom(np.random.default_rng([int(seed), number])).boxes
        local = {cui: box for cui, box in boxes.items() if area(box) <= MAX_AREA}
        n_found += bool(local)
        if n_found > n_images:
            return
        yield from ((path, cui, box) for cui, box in local.items())


def area(box: Box) -> float:
    """Share of the picture that a box has."""
    left, top, right, bottom = box
    return (right - left) * (bottom - top)


def main() -> None:
    """Print a line per run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--data", type=Path, default=Path("data/phantoms"))
    parser.add_argument("--images", type=int, default=200)
    args = parser.parse_args()
    places = list(find_places(args.data, args.images))
    for run in args.runs:
        explainer = Explainer(run)
        rows = []
        for path, cui, box in places:
            explanation = explainer.explain(path.read_bytes(), path.stem, [cui])
            (heat,) = explanation.maps
            top, left = np.unravel_index(heat.resize(200, 200).argmax(), (200, 200))
            hit = box[0] <= (left + 0.5) / 200 <= box[2] and box[1] <= (top + 0.5) / 200 <= box[3]
            rows.append((area(box), heat.share_within(box), hit, cui in explanation.prediction.concepts))
        table = np.array(rows, float)
        for name, part in (("all", table), ("predicted", table[table[:, 3] > 0])):
            box_area, share, hits, _ = part.mean(axis=0)
            print(
                f"{run}, {name}: {len(part)} findings on {len({path for path, _, _ in places})} phantoms; boxes "
                f"{box_area:.3f} of the picture, {share:.3f} of the map within ({share / box_area:.1f} times chance), "
                f"maximum within {hits:.2f}"
            )


if __name__ == "__main__":
    main()
