"""A model with its threads: from the images of a request to their answers."""

import asyncio
import io
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from fastapi import HTTPException
from PIL import Image

from ensemble.errors import UserError
from ensemble.escape import escaped
from ensemble.machine import cores, threads_allowed
from ensemble.serve.answers import predicted
from ensemble.serve.batches import Answer, Batches
from ensemble.serve.body import RETRY, Load
from ensemble.serve.metrics import Metrics, new_metrics
from ensemble.serve.model import IMAGE, ImageSquares, ServedModel
from ensemble.serve.options import ServeOptions


@dataclass(frozen=True)
class Service:
    """A model that is served.

    model, options: as they are given
    batches: the model's thread, and what waits for it
    decoders: the threads that decode
    metrics, load: what was counted
    """

    model: ServedModel
    options: ServeOptions
    batches: Batches
    decoders: ThreadPoolExecutor
    metrics: Metrics
    load: Load = field(default_factory=Load)

    def close(self) -> None:
        """End the threads, after what they hold."""
        self.decoders.shutdown()
        self.batches.close()


def first_answer(service: Service) -> Future[Answer]:
    """The model's answer to a grey picture: from then on it is known to answer."""
    picture = io.BytesIO()
    Image.new("RGB", (16, 16), "grey").save(picture, "PNG")
    return service.batches.submit([service.model.decode(picture.getvalue())])[0]


def new_service(model: ServedModel, options: ServeOptions) -> Service:
    """The model with its threads, which begin."""
    metrics = new_metrics()
    threads = options.threads or threads_allowed() or cores()
    batches = Batches(model.predict, options.max_batch, options.max_wait_ms, metrics)
    return Service(model, options, batches, ThreadPoolExecutor(threads, "decode"), metrics)


async def answer(service: Service, images: Sequence[tuple[str, bytes]], with_members: bool) -> list[dict[str, Any]]:
    """A `Predicted` or an `Unreadable` for each image, given by name and bytes. Raises HTTPException: 503 where too
    many wait, 500 where the model fails."""
    load, most = service.load, service.options.max_queue
    if load.images + len(images) > most:
        raise HTTPException(503, f"more than the {most} images that are accepted at a time; try again", RETRY)
    load.images += len(images)
    service.metrics.queue.set(load.images)
    try:
        with service.batches.decoding(len(images)):
            loop = asyncio.get_running_loop()
            work = [loop.run_in_executor(service.decoders, _decoded, service, data) for _, data in images]
            decoded = await asyncio.gather(*work)
            squares = [each for each in decoded if not isinstance(each, str)]
            answers = iter(service.batches.submit(squares))
        found = []
        for (name, _), each in zip(images, decoded, strict=True):
            if isinstance(each, str):
                found.append({"name": name, "error": each})
            else:
                found.append(await _answered(service, name, next(answers), with_members))
    finally:
        load.images -= len(images)
        service.metrics.queue.set(load.images)
    return found


def _decoded(service: Service, data: bytes) -> ImageSquares | str:
    """An image's squares, or what is wrong with it."""
    begun = time.monotonic()
    try:
        return service.model.decode(data)
    except UserError as error:
        return escaped(str(error).removeprefix(f"{IMAGE}: "))
    finally:
        service.metrics.decoding.observe(time.monotonic() - begun)


async def _answered(service: Service, name: str, future: Future[Answer], with_members: bool) -> dict[str, Any]:
    model = service.model
    try:
        probabilities, of_members, *columns = await asyncio.wrap_future(future)
    except Exception as error:  # whatever a runtime raises
        raise HTTPException(500, escaped(f"the model failed ({type(error).__name__}: {error})")) from None
    label = model.classes[int(model.decide(probabilities[None])[0])]
    asked = {
        member: of_member for member, of_member in zip(model.members, of_members, strict=True) if of_member[0] >= 0
    }
    more = columns[0] if columns else {}
    return predicted(name, label, probabilities, asked if with_members else None, model.classes, more)
