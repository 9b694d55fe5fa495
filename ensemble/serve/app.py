"""The addresses of the server: `/predict`, `/healthz`, `/metrics`, the page at `/`, and `/openapi.json`."""

import asyncio
import hmac
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ensemble import __version__
from ensemble.escape import escaped
from ensemble.serve.answers import Answer, Failure, Ready
from ensemble.serve.body import RETRY, JsonImages, images_in, read_body, require_media_type
from ensemble.serve.service import Service, answer, first_answer

PAGE = Path(__file__).with_name("page.html")
LARGE = 2**17  # bytes: reading such a form would keep other requests waiting
PATHS = ("/", "/predict", "/healthz", "/metrics", "/openapi.json")
BODY = {  # of /predict
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {"images": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
            "application/json": {"schema": JsonImages.model_json_schema()},
            "image/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
FAILURES: dict[int | str, dict[str, Any]] = {
    400: {"model": Failure, "description": "The body can't be read"},
    401: {"model": Failure, "description": "The token is missing or wrong"},
    408: {"model": Failure, "description": "The body came too slowly"},
    413: {"model": Failure, "description": "Too many bytes or images"},
    415: {"model": Failure, "description": "A body of another content type"},
    422: {"model": Answer, "description": "None of the images can be read"},
    500: {"model": Failure, "description": "The model failed"},
    503: {"model": Failure, "description": "Not ready, or too many images wait; see Retry-After"},
}


def make_app(service: Service) -> ASGIApp:
    """The ASGI application that serves a model."""
    app = FastAPI(
        title="ens serve",
        summary=service.model.name,
        version=__version__,
        docs_url=None,  # these pages fetch their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_exception_handler(StarletteHTTPException, _failure)
    app.add_exception_handler(RequestValidationError, _bad_query)
    app.add_exception_handler(Exception, _mistake)
    guarded = [Depends(HTTPBearer(auto_error=False)), Depends(_guard(service))] if service.options.token else []

    html = PAGE.read_bytes()
    trial: Future[Any] | None = None

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(html, headers={"X-Content-Type-Options": "nosniff"})

    @app.post("/predict", response_model=Answer, responses=FAILURES, openapi_extra=BODY, dependencies=guarded)
    async def predict(request: Request, members: bool = False) -> Response:
        """Predict one image or several. ?members=true adds the probabilities of each member of the ensemble."""
        found = await _predicted(service, request, members)
        readable = sum("error" not in image for image in found)
        service.metrics.images.labels("predicted").inc(readable)
        service.metrics.images.labels("unreadable").inc(len(found) - readable)
        return JSONResponse({"model": service.model.name, "images": found}, 200 if readable else 422)

    @app.get("/healthz", response_model=Ready, responses={503: FAILURES[503]})
    async def healthz() -> Response:
        """Ready when the model has answered, and its last batch did not fail."""
        nonlocal trial
        if not service.batches.is_answering:
            if trial is None or trial.done():  # a balancer sends no picture to a server that is not ready
                trial = first_answer(service)
            raise HTTPException(503, "the model does not answer", RETRY)
        return JSONResponse({"status": "ready", "model": service.model.name})

    @app.get("/metrics", response_class=Response, dependencies=guarded)
    async def metrics() -> Response:
        """Counters, as Prometheus reads them."""
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return _counted(app, service)


async def _predicted(service: Service, request: Request, members: bool) -> list[dict[str, Any]]:
    options, load = service.options, service.load
    if load.images >= options.max_queue:  # before the body is read
        raise HTTPException(503, f"{options.max_queue} images wait already; try again", RETRY)
    content_type = request.headers.get("content-type", "")
    require_media_type(content_type)
    async with read_body(request, options, load) as body:
        if len(body) > LARGE:
            loop = asyncio.get_running_loop()
            images = await loop.run_in_executor(service.decoders, images_in, content_type, body, options.max_images)
        else:
            images = images_in(content_type, body, options.max_images)
        return await answer(service, images, members)


def _guard(service: Service) -> Any:
    expected = f"Bearer {service.options.token}".encode()

    async def check(request: Request) -> None:
        given = request.headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(given, expected):
            text = "the request needs the header Authorization: Bearer TOKEN, with the token of this server"
            raise HTTPException(401, text, {"WWW-Authenticate": "Bearer"})

    return check


async def _failure(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    detail = error.detail
    if error.status_code == 404:
        detail = escaped(f"{request.url.path}: nothing is here; POST images to /predict")
    elif error.status_code == 405:
        detail = escaped(f"{request.url.path} takes no {request.method}")
    return JSONResponse({"error": detail}, error.status_code, error.headers)


async def _bad_query(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()[0]
    return JSONResponse({"error": escaped(f"{found['loc'][-1]}: {found['msg']}")}, 400)


async def _mistake(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"{type(error).__name__}: this should not happen; the server's log says more"}, 500)


def _counted(app: ASGIApp, service: Service) -> ASGIApp:
    """The application, with its requests counted."""
    load = service.load

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        status = 500

        async def counted_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                load.answered += 1
                path = scope["path"] if scope["path"] in PATHS else "other"
                service.metrics.requests.labels(path, str(status)).inc()

        load.accepted += 1
        await app(scope, receive, counted_send)

    return counted
