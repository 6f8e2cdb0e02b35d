"""The rules that changed from one edition of the task to the next, as data."""

from dataclasses import dataclass, field

from cache.support.errors import ParameterError

MAX_CONCEPTS = 100
"""The most concepts that a submission may predict for an image, in every edition."""

MODALITIES = frozenset(
    {
        "C0002978",  # angiogram
        "C0040405",  # X-ray computed tomography
        "C0024485",  # magnetic resonance imaging
        "C0032743",  # positron-emission tomography
        "C0041618",  # ultrasonography
        "C0920367",  # optical coherence tomography
        "C1306645",  # plain X-ray
    }
)
REGIONS = frozenset(
    {
        "C1140618",  # upper extremity
        "C0037949",  # vertebral column
        "C0030797",  # pelvis
        "C0023216",  # lower extremity
        "C0037303",  # cranium
        "C0817096",  # chest
        "C0006141",  # breast
        "C0000726",  # abdomen
    }
)

ALLOWED_2025 = MODALITIES | REGIONS
"""The concepts that the secondary score counts in 2025 and 2026."""

ALLOWED_2023 = ALLOWED_2025 - {"C0920367"}
"""The concepts that it counts in 2023 and 2024: all but optical coherence tomography."""


@dataclass(frozen=True)
class Edition:
    """One year's rules.

    Parameters
    ----------
    year : int
    delimiter : str
        The character between id and concepts.
    has_header : bool
        Whether a row with ``ID`` in its first cell is a header. Otherwise it is an unknown id.
    quoted : bool
        Whether the file is CSV with quotes. Otherwise its lines are split at the delimiter.
    allowed : frozenset of str or None
        The concepts that the secondary score counts; None where it is always 0.
    has_form_check : bool
        Whether the form of a submission is checked first, byte by byte (2026).
    zipped : bool
        Whether the file is handed in as a zip with one ``submission.csv``.
    """

    year: int
    delimiter: str
    has_header: bool
    quoted: bool
    allowed: frozenset[str] | None = field(repr=False)
    has_form_check: bool
    zipped: bool


EDITIONS = {
    2022: Edition(2022, "|", False, False, None, False, False),
    2023: Edition(2023, "|", True, True, ALLOWED_2023, False, False),
    2024: Edition(2024, ",", True, True, ALLOWED_2023, False, False),
    2025: Edition(2025, ",", True, True, ALLOWED_2025, False, True),
    2026: Edition(2026, ",", True, True, ALLOWED_2025, True, True),
}
"""The rules of each year."""

LATEST = max(EDITIONS)
"""The year of the latest edition."""


def find_edition(edition: int | Edition = LATEST) -> Edition:
    """Find the rules of a year.

    Parameters
    ----------
    edition : int or Edition
        A year. Rules are returned as they are.

    Raises
    ------
    ParameterError
        There was no such edition.

    Examples
    --------
    >>> find_edition(2022).delimiter
    '|'
    """
    if isinstance(edition, Edition):
        return edition
    if edition not in EDITIONS:
        raise ParameterError(f"edition {edition!r}: expected one of {', '.join(map(str, EDITIONS))}")
    return EDITIONS[edition]
