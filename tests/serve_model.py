"""A model to serve that needs no training, and requests to it without a network: for the tests of `ens serve`."""

import asyncio
import io
import json
import threading
from pathlib import Path

import numpy as np
from PIL import Image

from ensemble.data.pixels.decode import decode_each, middle_square
from ensemble.data.pixels.preprocess import Decoding
from ensemble.serve.model import IMAGE, ServedModel
from ensemble.serve.options import ServeOptions
from ensemble.serve.server import serve_model
from ensemble.serve.service import first_answer, new_service
from ensemble.stop import ask_to_stop

CLASSES = ("red", "green", "파랑")
DECODING = Decoding(16, "lanczos", None)


def shares(pixels):
    """float32 (n, 3): how much of an image's light is red, green and blue."""
    sums = pixels.reshape(len(pixels), -1, 3).sum(axis=1) + np.float32(1)
    return (sums / sums.sum(axis=1, keepdims=True)).astype(np.float32)


def predict(images):
    """Two members: one sees the whole square, the other its upper half; the blend is their mean."""
    pixels = np.stack([image["squares_16"] for image in images]).astype(np.float32)
    of_members = np.stack([shares(pixels), shares(pixels[:, :8])])
    return of_members.mean(axis=0), of_members


def decode(data):
    return {"squares_16": middle_square(decode_each(Path(IMAGE), data, [DECODING])[0])}


COLOURS = ServedModel("colours", CLASSES, ("whole", "half"), decode, predict, lambda values: values.argmax(axis=1))


def picture(colour, kind="PNG", size=(20, 20)):
    """The bytes of a file of one colour."""
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, kind)
    return stream.getvalue()


def service_of(model=COLOURS, **options):
    """A service whose model has answered once."""
    service = new_service(model, ServeOptions(threads=1, **options))
    first_answer(service).result()
    return service


def form(*files, boundary="frontier"):
    """The content type and the body of a form with these (name, bytes)."""
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="images"; filename="{name}"\r\n'
        "Content-Type: image/png\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, data in files
    )
    return f"multipart/form-data; boundary={boundary}", body + f"--{boundary}--\r\n".encode()


async def request(app, method, path, headers=(), pieces=(b"",), is_whole=True):
    """Send one request to an ASGI application: its status, headers and body. pieces: of the body; a number is a pause
    of so many seconds. is_whole: False ends the connection after them."""
    path, _, query = path.partition("?")
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    left = list(pieces)
    sent = []

    async def receive():
        while left and not isinstance(left[0], bytes):
            await asyncio.sleep(left.pop(0))
        if left:
            piece = left.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(left) or not is_whole}
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    assert [message["type"] for message in sent[:1]] == ["http.response.start"]
    assert sent[-1]["type"] == "http.response.body" and not sent[-1].get("more_body")
    found = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(message["body"] for message in sent[1:])


def post(app, content_type, body, path="/predict", headers=(), **more):
    """POST a body: the status and the JSON of the answer."""
    pieces = body if isinstance(body, list) else [body]
    status, _, answer = asyncio.run(
        request(app, "POST", path, [("content-type", content_type), *headers], pieces, **more)
    )
    return status, json.loads(answer)


def get(app, path, headers=()):
    """GET: the status, the headers and the body."""
    return asyncio.run(request(app, "GET", path, headers))


class Listener:
    """What a server says. begun: set with its first line, which holds the port."""

    def __init__(self):
        self.lines, self.begun = [], threading.Event()

    def message(self, line):
        self.lines.append(line)
        self.begun.set()


class Running:
    """A server in a thread. result: what it returned."""

    def __init__(self, model=COLOURS, **options):
        self.said, self.result = Listener(), None
        self.thread = threading.Thread(target=self.run, args=(model, options))
        self.thread.start()
        assert self.said.begun.wait(60)

    @property
    def port(self):
        return int(self.said.lines[0].rpartition("http://")[2].split(":")[1])

    def run(self, model, options):
        self.result = serve_model(lambda: model, ServeOptions(port=0, threads=1, **options), self.said)

    def stop(self):
        step = ask_to_stop()
        self.thread.join(60)
        assert not self.thread.is_alive()
        return step
