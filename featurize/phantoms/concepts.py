"""The concepts of phantoms: how often each occurs, and which function draws it.

CUIs and names are those of the task's files. Two concepts are not in these files (arrow, device); their CUIs are
made up, from C9900001 on.
"""

from dataclasses import dataclass, field
from functools import partial

from numpy.random import Generator

from featurize.phantoms import anatomy, findings, modalities
from featurize.phantoms.canvas import Box, Drawing, PartDrawing, Pixels, draw

NAMES = {
    "C0040405": "X-Ray Computed Tomography",
    "C1306645": "Plain x-ray",
    "C0024485": "Magnetic Resonance Imaging",
    "C0041618": "Ultrasonography",
    "C0002978": "angiogram",
    "C0032743": "Positron-Emission Tomography",
    "C0817096": "Chest",
    "C0000726": "Abdomen",
    "C0030797": "Pelvis",
    "C0037303": "Bone structure of cranium",
    "C0037949": "Vertebral column",
    "C0023216": "Lower Extremity",
    "C1140618": "Upper Extremity",
    "C0006141": "Breast",
    "C0205131": "Axial",
    "C0205123": "Coronal",
    "C0205129": "Sagittal",
    "C1996865": "Postero-Anterior",
    "C1999039": "Anterior-Posterior",
    "C0205093": "Lateral",
    "C0024109": "Lung",
    "C0006104": "Brain",
    "C0023884": "Liver",
    "C0022742": "Knee",
    "C0003842": "Arteries",
    "C0028259": "Nodule",
    "C0577559": "Mass",
    "C0027627": "Metastasis",
    "C0010709": "Cyst",
    "C0006660": "Calcification",
    "C0006736": "Calculi",
    "C0032227": "Pleural effusion",
    "C0032326": "Pneumothorax",
    "C0018800": "Cardiomegaly",
    "C0521530": "Lung consolidation",
    "C3544344": "Ground glass opacity",
    "C0003962": "Ascites",
    "C0016658": "Fracture",
    "C0021308": "Infarction",
    "C0019080": "Hemorrhage",
    "C0020255": "Hydrocephalus",
    "C2349975": "Enhancement",
    "C0333641": "Atrophic",
    "C1261287": "Stenosis",
    "C0002940": "Aneurysm",
    "C9900001": "Arrow",
    "C9900002": "Medical device",
}

MAX_PHANTOM_CONCEPTS = 8
"""Most concepts of one phantom."""


@dataclass(frozen=True)
class Modality:
    """A modality of phantoms.

    Parameters
    ----------
    cui : str
    appearance : callable
        Gives a picture the appearance of the modality.
    share : float
        Share of all phantoms.
    parts, views : dict of str to float
        Share of each body part and view among the phantoms of this modality.
    """

    cui: str
    appearance: Drawing
    share: float
    parts: dict[str, float]
    views: dict[str, float]


BODY_PARTS: dict[str, tuple[str, PartDrawing]] = {
    "chest": ("C0817096", anatomy.chest),
    "abdomen": ("C0000726", anatomy.abdomen),
    "pelvis": ("C0030797", anatomy.pelvis),
    "head": ("C0037303", anatomy.head),
    "spine": ("C0037949", anatomy.spine),
    "lower limb": ("C0023216", anatomy.lower_limb),
    "upper limb": ("C1140618", anatomy.upper_limb),
    "breast": ("C0006141", anatomy.breast),
}

_MOSTLY_AXIAL = {"axial": 0.7, "coronal": 0.18, "sagittal": 0.12}
_ANY_PLANE = {"axial": 0.4, "coronal": 0.25, "sagittal": 0.35}
_XRAY = {"frontal": 0.7, "lateral": 0.3}
_NO_VIEW = {"": 1.0}

PHANTOM_MODALITIES = {
    "ct": Modality("C0040405", modalities.ct, 0.33,
                   {"chest": 0.35, "abdomen": 0.3, "head": 0.2, "pelvis": 0.1, "spine": 0.05}, _MOSTLY_AXIAL),
    "xray": Modality("C1306645", modalities.xray, 0.27,
                     {"chest": 0.46, "lower limb": 0.15, "upper limb": 0.13, "pelvis": 0.08, "spine": 0.08,
                      "breast": 0.1}, _XRAY),
    "mr": Modality("C0024485", modalities.mr, 0.17,
                   {"head": 0.45, "spine": 0.25, "lower limb": 0.12, "abdomen": 0.1, "pelvis": 0.08}, _ANY_PLANE),
    "ultrasound": Modality("C0041618", modalities.ultrasound, 0.12,
                           {"abdomen": 0.5, "pelvis": 0.25, "breast": 0.25}, _NO_VIEW),
    "angiogram": Modality("C0002978", modalities.angiogram, 0.06,
                          {"head": 0.35, "chest": 0.35, "lower limb": 0.3}, _NO_VIEW),
    "pet": Modality("C0032743", modalities.pet, 0.05, {"chest": 0.5, "abdomen": 0.3, "head": 0.2}, _NO_VIEW),
}  # fmt: skip

VIEWS = {"axial": "C0205131", "coronal": "C0205123", "sagittal": "C0205129", "lateral": "C0205093"}

HIDDEN_VIEWS = {
    "abdomen": {"sagittal"},
    "pelvis": {"sagittal", "lateral"},
    "lower limb": {"axial"},
}
"""Views in which a part is not drawn, so that they are never labelled."""

ORGANS = {
    ("ct", "chest"): "C0024109",
    ("ct", "head"): "C0006104",
    ("mr", "head"): "C0006104",
    ("ultrasound", "abdomen"): "C0023884",
    ("mr", "lower limb"): "C0022742",
}
"""An organ that is labelled besides the region, where most of the picture is of it."""


@dataclass(frozen=True)
class Finding:
    """A finding of phantoms.

    Parameters
    ----------
    cui : str
    drawing : callable
        Draws it.
    probability : float
        Probability in a phantom where it can be seen.
    modalities, parts : str
        Where it can be seen: keys of `PHANTOM_MODALITIES` and of `BODY_PARTS`, separated by spaces. A space in a key is
        written as a hyphen.
    """

    cui: str
    drawing: Drawing
    probability: float
    modalities: str
    parts: str


FINDINGS = [
    Finding("C0018800", findings.cardiomegaly, 0.12, "xray", "chest"),
    Finding("C3544344", findings.ground_glass, 0.08, "ct xray", "chest"),
    Finding("C0521530", findings.consolidation, 0.12, "ct xray", "chest"),
    Finding("C0032227", findings.effusion, 0.16, "ct xray", "chest"),
    Finding("C0032326", findings.pneumothorax, 0.07, "ct xray", "chest"),
    Finding("C0028259", findings.nodule, 0.12, "ct xray", "chest breast"),
    Finding("C0577559", findings.mass, 0.14, "ct mr ultrasound", "chest abdomen head breast pelvis"),
    Finding("C0027627", findings.metastases, 0.04, "ct pet mr", "chest abdomen spine"),
    Finding("C0010709", findings.cyst, 0.12, "ct mr ultrasound", "abdomen pelvis breast"),
    Finding("C0006660", findings.calcification, 0.1, "ct xray", "breast abdomen pelvis"),
    Finding("C0006736", findings.stones, 0.1, "ultrasound ct", "abdomen"),
    Finding("C0003962", findings.fluid, 0.06, "ct ultrasound", "abdomen"),
    Finding("C0016658", findings.fracture, 0.3, "xray", "lower-limb upper-limb"),
    Finding("C0021308", findings.infarction, 0.12, "ct mr", "head"),
    Finding("C0019080", findings.haemorrhage, 0.14, "ct mr", "head"),
    Finding("C0020255", findings.hydrocephalus, 0.08, "ct mr", "head"),
    Finding("C0333641", findings.atrophy, 0.06, "ct mr", "head"),
    Finding("C2349975", findings.enhancement, 0.14, "ct mr", "head abdomen"),
    Finding("C9900002", findings.device, 0.07, "xray", "chest pelvis"),
]
"""In the order in which they are drawn."""

STENOSIS, ANEURYSM, ARTERIES, ARROW = "C1261287", "C0002940", "C0003842", "C9900001"


@dataclass(frozen=True)
class Phantom:
    """A drawn phantom.

    Parameters
    ----------
    pixels : ndarray of float32, shape (height, width)
        Brightness in [0, 1].
    modality : str
        Key of `PHANTOM_MODALITIES`.
    concepts : list of str
        CUIs, the most general first.
    manual : list of str
        Those of modality, region and view. In the real data the organisers annotate these by hand.
    boxes : dict of str to Box
        Where each finding was drawn, by CUI. Those of vessels have no place of their own.
    """

    pixels: Pixels
    modality: str
    concepts: list[str]
    manual: list[str]
    boxes: dict[str, Box] = field(default_factory=dict)


def make_phantom(random: Generator) -> Phantom:
    """Draw one phantom.

    Parameters
    ----------
    random : Generator
        The same state draws the same phantom.

    Returns
    -------
    Phantom
    """
    kind = _pick(random, {name: modality.share for name, modality in PHANTOM_MODALITIES.items()})
    modality = PHANTOM_MODALITIES[kind]
    part = _pick(random, modality.parts)
    hidden = HIDDEN_VIEWS.get(part, set())
    view = _pick(random, {view: share for view, share in modality.views.items() if view not in hidden})
    manual = [modality.cui, BODY_PARTS[part][0], *_view_concept(part, view)]
    organ = [ORGANS[kind, part]] if (kind, part) in ORGANS else []
    found, drawings = _pick_vessels(random) if kind == "angiogram" else _pick_findings(random, kind, part)
    overlays: list[Drawing] = []
    if random.random() < 0.08:
        overlays.append(findings.arrow)
        found = [*found, ARROW]
    concepts = [*manual, *organ, *found][:MAX_PHANTOM_CONCEPTS]
    pixels, places = draw(BODY_PARTS[part][1], view, drawings, modality.appearance, overlays, random)
    boxes = {} if kind == "angiogram" else dict(zip(found, places, strict=False))
    return Phantom(pixels, kind, concepts, manual, boxes)


def _pick_findings(random: Generator, kind: str, part: str) -> tuple[list[str], list[Drawing]]:
    # At most three: with modality, region, view, organ and an arrow these are MAX_PHANTOM_CONCEPTS.
    place = part.replace(" ", "-")
    present = [
        finding
        for finding in FINDINGS
        if kind in finding.modalities.split() and place in finding.parts.split()
        and random.random() < finding.probability
    ][:3]  # fmt: skip
    return [finding.cui for finding in present], [finding.drawing for finding in present]


def _pick_vessels(random: Generator) -> tuple[list[str], list[Drawing]]:
    narrow, bulge = bool(random.random() < 0.35), bool(random.random() < 0.2)
    found = [ARTERIES] + [STENOSIS] * narrow + [ANEURYSM] * bulge
    return found, [partial(findings.vessels, narrow=narrow, bulge=bulge)]


def _view_concept(part: str, view: str) -> list[str]:
    if view == "frontal":
        return ["C1996865" if part == "chest" else "C1999039"]
    return [VIEWS[view]] if view else []


def _pick(random: Generator, shares: dict[str, float]) -> str:
    total = sum(shares.values())
    return str(random.choice(list(shares), p=[share / total for share in shares.values()]))
