"""How a model is served."""

from dataclasses import dataclass

from ensemble.predictions.certainty import CertaintyRequest


@dataclass(frozen=True)
class ServeOptions:
    """The address, the batches and the limits of a server.

    host, port: where it listens; port 0 takes a free one
    max_batch: images that the model is given at a time, at most
    max_wait_ms: how long an image waits at most for others that are being decoded, milliseconds
    threads: as many decode, and as many compute; None: OMP_NUM_THREADS, or one for each core
    token: what a request has to bring as `Authorization: Bearer TOKEN`; None: nothing
    max_bytes: of a request's body
    max_images: in a request
    max_queue: images that are accepted and not answered; further requests are refused with 503
    max_seconds: in which the head of a request and then its body have to arrive, and its answer to be taken
    engine: what computes an exported file, as `load_exported` takes it
    certainty: what is said of each image of a run beside its class; None for nothing
    """

    host: str = "127.0.0.1"
    port: int = 8000
    max_batch: int = 16
    max_wait_ms: float = 5.0
    threads: int | None = None
    token: str | None = None
    max_bytes: int = 32 * 2**20
    max_images: int = 64
    max_queue: int = 256
    max_seconds: float = 30.0
    engine: str = "auto"
    certainty: CertaintyRequest | None = None
