"""Fit a head on a store, score it on valid as the organisers would, keep it as a run."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cache.support.reporting import report
from heads.data.folds import load_scores
from heads.data.store import LabelledStore
from heads.estimators.storage import load_head
from heads.evaluation.official_score import describe
from heads.registry import make_decoder, make_head
from heads.runs.builder import Maker
from heads.runs.progress import Clock
from heads.runs.request import BOTH, Asked
from heads.runs.run import finished


def fit_run(
    name: str,
    store_path: Path,
    data: Path,
    out: Path,
    given: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train a head and keep it with its scores.

    Parameters
    ----------
    name : str
        A head of the registry.
    store_path, data : Path
        The store, and the data folder with the labels.
    out : Path
        The run's folder. A finished run of the same request is left as it is.
    given : mapping, optional
        The options of `heads.runs.request.Asked` that are not left open: ``params``, ``concepts``, ``decoder``,
        ``pooling``, ``train``, ``tune``, ``nested``. Those left open follow the run that is there.

    Returns
    -------
    dict
        The run's metrics, as in ``metrics.json``.

    Raises
    ------
    UserError
        The request, the store or the labels are at fault.
    """
    clock = Clock()
    asked = Asked.settle(name, data, store_path, out, given or {})
    head, decoder = make_head(name, asked.params), make_decoder(asked.decoder)
    with clock("load"):
        source = LabelledStore.load(store_path, data, asked.pooling, asked.concepts)
    source.serve(head)
    requests = asked.digests(head, decoder, source)
    earlier = finished(out)
    if earlier and earlier["requests"] == requests:
        report(f"{out}: up to date ({describe(earlier)})")
        return earlier
    maker = Maker(asked, source, clock)
    scores = None
    if earlier:
        same = earlier["requests"]["head"] == requests["head"]
        report(f"{out}: {'decodes anew' if same else 'replaces'} an earlier run ({describe(earlier)})")
        scores = load_scores(out, (int(source.train.readable.sum()), len(source.vocabulary))) if same else None
        if same and earlier["train"]["splits"] != BOTH:
            head = load_head(out)
            source.serve(head)
    training = out.with_name(out.name + ".training")
    head.checkpoint = training / f"{requests['head']}.h5"
    if not hasattr(head, "n_concepts_"):
        head = maker.fit(head)
    made = maker.assess(head, decoder, requests, scores)
    made.keep(out, asked)
    shutil.rmtree(training, ignore_errors=True)
    maker.tell(out, made.metrics)
    return made.metrics
