"""`/predict` and the other addresses, without a network: what they answer, and what they refuse."""

import asyncio
import base64
import json
import struct
import threading
import time
import tracemalloc
import zlib
from dataclasses import replace
from io import BytesIO

import jsonschema
import numpy as np
import pytest
from openapi_spec_validator import validate
from PIL import Image
from serve_model import CLASSES, COLOURS, decode, form, get, picture, post, predict, request, service_of

from ensemble.errors import UserError
from ensemble.serve.app import make_app
from ensemble.serve.options import ServeOptions
from ensemble.serve.service import first_answer, new_service

RED, GREEN = picture("red"), picture("green")


@pytest.fixture
def serving():
    """serving(model, **options): an application and its service."""
    services = []

    def make(model=COLOURS, **options):
        services.append(service_of(model, **options))
        return make_app(services[-1]), services[-1]

    yield make
    for service in services:
        service.close()


@pytest.fixture
def app(serving):
    return serving()[0]


def test_one_image_as_raw_bytes(app):
    status, answer = post(app, "image/png", RED)
    assert status == 200 and answer["model"] == "colours"
    (image,) = answer["images"]
    assert (image["name"], image["class"]) == ("image 1", "red") and set(image) == {"name", "class", "probabilities"}
    square = decode(RED)
    assert image["probabilities"] == dict(zip(CLASSES, predict([square])[0][0].tolist(), strict=True))


def test_several_files_of_a_form_keep_their_order_and_names(app):
    files = [("빨강.png", RED), ("g.png", GREEN), ("b.webp", picture("blue", "WEBP"))]
    content_type, body = form(*files)
    status, answer = post(app, content_type, [body[:100], body[100:333], body[333:]])
    assert status == 200
    found = [(image["name"], image["class"]) for image in answer["images"]]
    assert found == [("빨강.png", "red"), ("g.png", "green"), ("b.webp", "파랑")]


def test_a_large_form_is_read_too(app):
    status, answer = post(app, *form(("r.bmp", picture("red", "BMP", (300, 300)))))
    assert status == 200 and answer["images"][0]["class"] == "red"


def test_json_with_base64_and_data_addresses(app):
    texts = [base64.b64encode(GREEN).decode(), "data:image/png;base64," + base64.b64encode(RED).decode()]
    status, answer = post(app, "application/json; charset=utf-8", json.dumps({"images": texts}).encode())
    assert status == 200
    assert [(image["name"], image["class"]) for image in answer["images"]] == [("image 1", "green"), ("image 2", "red")]


def test_members_are_answered_where_they_are_asked_for(app):
    halves = np.zeros((20, 20, 3), np.uint8)
    halves[:10, :, 0], halves[10:, :, 1] = 255, 255
    stream = BytesIO()
    Image.fromarray(halves).save(stream, "PNG")
    _, answer = post(app, "image/png", stream.getvalue(), "/predict?members=true")
    members = answer["images"][0]["members"]
    assert list(members) == ["whole", "half"]
    assert members["half"]["red"] > 0.9 and 0.4 < members["whole"]["red"] < 0.6


def test_an_unreadable_image_leaves_the_others_whole(app):
    status, answer = post(app, *form(("r.png", RED), ("notes.txt", b"not a picture"), ("cut.png", GREEN[:50])))
    assert status == 200
    whole, text, cut = answer["images"]
    assert whole["class"] == "red"
    assert set(text) == set(cut) == {"name", "error"} and text["name"] == "notes.txt"
    assert text["error"].startswith("not a readable image (")


def test_no_readable_image_is_status_422_with_the_same_answer(app):
    status, answer = post(app, "image/jpeg", b"\xff\xd8\xff nothing")
    assert status == 422 and "not a readable image" in answer["images"][0]["error"]


def test_a_bomb_is_refused_by_its_header(app, monkeypatch):
    monkeypatch.setenv("ENS_MAX_PIXELS", "1000")
    status, answer = post(app, "image/png", picture("red", size=(40, 40)))
    assert status == 422 and "40 x 40 pixels, more than the 1,000" in answer["images"][0]["error"]
    monkeypatch.delenv("ENS_MAX_PIXELS")
    header = b"IHDR" + struct.pack(">IIBBBBB", 2**30, 2**30, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    status, answer = post(app, "image/png", b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\x01IDAT")
    assert status == 422 and "more than the 120,000,000" in answer["images"][0]["error"]


@pytest.mark.parametrize(
    ("content_type", "body", "status", "line"),
    [
        ("text/plain", RED, 415, "content type 'text/plain': send multipart/form-data"),
        ("", RED, 415, "no content type: send"),
        ("multipart/form-data", b"", 400, "without a boundary"),
        ("multipart/form-data; boundary=x", b"nothing", 400, "not a readable form"),
        ("multipart/form-data; boundary=x", b"--x--\r\n", 400, "holds no image"),
        ("multipart/form-data; boundary=" + "x" * 999, b"", 400, "not a readable form"),
        ("multipart/form-data; boundary=x", form(("a", RED), boundary="x")[1][:-9], 400, "before its last boundary"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\nhello\r\n--x--\r\n',
            400,
            "form field 'text' is no file",
        ),
        (
            "multipart/form-data; boundary=x",
            b"--x\r\nA: b\r\n\r\nhello\r\n--x--\r\n",
            400,
            "says nothing of its content",
        ),
        ("multipart/form-data; boundary=x", b"--x\r\nA: " + b"b" * 9999, 400, "not a readable form"),
        ("application/json", b"{", 400, "Invalid JSON"),
        ("application/json", b'{"image": "abc"}', 400, "images: Field required; want"),
        ("application/json", b'{"images": [1]}', 400, "images.0: Input should be a valid string"),
        ("application/json", b'{"images": ["!!"]}', 400, "images.0: not base64"),
        ("application/json", b'{"images": []}', 400, "holds no image"),
        ("application/json", b"[" * 100_000, 400, "Invalid JSON"),
    ],
)
def test_a_body_that_can_not_be_read_is_one_line(app, content_type, body, status, line):
    found, answer = post(app, content_type, body)
    assert (found, set(answer)) == (status, {"error"}) and line in answer["error"], answer


def test_limits_on_bytes_and_images(serving):
    app, service = serving(max_bytes=1000, max_images=2)
    assert post(app, "image/png", [b"x" * 600, b"x" * 600]) == (
        413,
        {"error": "the body is larger than the 1,000 bytes that are accepted"},
    )
    status, _ = post(app, "image/png", b"", headers=[("content-length", "1001")])
    assert status == 413  # before a byte of it is read
    status, answer = post(app, *form(*[(f"{number}", b"x") for number in range(3)]))
    assert status == 413 and "more than the 2 images" in answer["error"]
    status, answer = post(app, "application/json", b'{"images": ["", "", ""]}')
    assert status == 413 and service.load.bytes == service.load.images == 0


@pytest.mark.parametrize(
    "document", [{"images": [0] * 20_000}, {str(number): 0 for number in range(20_000)}], ids=["numbers", "keys"]
)
def test_json_of_many_small_things_takes_little_memory(app, document):
    """A megabyte of numbers took 4 seconds and 420 MB."""
    body = json.dumps(document).encode()
    tracemalloc.start()
    status, answer = post(app, "application/json", body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert status == 413 and "more commas than in 64 images of base64" in answer["error"]
    assert peak < 10 * len(body)


def test_a_slow_body_is_cut_off(serving):
    app, service = serving(max_seconds=0.1)
    status, answer = post(app, "image/png", [b"x", 0.5, b"x"])
    assert (status, answer) == (408, {"error": "the body did not arrive within 0.1 seconds"})
    assert service.load.bytes == 0


def test_a_connection_that_ends_early_leaves_nothing(serving):
    app, service = serving()
    status, _ = post(app, "image/png", [b"x" * 500], is_whole=False)
    assert status == 400 and service.load.bytes == 0


def held_up():
    """A model that computes only when it may, and the event that lets it."""
    may = threading.Event()
    may.set()

    def slow(images):
        assert may.wait(60)
        return predict(images)

    return replace(COLOURS, predict=slow), may


def test_a_full_queue_answers_503_at_once(serving):
    model, may = held_up()
    app, service = serving(model, max_queue=2, max_images=2)
    may.clear()

    async def talk():
        content_type, body = form(("a", RED), ("b", GREEN))
        headers = [("content-type", content_type)]
        waiting = asyncio.create_task(request(app, "POST", "/predict", headers, [body]))
        while service.load.images < 2:
            await asyncio.sleep(0.005)
        refused = await request(app, "POST", "/predict", [("content-type", "image/png")], [RED])
        metrics = await request(app, "GET", "/metrics")
        may.set()
        return refused, metrics, await waiting

    refused, metrics, answered = asyncio.run(talk())
    assert refused[0] == 503 and refused[1]["retry-after"] == "1" and b"2 images wait already" in refused[2]
    assert b"ens_queue_length 2.0" in metrics[2]
    assert answered[0] == 200 and service.load.images == 0


def test_bodies_that_are_held_are_limited_together(serving):
    app, service = serving(max_bytes=1000)
    service.load.bytes = 16_000
    status, answer = post(app, "image/png", RED)
    assert status == 503 and "holds too many requests" in answer["error"] and service.load.bytes == 16_000


def test_a_model_that_fails_is_status_500_and_not_ready_until_it_answers_again(serving):
    failing = threading.Event()

    def moody(images):
        if failing.is_set():
            raise RuntimeError("out of luck\x1b")
        return predict(images)

    app, _ = serving(replace(COLOURS, predict=moody))
    assert get(app, "/healthz")[0] == 200
    failing.set()
    assert post(app, "image/png", RED) == (500, {"error": "the model failed (RuntimeError: out of luck\\x1b)"})
    assert get(app, "/healthz")[0] == 503
    failing.clear()
    assert post(app, "image/png", RED)[0] == 200 and get(app, "/healthz")[0] == 200


def test_a_server_that_gets_no_request_is_ready_again_once_its_model_answers(serving):
    failing = threading.Event()

    def moody(images):
        if failing.is_set():
            raise RuntimeError("out of luck")
        return predict(images)

    app, _ = serving(replace(COLOURS, predict=moody))
    failing.set()
    assert post(app, "image/png", RED)[0] == 500 and get(app, "/healthz")[0] == 503
    failing.clear()
    deadline = time.monotonic() + 60
    while get(app, "/healthz")[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_ready_only_when_the_model_has_answered():
    service = new_service(COLOURS, ServeOptions(threads=1))
    app = make_app(service)
    status, headers, body = get(app, "/healthz")
    assert (
        status == 503 and headers["retry-after"] == "1" and json.loads(body) == {"error": "the model does not answer"}
    )
    first_answer(service).result()
    assert json.loads(get(app, "/healthz")[2]) == {"status": "ready", "model": "colours"}
    service.close()


def test_a_token_guards_prediction_and_metrics(serving):
    app, _ = serving(token="s3cret")
    status, headers, body = get(app, "/metrics")
    assert (
        status == 401
        and headers["www-authenticate"] == "Bearer"
        and "Authorization: Bearer" in json.loads(body)["error"]
    )
    for wrong in ("Bearer s3cre", "Bearer s3cret2", "s3cret", "bearer é", ""):
        assert post(app, "image/png", RED, headers=[("authorization", wrong)])[0] == 401, wrong
    right = [("authorization", "Bearer s3cret")]
    assert post(app, "image/png", RED, headers=right)[0] == 200 and get(app, "/metrics", right)[0] == 200
    assert get(app, "/")[0] == get(app, "/healthz")[0] == get(app, "/openapi.json")[0] == 200


def test_metrics_count_what_happened(serving):
    app, _ = serving()
    post(app, *form(("r.png", RED), ("x", b"no picture")))
    post(app, "text/plain", b"")
    get(app, "/nowhere")
    lines = get(app, "/metrics")[2].decode().splitlines()
    for line in (
        'ens_requests_total{path="/predict",status="200"} 1.0',
        'ens_requests_total{path="/predict",status="415"} 1.0',
        'ens_requests_total{path="other",status="404"} 1.0',
        'ens_images_total{outcome="predicted"} 1.0',
        'ens_images_total{outcome="unreadable"} 1.0',
        "ens_batch_size_sum 2.0",  # the first picture and this one
        "ens_batch_size_count 2.0",
        "ens_decoding_seconds_count 2.0",
        "ens_waiting_seconds_count 2.0",
        "ens_model_seconds_count 2.0",
        "ens_queue_length 0.0",
    ):
        assert line in lines, line


def test_other_addresses_and_methods_are_json_errors(app):
    status, _, body = get(app, "/predikt")
    assert status == 404 and json.loads(body) == {"error": "/predikt: nothing is here; POST images to /predict"}
    status, _, body = get(app, "/predict")
    assert status == 405 and json.loads(body) == {"error": "/predict takes no GET"}
    status, answer = post(app, "image/png", RED, "/predict?members=perhaps")
    assert status == 400 and answer["error"].startswith("members: Input should be a valid boolean")


def test_the_openapi_schema_is_valid_and_describes_every_answer(serving):
    app, _ = serving(token="t")
    schema = json.loads(get(app, "/openapi.json")[2])
    validate(schema)
    described = schema["paths"]["/predict"]["post"]
    assert set(described["requestBody"]["content"]) == {"multipart/form-data", "application/json", "image/*"}
    assert described["security"] == [{"HTTPBearer": []}]
    right = [("authorization", "Bearer t")]
    content = form(("r.png", RED), ("x", b"no picture"))
    answers = {
        200: post(app, *content, "/predict?members=true", right),
        400: post(app, "application/json", b"{}", headers=right),
        401: post(app, "image/png", RED),
        415: post(app, "text/plain", b"", headers=right),
        422: post(app, "image/png", b"no picture", headers=right),
    }
    for status, (found, answer) in answers.items():
        assert found == status
        named = described["responses"][str(status)]["content"]["application/json"]["schema"]
        jsonschema.validate(answer, {**named, "components": schema["components"]})
    schemas = schema["components"]["schemas"]
    predicted, unreadable = answers[200][1]["images"]
    assert set(schemas["Answer"]["properties"]) == set(answers[200][1])
    asked_for = {"set", "abstain", "unknown", "unknown_score", "expected_cost"}  # with --sets and the like
    assert set(schemas["Predicted"]["properties"]) == {*predicted, *asked_for}
    assert set(schemas["Unreadable"]["properties"]) == set(unreadable)
    assert set(schemas["Failure"]["properties"]) == set(answers[400][1])
    ready = json.loads(get(app, "/healthz")[2])
    assert set(schemas["Ready"]["properties"]) == set(ready)
    jsonschema.validate({"images": ["aGk="]}, described["requestBody"]["content"]["application/json"]["schema"])


def test_errors_name_no_place_on_this_machine():
    with pytest.raises(UserError, match=r"^upload: not a readable image \(cannot identify image file 'it'\)"):
        decode(b"no picture")
