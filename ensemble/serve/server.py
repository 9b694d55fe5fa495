"""`ens serve`: listens, until it is stopped, and then answers what it has accepted."""

import asyncio
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from ensemble.errors import RunFailure, UserError
from ensemble.events import Events
from ensemble.listen import address, bound, is_loopback
from ensemble.machine import cores, threads_allowed
from ensemble.plural import pluralize
from ensemble.serve.app import make_app
from ensemble.serve.batches import Answer
from ensemble.serve.heads import protocol_with_limits
from ensemble.serve.model import ServedModel, load_model
from ensemble.serve.options import ServeOptions
from ensemble.serve.service import Service, first_answer, new_service
from ensemble.serve.slow import cut_off_slow
from ensemble.stop import safe_points

KEEP_ALIVE = 75  # seconds that a connection may wait for its next request


@dataclass(frozen=True)
class Served:
    """What a server has done.

    accepted: requests whose head was read
    answered: of these
    """

    accepted: int
    answered: int


def serve(path: Path, blend: str | None, networks: str | None, options: ServeOptions, events: Events) -> Served:
    """Serve an exported file or a run until Ctrl-C or SIGTERM; then no connection is accepted any more, and every
    request that was accepted is answered. blend, networks: as in `load_model`.

    Raises UserError as `load_model` does and for an address that can't be listened on, RunFailure if the model can't
    predict its first image.
    """
    threads = options.threads or threads_allowed() or cores()

    def load() -> ServedModel:
        return load_model(path, blend, networks, threads, options.engine, options.certainty, events)

    return serve_model(load, options, events)


def serve_model(load: Callable[[], ServedModel], options: ServeOptions, events: Events) -> Served:
    """As `serve`, of the model that `load` gives."""
    if options.max_images > options.max_queue:
        raise UserError(
            f"--max-images {options.max_images} --max-queue {options.max_queue}: a request of so many images would "
            "never find room; raise the second or lower the first"
        )
    with closing(bound(options.host, options.port)) as listener, closing(new_service(load(), options)) as service:
        return _serve(service, listener, events)


def _serve(service: Service, listener: socket.socket, events: Events) -> Served:
    options, load = service.options, service.load
    config = uvicorn.Config(
        make_app(service),
        http=protocol_with_limits,  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
    )
    server = uvicorn.Server(config)
    errors: list[BaseException] = []

    async def run() -> None:
        watching = asyncio.create_task(cut_off_slow(server, options.max_seconds))
        await server.serve([listener])
        watching.cancel()

    def in_thread() -> None:
        try:
            with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
                runner.run(run())
        except BaseException as error:
            errors.append(error)

    # Signals come to the main thread, where `safe_points` takes them: uvicorn takes them itself if it runs there.
    thread = threading.Thread(target=in_thread, name="server", daemon=True)
    first: Future[Answer] | None = first_answer(service)

    def step() -> str:
        return pluralize(load.accepted - load.answered, "accepted request")

    with safe_points(step, lambda: "nothing; send again what was not answered") as asked:
        thread.start()
        while thread.is_alive():
            if first is not None and first.done() and server.started:
                if error := first.exception():
                    errors.append(RunFailure(f"{service.model.name}: the model failed ({error})"))
                    server.should_exit = True
                else:
                    for line in _begun(service, listener):
                        events.message(line)
                first = None
            if asked():
                server.should_exit = True
            thread.join(0.1)
    if errors:
        raise errors[0]
    return Served(load.accepted, load.answered)


def _begun(service: Service, listener: socket.socket) -> list[str]:
    options, model = service.options, service.model
    sizes = f"{pluralize(len(model.classes), 'class', 'classes')}, {pluralize(len(model.members), 'member')}"
    lines = [
        f"{model.name} ({sizes}) is served at {address(options.host, listener)}: open it in a browser, or POST images "
        "to /predict"
    ]
    if options.token is None and not is_loopback(listener):
        lines.append("whoever reaches this address may use it: --token-file FILE or ENS_TOKEN asks for a token")
    return lines
