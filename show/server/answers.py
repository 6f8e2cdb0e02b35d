"""The answers of the server as JSON. The OpenAPI document is made from these classes, so that it is true."""

from typing import Annotated

from msgspec import Meta, Struct

Probability = Annotated[float, Meta(description="As the decoder sees it: calibrated if the decoder calibrates.")]
DataUrl = Annotated[str, Meta(description="A picture, as the address `data:image/…;base64,…`.")]
Cui = Annotated[str, Meta(description="The code of a concept, such as C0040405.")]
Name = Annotated[str, Meta(description="In plain words; empty if the data of the run has no table of names.")]


class ErrorAnswer(Struct):
    """Why a request is refused."""

    error: Annotated[str, Meta(description="One sentence.")]


class ScoreAnswer(Struct):
    """An official F1 on the images of valid."""

    f1: float
    interval: Annotated[list[float], Meta(min_length=2, max_length=2, description="95%.")]


class LimitsAnswer(Struct):
    """How much a request may hold."""

    files: int
    file_bytes: int
    request_bytes: int


class RunAnswer(Struct):
    """The run that predicts."""

    run: Annotated[str, Meta(description="The name of its folder.")]
    head: str
    decoder: str
    primary: Annotated[ScoreAnswer | None, Meta(description="Null if the run was not scored.")]
    secondary: Annotated[ScoreAnswer | None, Meta(description="Null without manual annotations.")]
    n_valid: Annotated[int, Meta(description="Images that the scores count.")]
    n_concepts: Annotated[int, Meta(description="Size of the vocabulary.")]
    vocabulary: list[Cui]
    names: Annotated[dict[str, str], Meta(description="Names by concept, of those that have one.")]
    explains: Annotated[bool, Meta(description="Whether /api/explain has an answer.")]
    explains_not: Annotated[str, Meta(description="Why it has none; empty if it has.")]
    limits: LimitsAnswer


class ConceptAnswer(Struct):
    """A concept of an image."""

    concept: Cui
    name: Name
    probability: Annotated[Probability | None, Meta(description="Null if the image cannot be read.")]
    predicted: Annotated[bool, Meta(description="Whether the decoder predicts it.")]


class ImageAnswer(Struct):
    """What the run predicts for an image, as `predict --json` prints it."""

    image: Annotated[str, Meta(description="The name of the file.")]
    sha256: str
    unreadable: Annotated[str | None, Meta(description="Why the image cannot be read; null if it can.")]
    concepts: Annotated[list[Cui], Meta(description="Those that the decoder predicts, or the fallback set of the run.")]
    scores: Annotated[list[ConceptAnswer], Meta(description="All of the vocabulary, the most probable first.")]
    preview: Annotated[DataUrl | None, Meta(description="If `preview` was sent and the image can be read.")]


class PredictAnswer(Struct):
    """One prediction per image, in the order of the request."""

    images: list[ImageAnswer]


class NeighbourAnswer(Struct):
    """A training image that decides."""

    id: str
    distance: Annotated[float, Meta(description="One minus the cosine of the angle between the embeddings.")]
    concepts: list[Cui]


class MapAnswer(Struct):
    """What each place of the image contributes to the score of the concept."""

    values: Annotated[
        list[list[float]],
        Meta(description="Rows of a grid over the whole image: the score if it looked everywhere as it does there."),
    ]
    score: Annotated[float, Meta(description="The mean of the values.")]
    unit: Annotated[str, Meta(description="What they are: `logit` or `score`.")]
    overlay: Annotated[DataUrl, Meta(description="The map in colours, to be laid over the image.")]


class ExplainAnswer(Struct):
    """Where the run sees a concept, or, if its head votes, the training images that decide."""

    image: str
    concept: Cui
    name: Name
    probability: Probability
    predicted: bool
    method: Annotated[str, Meta(description="How it was found out.")]
    map: Annotated[MapAnswer | None, Meta(description="Null if the head votes.")]
    neighbours: Annotated[list[NeighbourAnswer], Meta(description="Empty unless the head votes.")]
