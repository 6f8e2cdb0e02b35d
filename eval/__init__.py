"""Label files, the official scores of ImageCLEFmedical Caption, and submissions.

Every edition from 2022 to 2026 is scored as its official evaluator scores it. The package needs `cache.support` alone,
and neither a network nor a feature store.

Examples
--------
>>> from eval import image_f1, mean_f1
>>> f1 = image_f1([[1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 1]])
>>> f"{mean_f1(f1):.4f}"
'0.8333'
"""

from typing import TYPE_CHECKING

from cache.support.lazy_names import lazy_names

if TYPE_CHECKING:
    from eval.bootstrap import compare_scores, find_interval
    from eval.breakdown import break_down
    from eval.concept_names import find_names, read_names
    from eval.editions import EDITIONS, Edition, find_edition
    from eval.f1 import image_f1, mean_f1, primary_f1, secondary_f1
    from eval.faults import find_faults
    from eval.labels import read_concepts, read_ids
    from eval.scored_file import ScoredFile, score_files
    from eval.submission import render_submission, write_submission

__all__ = [
    "EDITIONS",
    "Edition",
    "ScoredFile",
    "break_down",
    "compare_scores",
    "find_edition",
    "find_faults",
    "find_interval",
    "find_names",
    "image_f1",
    "mean_f1",
    "primary_f1",
    "read_concepts",
    "read_ids",
    "read_names",
    "render_submission",
    "score_files",
    "secondary_f1",
    "write_submission",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "__version__": "cache.support.versions",
        "EDITIONS": "eval.editions",
        "Edition": "eval.editions",
        "ScoredFile": "eval.scored_file",
        "break_down": "eval.breakdown",
        "compare_scores": "eval.bootstrap",
        "find_edition": "eval.editions",
        "find_faults": "eval.faults",
        "find_interval": "eval.bootstrap",
        "find_names": "eval.concept_names",
        "image_f1": "eval.f1",
        "mean_f1": "eval.f1",
        "primary_f1": "eval.f1",
        "read_concepts": "eval.labels",
        "read_ids": "eval.labels",
        "read_names": "eval.concept_names",
        "render_submission": "eval.submission",
        "score_files": "eval.scored_file",
        "secondary_f1": "eval.f1",
        "write_submission": "eval.submission",
    },
)
