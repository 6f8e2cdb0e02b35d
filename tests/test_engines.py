"""Engines give the same numbers, and an embedding depends on its image alone."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from cache.errors import UserError
from featurize.backbone import Backbone, Front
from featurize.engines import BATCH, Choice, choose, prepare

# By its name alone: importing it here would import its telemetry.
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")


def images(n_images: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n_images, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def front() -> Front:
    return Backbone("mobilenet", "random:0", 32).build()


@pytest.fixture(scope="module", params=["openvino", "tensorflow"])
def engine(request: pytest.FixtureRequest, front: Front, tmp_path_factory: pytest.TempPathFactory) -> Callable:
    if request.param == "openvino" and find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    return prepare(Choice(request.param, "float32", ""), front.model, tmp_path_factory.mktemp("engine"))


def test_an_engine_agrees_with_keras(front: Front, engine: Callable) -> None:
    expected = front.model.predict(images(5), verbose=0)
    np.testing.assert_allclose(engine(images(5)), expected, atol=1e-4 * np.abs(expected).max(), rtol=0)


def test_an_embedding_depends_on_its_image_alone(engine: Callable) -> None:
    many = images(2 * BATCH + 3)
    expected = engine(many)
    assert expected.shape == (len(many), 1024)
    np.testing.assert_array_equal(engine(many[::-1])[::-1], expected)
    np.testing.assert_array_equal(engine(many[7:8]), expected[7:8])


@needs_openvino
def test_an_engine_on_openvino_travels_without_its_network(front: Front, tmp_path: Path) -> None:
    import pickle

    engine = prepare(Choice("openvino", "float32", ""), front.model, tmp_path)
    sent = pickle.dumps(engine)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent)(images(2)), engine(images(2)))


@needs_openvino
def test_openvino_cannot_report_its_use() -> None:
    from featurize import engines

    engines._openvino()
    with pytest.raises(ImportError):
        import openvino_telemetry  # noqa: F401


@needs_openvino
def test_bfloat16_stays_close_where_the_machine_has_it(front: Front, tmp_path: Path) -> None:
    if choose("openvino", "auto").precision != "bfloat16":
        pytest.skip("this CPU does not compute in bfloat16")
    exact = front.model.predict(images(8), verbose=0)
    coarse = prepare(choose("openvino", "bfloat16"), front.model, tmp_path)(images(8))
    cosine = (exact * coarse).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(coarse, axis=1)
    assert cosine.min() > 0.999


def test_auto_is_settled_and_explained() -> None:
    choice = choose("auto", "auto")
    assert choice.engine in ("openvino", "tensorflow")
    assert choice.precision in ("float32", "bfloat16")
    assert choice.why


@pytest.mark.parametrize(
    ("engine", "precision", "message"),
    [
        ("torch", "auto", "engine 'torch': expected one of auto, openvino, tensorflow"),
        ("auto", "int8", "precision 'int8': expected one of auto, float32, bfloat16"),
        ("tensorflow", "bfloat16", "precision 'bfloat16' needs the engine openvino"),
    ],
)
def test_an_unknown_choice_lists_the_right_ones(engine: str, precision: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose(engine, precision)
