"""What a person looks at: what a run predicts for images, and where it sees it.

It stands on top of the other packages, and none of them imports it. Each command of ``python -m show`` is one module of
`show.commands`.
"""

from typing import TYPE_CHECKING

from cache.support.lazy_names import lazy_names

if TYPE_CHECKING:
    from show.data_overview import DataOverview, look_at_data
    from show.explainer import Explainer, Explanation, HeatMap, Neighbour, explain
    from show.predictor import ConceptScore, ImagePredictor, Prediction, predict
    from show.report.page import make_report

__all__ = [
    "ConceptScore",
    "DataOverview",
    "Explainer",
    "Explanation",
    "HeatMap",
    "ImagePredictor",
    "Neighbour",
    "Prediction",
    "explain",
    "look_at_data",
    "make_report",
    "predict",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "__version__": "cache.support.versions",
        "ConceptScore": "show.predictor",
        "DataOverview": "show.data_overview",
        "Explainer": "show.explainer",
        "Explanation": "show.explainer",
        "HeatMap": "show.explainer",
        "ImagePredictor": "show.predictor",
        "Neighbour": "show.explainer",
        "Prediction": "show.predictor",
        "explain": "show.explainer",
        "look_at_data": "show.data_overview",
        "make_report": "show.report.page",
        "predict": "show.predictor",
    },
)
