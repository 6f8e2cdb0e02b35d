"""What the server knows: a run, and its answers to images. It knows nothing of the web."""

import io

import msgspec
import PIL.Image

from cache.support.errors import RunError, UserError
from heads.runs.folder import read_metrics
from show.explainer import Explainer
from show.prediction_table import to_json
from show.predictor import ImagePredictor
from show.server.answers import (
    ExplainAnswer,
    ImageAnswer,
    LimitsAnswer,
    MapAnswer,
    NeighbourAnswer,
    PredictAnswer,
    RunAnswer,
    ScoreAnswer,
)
from show.server.limits import Limits
from show.server.pictures import draw_overlay, draw_preview
from show.server.uploads import Upload

N_NEIGHBOURS = 5
"""How many of the training images that decide are answered."""


class RunService:
    """A run that answers. Methods may be called from several threads.

    Parameters
    ----------
    predictor : ImagePredictor
    limits : Limits

    Attributes
    ----------
    run : RunAnswer
    """

    def __init__(self, predictor: ImagePredictor, limits: Limits) -> None:
        self._predictor = predictor
        self._explainer: Explainer | None = None
        reason = ""
        try:
            self._explainer = Explainer(predictor)
        except RunError:
            reason = "An ensemble joins several heads; serve one of its members to see where it looks."
        except UserError as error:
            reason = self.hide_folders(str(error))
        self.run = self._describe(limits, reason)

    def warm_up(self) -> None:
        """Open the network, so that what it lacks is found before the first request, which then need not wait.

        Raises
        ------
        UserError
            It cannot be opened.
        """
        file = io.BytesIO()
        PIL.Image.new("L", (64, 64)).save(file, "PNG")
        self._predictor.predict_bytes([file.getvalue()])

    def predict(self, images: list[Upload], with_previews: bool) -> PredictAnswer:
        """Predict images.

        Raises
        ------
        UserError, MemoryError, OSError
            Something other than an image is at fault.
        """
        predictions = self._predictor.predict_bytes([each.content for each in images], [each.name for each in images])
        answers = []
        for image, prediction in zip(images, predictions, strict=True):
            preview = draw_preview(image.content) if with_previews and prediction.is_readable else None
            answers.append(msgspec.convert(to_json(prediction) | {"preview": preview}, ImageAnswer))
        return PredictAnswer(answers)

    def explain(self, image: Upload, concept: str) -> ExplainAnswer:
        """Explain a concept of an image, by its code or its name.

        Raises
        ------
        UserError
            The image cannot be read, the concept is unknown, or there is nothing to explain.
        MemoryError, OSError
            The machine is at fault.
        """
        if not self._explainer:
            raise RunError(self.run.explains_not)
        (code, *_) = self._explainer.find_concepts(concept)
        explanation = self._explainer.explain(image.content, image.name, [code])
        (ranked,) = [each for each in explanation.prediction.rank() if each.concept == code]
        heat = explanation.maps[0] if explanation.maps else None
        return ExplainAnswer(
            image.name,
            code,
            ranked.name,
            round(ranked.probability, 6),
            ranked.is_predicted,
            explanation.method,
            MapAnswer(heat.values.tolist(), heat.score, heat.unit, draw_overlay(heat)) if heat else None,
            [
                NeighbourAnswer(each.id, round(each.distance, 6), each.concepts)
                for each in explanation.neighbours[:N_NEIGHBOURS]
            ],
        )

    def hide_folders(self, message: str) -> str:
        """A message in which the places of the run and its files are not told."""
        opened = self._predictor.opened
        places = [self._predictor.folder, *opened.data_folders, *(store.path for store in opened.stores)]
        for place in sorted({form for each in places for form in (each, each.resolve())}, key=str, reverse=True):
            message = message.replace(str(place), place.name)
        return message

    def _describe(self, limits: Limits, explains_not: str) -> RunAnswer:
        predictor = self._predictor
        metrics = read_metrics(predictor.folder)
        valid = metrics["valid"]
        return RunAnswer(
            predictor.folder.resolve().name,
            metrics["head"],
            metrics["decoder"]["name"],
            _score(valid["primary"], valid["primary_interval"]) if valid else None,
            _score(valid["secondary"], valid["secondary_interval"]) if valid else None,
            valid["n_images"] if valid else 0,
            len(predictor.vocabulary),
            list(predictor.vocabulary),
            {concept: predictor.names[concept] for concept in predictor.vocabulary if concept in predictor.names},
            not explains_not,
            explains_not,
            LimitsAnswer(limits.files, limits.file_bytes, limits.request_bytes),
        )


def _score(f1: float | None, interval: list[float] | None) -> ScoreAnswer | None:
    return None if f1 is None or interval is None else ScoreAnswer(f1, interval)
