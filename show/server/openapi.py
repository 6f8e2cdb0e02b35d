"""The OpenAPI document: which requests the server answers, and how."""

from typing import Any

import msgspec
from msgspec import Struct

from cache.support.versions import __version__
from show.server.answers import ErrorAnswer, ExplainAnswer, PredictAnswer, RunAnswer
from show.server.uploads import FORM_TYPE

REFERENCE = "#/components/schemas/{name}"

IMAGE = {"type": "string", "format": "binary", "description": "JPEG, PNG, TIFF, BMP, GIF, WebP or DICOM."}

REFUSALS = {
    "400": "The form is damaged, or lacks something.",
    "403": "The host is not the server's, or another site sent the request.",
    "411": "The request does not say how long it is.",
    "413": "Too many images, or too large.",
    "415": "The request is no form.",
    "503": "The server is busy, or the request took too long; `Retry-After` says when to try again.",
}
"""Answers of a request with a form, besides its result."""

UNPROCESSABLE = "The image cannot be read, the run does not know the concept, or there is nothing to explain."


def make_openapi() -> dict[str, Any]:
    """Make the OpenAPI document of the server, as JSON can hold it."""
    answers = (RunAnswer, PredictAnswer, ExplainAnswer, ErrorAnswer)
    _, schemas = msgspec.json.schema_components(answers, ref_template=REFERENCE)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Concepts of radiology images",
            "version": __version__,
            "description": "For research. Not a medical device.",
        },
        "paths": {
            "/api/run": {"get": _describe_run()},
            "/api/predict": {"post": _describe_predict()},
            "/api/explain": {"post": _describe_explain()},
        },
        "components": {"schemas": schemas},
    }


def _describe_run() -> dict[str, Any]:
    responses = {"200": _answer(RunAnswer, "The run."), "403": _answer(ErrorAnswer, REFUSALS["403"])}
    return {"summary": "The run that predicts", "operationId": "run", "responses": responses}


def _describe_predict() -> dict[str, Any]:
    preview = {"type": "string", "enum": ["1"], "description": "Send it to get a picture of each image."}
    images = {"type": "array", "items": IMAGE, "minItems": 1}
    return {
        "summary": "Predict the concepts of images",
        "operationId": "predict",
        "requestBody": _form({"images": images, "preview": preview}, ["images"]),
        "responses": _responses(PredictAnswer, "A prediction per image."),
    }


def _describe_explain() -> dict[str, Any]:
    concept = {"type": "string", "description": "Its code or its name."}
    unprocessable = {"422": _answer(ErrorAnswer, UNPROCESSABLE)}
    return {
        "summary": "Explain a concept of an image",
        "operationId": "explain",
        "requestBody": _form({"image": IMAGE, "concept": concept}, ["image", "concept"]),
        "responses": _responses(ExplainAnswer, "An explanation.") | unprocessable,
    }


def _form(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": required}
    return {"required": True, "content": {FORM_TYPE: {"schema": schema}}}


def _responses(kind: type[Struct], description: str) -> dict[str, Any]:
    refusals = {status: _answer(ErrorAnswer, text) for status, text in REFUSALS.items()}
    return {"200": _answer(kind, description)} | refusals


def _answer(kind: type[Struct], description: str) -> dict[str, Any]:
    schema = {"$ref": REFERENCE.format(name=kind.__name__)}
    return {"description": description, "content": {"application/json": {"schema": schema}}}
