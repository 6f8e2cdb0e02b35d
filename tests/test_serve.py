"""The page of a run: its answers are those of `predict`, and whatever is sent to it gets one sentence."""

import asyncio
import base64
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

import httpx2
import msgspec
import numpy as np
import PIL.Image
import pytest
from conftest import ROOT, reported
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient

import show.__main__
from cache.support.errors import ParameterError
from featurize.pipeline import make_features
from heads.ensembles.builder import make_ensemble
from heads.runs.builder import fit_run
from show.explainer import Explainer, HeatMap
from show.overlay import paint
from show.prediction_table import to_json
from show.predictor import ImagePredictor, predict
from show.server.answers import ErrorAnswer, ExplainAnswer, PredictAnswer, RunAnswer
from show.server.application import make_application
from show.server.gate import FORBIDDEN_HOST, FORBIDDEN_ORIGIN, HEADERS, Gate
from show.server.limits import Limits
from show.server.listener import find_url, open_socket
from show.server.queue import WorkQueue

URL = "http://127.0.0.1:8000"
NO_IMAGE = b"no image"
SMALL: dict[str, Any] = {"backbone": "mobilenet", "weights": "random:0", "size": 32, "layer": "conv_pw_3_relu",
                         "precision": "float32"}  # fmt: skip
HOSTILE = "<img src=x onerror=alert(1)>.png"

Client = TestClient


@pytest.fixture(scope="module")
def place(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a store and runs of several heads, none of which a test changes."""
    place = tmp_path_factory.mktemp("serve")
    shutil.copytree(phantoms, place / "data")
    with reported():
        make_features(place / "data", place / "s.h5", **SMALL)
        for name in ("logistic", "knn", "prior"):
            fit_run(name, place / "s.h5", place / "data", place / "runs" / name)
        members = [place / "runs" / name for name in ("logistic", "knn")]
        make_ensemble(members, place / "runs" / "both")
    return place


@pytest.fixture(scope="module")
def predictor(place: Path) -> ImagePredictor:
    return ImagePredictor(place / "runs" / "logistic")


@pytest.fixture(scope="module")
def client(predictor: ImagePredictor) -> Client:
    """The server of the logistic run, without a socket."""
    return TestClient(make_application(predictor), URL)


def open_run(place: Path, name: str, **options: Any) -> Client:
    return TestClient(make_application(ImagePredictor(place / "runs" / name), **options), URL)


@pytest.fixture(scope="module")
def images(place: Path) -> list[Path]:
    """Images that are not in the store, in several formats, and a file that is none."""
    folder = place / "new"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in ("a.png", "b.jpg", "c.bmp"):
        PIL.Image.fromarray(random.integers(0, 255, (50, 70), np.uint8)).save(folder / name)
    PIL.Image.fromarray(random.integers(0, 4000, (50, 70), np.uint16)).save(folder / "d.tif")
    (folder / "e.png").write_bytes(NO_IMAGE)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def png(images: list[Path]) -> bytes:
    return images[0].read_bytes()


def send(client: Client, address: str, *files: tuple[str, bytes], name: str = "images", **fields: str) -> Any:
    """The answer to a form."""
    return client.post(address, files=[(name, file) for file in files], data=fields)


def refusal(answer: Any, status: int) -> str:
    """The one sentence of an answer that is a refusal."""
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    sentence: str = answer.json()["error"]
    assert sentence
    assert "\n" not in sentence
    assert "Traceback" not in answer.text
    return sentence


# ------------------------------------------------------------------------------------------------------------ answers
def test_an_upload_gets_what_predict_gives(client: Client, place: Path, images: list[Path]) -> None:
    answer = send(client, "/api/predict", *[(path.name, path.read_bytes()) for path in images]).json()
    expected = [to_json(each) for each in predict(place / "runs" / "logistic", images)]
    for each, path in zip(expected, images, strict=True):
        each |= {"image": path.name, "preview": None}
    assert answer == {"images": expected}
    assert answer["images"][-1]["unreadable"] == "not an image of a known format"
    assert len({json.dumps(each["scores"]) for each in answer["images"]}) == len(images)


def test_an_ensemble_answers_too(place: Path, images: list[Path]) -> None:
    client = open_run(place, "both")
    (answer,) = send(client, "/api/predict", ("a.png", images[0].read_bytes())).json()["images"]
    (expected,) = predict(place / "runs" / "both", images[:1])
    assert answer["concepts"] == expected.concepts
    run = client.get("/api/run").json()
    assert (run["explains"], "ensemble" in run["explains_not"]) == (False, True)
    assert refusal(send(client, "/api/explain", ("a.png", b""), name="image", concept="C1"), 422) == run["explains_not"]


def test_the_run_is_described(client: Client, predictor: ImagePredictor, place: Path) -> None:
    run = client.get("/api/run").json()
    metrics = json.loads((place / "runs/logistic/metrics.json").read_text())
    assert (run["run"], run["head"], run["decoder"]) == ("logistic", "logistic", "platt+expected-f1")
    assert run["primary"] == {"f1": metrics["valid"]["primary"], "interval": metrics["valid"]["primary_interval"]}
    assert run["n_concepts"] == len(run["vocabulary"]) == len(predictor.vocabulary)
    assert run["names"] == {each: predictor.names[each] for each in predictor.vocabulary}


def test_a_preview_shows_what_a_browser_cannot(client: Client, images: list[Path]) -> None:
    files = [(path.name, path.read_bytes()) for path in images]
    previews = [each["preview"] for each in send(client, "/api/predict", *files, preview="1").json()["images"]]
    assert previews.pop() is None
    for preview in previews:
        head, _, data = preview.partition(",")
        assert head == "data:image/jpeg;base64"
        assert PIL.Image.open(io.BytesIO(base64.b64decode(data))).size == (70, 50)


def test_a_dicom_file_has_a_preview(client: Client) -> None:
    pydicom = pytest.importorskip("pydicom", reason="needs pydicom")
    content = (Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm").read_bytes()
    (answer,) = send(client, "/api/predict", ("CT_small.dcm", content), preview="1").json()["images"]
    picture = PIL.Image.open(io.BytesIO(base64.b64decode(answer["preview"].partition(",")[2])))
    assert (answer["unreadable"], picture.size) == (None, (128, 128))


def test_a_map_is_that_of_the_explainer(client: Client, predictor: ImagePredictor, png: bytes) -> None:
    (prediction,) = predictor.predict_bytes([png])
    concept = prediction.concepts[0]
    for text in (concept, predictor.names[concept].upper()):
        answer = send(client, "/api/explain", ("a.png", png), name="image", concept=text).json()
        heat = Explainer(predictor).heat_map(png, concept)
        assert (answer["concept"], answer["name"]) == (concept, predictor.names[concept])
        np.testing.assert_array_equal(np.float32(answer["map"]["values"]), heat.values)
        assert (answer["map"]["score"], answer["method"], answer["neighbours"]) == (heat.score, heat.method, [])
        overlay = PIL.Image.open(io.BytesIO(base64.b64decode(answer["map"]["overlay"].partition(",")[2])))
        np.testing.assert_array_equal(np.asarray(overlay), paint(heat, 256, 256))


def test_an_overlay_begins_at_the_mean_and_is_strongest_where_the_map_is() -> None:
    values = np.linspace(-1, 1, 4, dtype=np.float32)[:, None].repeat(4, 1)
    alpha = paint(HeatMap("a", "C1", "", 0.5, values, 0.0, "logit", True), 40, 40)[..., 3].astype(int)
    assert (alpha[:15] == 0).all()
    assert (np.diff(alpha[:, 0]) >= 0).all()
    assert alpha[-1].min() > 140


def test_a_head_that_votes_lists_the_training_images_that_decide(place: Path, png: bytes) -> None:
    client = open_run(place, "knn")
    answer = send(client, "/api/explain", ("a.png", png), name="image", concept="chest").json()
    nearest = Explainer(place / "runs" / "knn").explain(png).neighbours[:5]
    assert [each["id"] for each in answer["neighbours"]] == [each.id for each in nearest]
    assert answer["map"] is None


def test_the_openapi_document_is_true(client: Client, png: bytes) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    kinds = {"RunAnswer": RunAnswer, "PredictAnswer": PredictAnswer, "ExplainAnswer": ExplainAnswer, "ErrorAnswer": ErrorAnswer}  # fmt: skip
    answers = {
        "/api/run": [client.get("/api/run")],
        "/api/predict": [send(client, "/api/predict", ("a.png", png), ("b", NO_IMAGE), preview="1"), client.post("/api/predict")],
        "/api/explain": [send(client, "/api/explain", ("a", png), name="image", concept="chest"),
                         send(client, "/api/explain", ("a", NO_IMAGE), name="image", concept="chest")],
    }  # fmt: skip
    assert set(answers) == set(document["paths"])
    for path, got in answers.items():
        (method,) = document["paths"][path].values()
        for each in got:
            schema = method["responses"][str(each.status_code)]["content"]["application/json"]["schema"]
            name = schema["$ref"].rpartition("/")[2]
            decoded = msgspec.json.decode(each.content, type=kinds[name])
            assert msgspec.to_builtins(decoded) == each.json()  # nothing that the document does not have
            assert set(document["components"]["schemas"][name]["required"]) == set(each.json())
    form = document["paths"]["/api/explain"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["required"] == ["image", "concept"]


# ------------------------------------------------------------------------------------------------- what is refused
def test_what_is_no_image_gets_the_reason(client: Client) -> None:
    answer = send(client, "/api/explain", (f"a/b/{HOSTILE}", NO_IMAGE), name="image", concept="chest")
    assert refusal(answer, 422) == f"{HOSTILE}: cannot be read: not an image of a known format"


def test_an_unknown_concept_is_refused_with_the_nearest(client: Client, png: bytes) -> None:
    answer = send(client, "/api/explain", ("a", png), name="image", concept="chesst")
    assert "the run does not know it; did you mean Chest" in refusal(answer, 422)


@pytest.mark.parametrize(
    ("files", "fields", "sentence"),
    [
        ([], {"concept": "chest"}, "There is no image in the form."),
        ([("a", b"1")], {}, "The form has no field 'concept', the code or name of a concept."),
        ([("a", b"1"), ("b", b"2")], {"concept": "chest"}, "2 images in the form; one is expected."),
        ([("a", b"1")], {"concept": "x" * 5000}, "The form is damaged: Part exceeded maximum size of 4KB."),
    ],
)
def test_an_incomplete_form_is_refused(client: Client, files: Any, fields: dict[str, str], sentence: str) -> None:
    form = [("image", file) for file in files] + [(name, (None, value)) for name, value in fields.items()]
    assert refusal(client.post("/api/explain", files=form), 400) == sentence


def test_what_is_too_much_is_refused(predictor: ImagePredictor, png: bytes) -> None:
    limits = Limits(file_bytes=2**20, request_bytes=3 * 2**20, files=2)
    client = TestClient(make_application(predictor, limits=limits), URL)
    large = ("large.png", bytes(2**20 + 1))
    assert refusal(send(client, "/api/predict", large), 413) == "large.png: larger than 1 MB."
    assert (
        refusal(send(client, "/api/predict", *[("a", png)] * 3), 413)
        == "3 images in one request; at most 2 are allowed."
    )
    assert refusal(send(client, "/api/predict", *[large] * 3), 413) == "The request is larger than 3 MB."
    assert send(client, "/api/predict", ("a", png), ("b", png)).status_code == 200


def test_a_body_without_a_length_or_of_another_type_is_not_read(client: Client, png: bytes) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert "Content-Length" in refusal(client.post("/api/predict", content=iter([b"--x"]), headers=form), 411)
    assert "form" in refusal(client.post("/api/predict", json={}), 415)
    for length in ("9" * 30, "-1", "x"):
        answer = client.post("/api/predict", content=b"", headers=form | {"Content-Length": length})
        refusal(answer, 413 if length.isdigit() else 411)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost@evil.example",
                                  "evil.example#localhost", "", "localhost:x", "10.0.0.1", "[::1", "localhost/"])  # fmt: skip
def test_a_name_that_is_not_the_servers_is_refused(client: Client, host: str) -> None:
    assert refusal(client.get("/", headers={"Host": host}), 403) == FORBIDDEN_HOST


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9000", "127.0.0.1:8000", "[::1]:8000"])
def test_names_of_this_machine_are_accepted(client: Client, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 200


def test_the_given_host_is_accepted_and_where_it_is_any_every_address() -> None:
    def accepts(host: str, name: str) -> bool:
        return not Gate(None, host).refuse(Headers({"host": name}), "GET")  # type: ignore[arg-type]

    assert accepts("Station.example", "station.example:8000")
    assert not accepts("station.example", "10.0.0.1")
    assert accepts("0.0.0.0", "10.0.0.1:8000")
    assert accepts("::", "[fe80::1]:8000")
    assert accepts("0.0.0.0", socket.gethostname())
    assert not accepts("0.0.0.0", "evil.example")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9000"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_post_from_another_site_is_refused(client: Client, png: bytes, headers: dict[str, str]) -> None:
    answer = client.post("/api/predict", files={"images": png}, headers=headers)
    assert refusal(answer, 403) == FORBIDDEN_ORIGIN


def test_a_post_from_the_page_is_accepted(client: Client, png: bytes) -> None:
    headers = {"Origin": URL, "Sec-Fetch-Site": "same-origin"}
    assert client.post("/api/predict", files={"images": png}, headers=headers).status_code == 200


def test_every_answer_is_strict_and_tells_nothing_of_the_server(client: Client, place: Path, png: bytes) -> None:
    answers = [
        *(client.get(address) for address in ("/", "/page.css", "/page.js", "/api/run", "/openapi.json", "/nothing", "/docs")),
        client.get("/../setup.cfg"),
        client.get("/api/predict"),
        client.put("/"),
        client.get("/", headers={"Host": "evil.example"}),
        send(client, "/api/predict", ("a", png), ("b", NO_IMAGE)),
        send(client, "/api/explain", ("a", png), name="image", concept="nothing"),
    ]  # fmt: skip
    for answer in answers:
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
        assert not {"server", "x-powered-by", "access-control-allow-origin"} & set(answer.headers)
        text = answer.text.casefold()
        for private in (str(place), str(ROOT), "uvicorn", "starlette", "traceback"):
            assert private.casefold() not in text
    assert "default-src 'none'" in HEADERS["Content-Security-Policy"]
    assert "unsafe" not in HEADERS["Content-Security-Policy"]


def test_the_page_loads_nothing_from_elsewhere(client: Client) -> None:
    for address in ("/", "/page.css", "/page.js"):
        text = client.get(address).text
        assert not re.search(r"https?://|//[a-z]+\.|@import|innerHTML|insertAdjacentHTML|document\.write|eval\(", text)
    assert "Not a medical device" in client.get("/").text


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError(), 503),
        (OSError(24, "Too many open files", "/secret/place"), 503),
        (ValueError("/secret/place"), 500),
    ],
)
def test_a_fault_of_the_machine_or_a_bug_is_one_sentence(
    predictor: ImagePredictor, monkeypatch: pytest.MonkeyPatch, png: bytes, error: Exception, status: int
) -> None:
    client = TestClient(make_application(predictor), URL, raise_server_exceptions=False)

    def fail(*args: Any) -> None:
        raise error

    monkeypatch.setattr("show.predictor.ImagePredictor.predict_bytes", fail)
    answer = send(client, "/api/predict", ("a", png))
    assert "secret" not in refusal(answer, status)
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS


def test_places_of_the_run_are_not_told(place: Path, monkeypatch: pytest.MonkeyPatch, png: bytes) -> None:
    client = open_run(place, "knn")

    def fail(*args: Any) -> None:
        raise ParameterError(f"{place / 'runs' / 'knn'}: {place / 's.h5'} of {place / 'data'} has changed")

    monkeypatch.setattr("show.explainer.Explainer.explain", fail)
    answer = send(client, "/api/explain", ("a", png), name="image", concept="chest")
    assert refusal(answer, 422) == "knn: s.h5 of data has changed"


# ------------------------------------------------------------------------------------------------------- resources
def test_uploads_stay_in_memory(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("an upload was written to the disk")

    monkeypatch.setattr(SpooledTemporaryFile, "rollover", refuse)
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    (answer,) = send(client, "/api/predict", ("a", bytes(5 * 2**20))).json()["images"]
    assert answer["unreadable"]


class Held:
    """Work that goes on until it is released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.released = threading.Event(), threading.Event()
        original = ImagePredictor.predict_bytes

        def wait(*args: Any) -> Any:
            self.begun.set()
            assert self.released.wait(30)
            return original(*args)

        monkeypatch.setattr(ImagePredictor, "predict_bytes", wait)


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again(
    predictor: ImagePredictor, monkeypatch: pytest.MonkeyPatch, png: bytes
) -> None:
    client = TestClient(make_application(predictor, limits=Limits(requests=1, retry_seconds=7)), URL)
    held = Held(monkeypatch)
    answers: list[Any] = []
    first = threading.Thread(target=lambda: answers.append(send(client, "/api/predict", ("a", png))))
    first.start()
    assert held.begun.wait(30)
    answer = send(client, "/api/predict", ("b", png))
    held.released.set()
    first.join()
    assert refusal(answer, 503) == "The server is busy. Please try again in 7 seconds."
    assert answer.headers["Retry-After"] == "7"
    assert [answers[0].status_code, send(client, "/api/predict", ("b", png)).status_code] == [200, 200]


def test_a_request_that_takes_too_long_is_answered_and_keeps_its_place_until_its_work_ends(
    predictor: ImagePredictor, monkeypatch: pytest.MonkeyPatch, png: bytes
) -> None:
    client = TestClient(make_application(predictor, limits=Limits(requests=1, threads=1, seconds=0.05)), URL)
    held = Held(monkeypatch)
    assert "more than 0.05 seconds" in refusal(send(client, "/api/predict", ("a", png)), 503)
    assert "busy" in refusal(send(client, "/api/predict", ("a", png)), 503)
    held.released.set()
    monkeypatch.undo()
    for _ in range(1000):
        answer = send(client, "/api/predict", ("a", png))
        if answer.status_code == 200 or "busy" not in answer.text:
            return
    pytest.fail("the place was never given back")


def test_the_queue_bounds_the_bytes_that_wait() -> None:
    async def fill() -> None:
        queue = WorkQueue(Limits(waiting_bytes=10))
        async with queue.enter(6):
            with pytest.raises(HTTPException, match="busy"):
                queue.enter(5)
            async with queue.enter(4):
                pass
        async with queue.enter(10) as place:
            assert await place.call(len, "four") == 4

    with ThreadPoolExecutor(1) as thread:  # a browser has a loop of its own in this one
        thread.submit(asyncio.run, fill()).result()


DISPOSITIONS = st.sampled_from([b'form-data; name="images"; filename="a.png"', b'form-data; name="image"; filename=""',
                                b'form-data; name="concept"', b"form-data", b'form-data; name*=x; filename="../\x00\xff"'])  # fmt: skip
PARTS = st.lists(st.tuples(DISPOSITIONS | st.binary(max_size=30), st.binary(max_size=60)), max_size=4)
TYPES = st.sampled_from(["multipart/form-data; boundary=x", "multipart/form-data", "multipart/form-data; boundary=",
                         "multipart/form-data; boundary=x; charset=undefined", "multipart/form-data; boundary=x; charset=idna",
                         "multipart/form-data; boundary=" + "x" * 300, "text/plain", ""])  # fmt: skip


@given(st.sampled_from(["/api/predict", "/api/explain"]), TYPES, PARTS, st.binary(max_size=20), st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_form_gets_a_result_or_one_sentence(
    client: Client, address: str, kind: str, parts: list[tuple[bytes, bytes]], tail: bytes, is_closed: bool
) -> None:
    body = b"".join(
        b"--x\r\nContent-Disposition: " + disposition + b"\r\n\r\n" + content + b"\r\n"
        for disposition, content in parts
    )
    answer = client.post(
        address, content=body + (b"--x--\r\n" if is_closed else b"") + tail, headers={"Content-Type": kind}
    )
    if answer.status_code != 200:
        assert 400 <= answer.status_code < 500
        refusal(answer, answer.status_code)
    else:
        msgspec.json.decode(answer.content, type=PredictAnswer)


# -------------------------------------------------------------------------------------------------------- a process
class Server:
    """A server in a process of its own, on a free port."""

    def __init__(self, run: Path, *options: str) -> None:
        words = [sys.executable, "-m", "show", "serve", str(run), "--port", "0", *options]
        self.process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.line = self.process.stdout.readline()
        self.url = self.line.partition(" ")[0]
        self.port = int(self.url.rpartition(":")[2].strip("/") or 0)

    def end(self, number: int = signal.SIGINT) -> tuple[int, str, str]:
        """Press Ctrl-C; gives status, and the rest of standard output and standard error."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Server]:
    server = Server(place / "runs" / "logistic")
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.communicate()


def test_a_process_answers_and_garbage_gets_no_traceback(server: Server, place: Path, images: list[Path]) -> None:
    assert server.line == f"http://127.0.0.1:{server.port}/ shows {place}/runs/logistic; Ctrl-C ends it\n"
    answer = httpx2.post(f"{server.url}api/predict", files={"images": images[0].read_bytes()})
    assert answer.json()["images"][0]["concepts"] == predict(place / "runs" / "logistic", images[:1])[0].concepts
    assert "server" not in answer.headers
    for garbage in (b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST /api/predict HTTP/1.1\r\n\r\n",
                    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
                    b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
                    b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n--x\r\n0\r\n\r\n"):  # fmt: skip
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            got = b"".join(iter(lambda: connection.recv(4096), b"")).lower()
        assert re.match(rb"http/1.1 4\d\d ", got)
        assert b"traceback" not in got
        assert b"uvicorn" not in got
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        connection.sendall(head + b"Content-Length: 100\r\n\r\n--x")  # and goes away
    assert httpx2.get(f"{server.url}api/run").status_code == 200


def test_a_port_in_use_is_one_line_before_the_run_is_read(server: Server, command: Callable[..., Any]) -> None:
    done = command("show", "serve", "nowhere", "--port", server.port)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"show: error: port {server.port} of 127.0.0.1 is in use; name another PORT (--port), or end what listens there\n"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_end_is_one_line(place: Path, number: int) -> None:
    assert Server(place / "runs" / "prior").end(number) == (0, "ended; no image was kept\n", "")


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Call the command in this process; what would answer ends at once."""
    monkeypatch.setattr("show.server.listener.answer", lambda *args: None)

    def run(*words: object) -> tuple[int, str, str]:
        status = show.__main__.main(["serve", *map(str, words), "--port", "0"])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_a_run_that_cannot_answer_is_one_line(call: Call, place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "s.h5.network", tmp_path / "s.h5.network")
    shutil.copy(place / "s.h5", tmp_path)
    with reported():
        fit_run("prior", tmp_path / "s.h5", place / "data", tmp_path / "run")
    lines = [call(tmp_path / "nothing")]
    shutil.rmtree(tmp_path / "s.h5.network")
    lines.append(call(tmp_path / "run"))
    (tmp_path / "s.h5").unlink()
    lines.append(call(tmp_path / "run"))
    assert [(status, out, err.count("\n")) for status, out, err in lines] == [(1, "", 1)] * 3
    assert "make" in lines[1][2]
    assert f"its store {tmp_path}/s.h5 is gone; make it again with" in lines[2][2]


def test_another_host_is_warned_about(call: Call, place: Path) -> None:
    status, _, err = call(place / "runs" / "prior", "--host", "0.0.0.0")
    assert status == 0
    assert err.startswith("show: warning: host 0.0.0.0: there is no password;")
    assert call(place / "runs" / "prior")[2] == ""


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("127.0.0.1", 70000, "port 70000, expected 0 to 65535"),
        ("no.such.host.invalid", 0, "is not known, expected a name or an address of this machine"),
        ("192.0.2.1", 0, "is not an address of this machine"),
        ("a" * 100, 0, "name another HOST"),
    ],
)
def test_an_address_that_cannot_be_had_is_one_line(host: str, port: int, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        open_socket(host, port)


def test_the_address_is_as_a_browser_takes_it() -> None:
    with open_socket("127.0.0.1", 0) as listener:
        assert find_url(listener, "::1") == f"http://[::1]:{listener.getsockname()[1]}/"


# ------------------------------------------------------------------------------------------------------- a browser
@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    """The page in a browser, on a phone; it must say nothing, and ask no other machine."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page, said, asked = context.new_page(), [], set()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.add(request.url[: len(server.url)]))
    page.goto(server.url)
    page.get_by_text("Run logistic").wait_for()
    yield page
    assert said == []
    assert {url for url in asked if not url.startswith("data:")} == {server.url}
    context.close()


def upload(page: Any, *files: tuple[str, bytes]) -> None:
    """Choose files, and wait until all have an answer."""
    page.set_input_files("#files", [{"name": name, "mimeType": "", "buffer": content} for name, content in files])
    for name, _ in files:
        page.locator("article", has_text=name).locator(".message:not(:has-text('…'))").wait_for(state="attached")


def marked(page: Any) -> list[str]:
    """The codes of the concepts that are marked."""
    rows = page.locator("tr", has_text="✓")
    return sorted(re.findall(r"C\d{7}", " ".join(rows.locator("td:first-child").all_text_contents())))


def test_the_page_shows_what_predict_gives(page: Any, place: Path, images: list[Path]) -> None:
    (expected,) = predict(place / "runs" / "logistic", images[3:4])
    upload(page, ("d.tif", images[3].read_bytes()))
    assert marked(page) == expected.concepts
    values = [float(each) for each in page.locator(".level span").all_text_contents()]
    assert values == [round(each.probability, 3) for each in expected.rank(5)]
    assert page.locator("#status").text_content() == f"d.tif: {len(expected.concepts)} concepts predicted."
    assert page.locator(".preview").evaluate("image => image.naturalWidth") == 70
    page.get_by_role("button", name="Show all").click()
    assert page.locator("tbody tr").count() == len(expected.vocabulary)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light


def test_the_slider_marks_by_the_probabilities_and_a_button_goes_back(
    page: Any, place: Path, images: list[Path]
) -> None:
    (expected,) = predict(place / "runs" / "logistic", images[:1])
    upload(page, ("a.png", images[0].read_bytes()))
    slider = page.get_by_label("Threshold of probability")
    slider.focus()
    page.keyboard.press("Home")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    wanted = [each.concept for each in expected.rank() if round(each.probability, 6) >= 0.1]
    assert marked(page) == sorted(wanted) != expected.concepts
    assert page.locator("#rule").text_content() == "Marked: every concept of probability 0.10 or more."
    button = page.get_by_role("button", name="Decoder’s choice")
    assert button.get_attribute("aria-pressed") == "false"
    button.focus()
    page.keyboard.press("Enter")
    assert (marked(page), button.get_attribute("aria-pressed")) == (expected.concepts, "true")


def test_a_heat_map_is_shown_and_hidden_by_key(page: Any, images: list[Path]) -> None:
    upload(page, ("a.png", images[0].read_bytes()))
    page.locator("tbody button").first.focus()
    page.keyboard.press("Enter")
    overlay = page.locator(".overlay:visible")
    overlay.wait_for()
    assert overlay.evaluate("image => image.naturalWidth") == 256
    assert "exact: the mean of each map is the logit" in page.locator(".where").text_content()
    page.keyboard.press("Escape")
    assert overlay.count() == 0


def test_what_is_no_image_gets_one_sentence_and_a_name_is_only_text(page: Any, images: list[Path]) -> None:
    upload(page, (HOSTILE, NO_IMAGE), ("a.png", images[0].read_bytes()))
    card = page.locator("article").first
    assert card.locator("h2").text_content() == HOSTILE
    assert card.locator(".message").text_content() == "This image cannot be read: not an image of a known format"
    assert page.locator("article img:visible").count() == 1
    card.get_by_role("button", name="Remove").click()
    assert page.locator("article").count() == 1


def test_images_can_be_dropped_and_pasted(page: Any, images: list[Path]) -> None:
    script = """([data, kind]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(data)], kind + ".png"));
        const options = { bubbles: true, cancelable: true };
        document.body.dispatchEvent(kind === "drop"
            ? new DragEvent(kind, { ...options, dataTransfer: transfer })
            : new ClipboardEvent(kind, { ...options, clipboardData: transfer }));
    }"""
    for kind in ("drop", "paste"):
        page.evaluate(script, [list(images[0].read_bytes()), kind])
        page.locator("article", has_text=f"{kind}.png").locator(".preview:visible").wait_for()
