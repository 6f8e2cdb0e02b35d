"""Find the concepts that a user means, by code or by name."""

import difflib
import re
from collections.abc import Mapping, Sequence

from cache.support.errors import ParameterError
from cache.support.messages import quote
from eval.concept_names import name_concept

N_NEAREST = 3
"""How many concepts are offered for one that is unknown."""


def find_concepts(text: str, vocabulary: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """Find concepts in a text of codes and names, with spaces or commas between them.

    Parameters
    ----------
    text : str
        Such as ``C0040405, pleural effusion``. Of several readings, the one with the longest name counts.
    vocabulary : sequence of str
        The concepts that there are.
    names : mapping of str to str
        Names by concept.

    Returns
    -------
    list of str
        In the order of the text, each once.

    Raises
    ------
    ParameterError
        A part of the text is none of them; the message has the nearest.

    Examples
    --------
    >>> find_concepts("chest c0040405", ["C0040405", "C0817096"], {"C0817096": "Chest"})
    ['C0817096', 'C0040405']
    """
    known = {_plain(names[concept]): concept for concept in reversed(vocabulary) if concept in names}
    known |= {_plain(concept): concept for concept in vocabulary}
    words = _plain(text).split()
    found: list[str] = []
    unknown: list[str] = []
    while words:
        lengths = (n for n in range(len(words), 0, -1) if " ".join(words[:n]) in known)
        length = next(lengths, 0)
        if length and unknown:
            break
        if length:
            found.append(known[" ".join(words[:length])])
            del words[:length]
        else:
            unknown.append(words.pop(0))
    if unknown:
        _refuse(" ".join(unknown), known, names)
    return list(dict.fromkeys(found))


def _plain(text: str) -> str:
    """A name as it is compared: case, commas and spaces do not count.

    >>> _plain("Pleural  Effusion, left")
    'pleural effusion left'
    """
    return " ".join(re.split(r"[\s,;]+", text)).strip().casefold()


def _refuse(text: str, known: Mapping[str, str], names: Mapping[str, str]) -> None:
    nearest = difflib.get_close_matches(text, known, N_NEAREST, 0.5)
    concepts = dict.fromkeys(known[each] for each in nearest)
    offer = ", ".join(name_concept(each, names) for each in concepts)
    hint = f"did you mean {offer}?" if offer else "give a code, or a name of cui_mapping.csv"
    raise ParameterError(f"concept {quote(text)}: the run does not know it; {hint}")
