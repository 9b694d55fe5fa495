"""What `/metrics` tells Prometheus."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


@dataclass(frozen=True)
class Metrics:
    """The counters of one server. All may be used from any thread.

    registry: what they are exported from
    requests: answered, by path and status
    images: by outcome, "predicted" or "unreadable"
    batch_size: images that the model was given at a time
    decoding: seconds for each image
    waiting: seconds from decoded to the beginning of the batch, for each image
    model: seconds for each batch
    queue: images that are accepted and not answered
    """

    registry: CollectorRegistry
    requests: Counter
    images: Counter
    batch_size: Histogram
    decoding: Histogram
    waiting: Histogram
    model: Histogram
    queue: Gauge


def new_metrics() -> Metrics:
    """Counters at zero, in a registry of their own."""
    registry = CollectorRegistry()

    def seconds(name: str, text: str) -> Histogram:
        return Histogram(name, text, buckets=SECONDS, registry=registry)

    return Metrics(
        registry,
        Counter("ens_requests", "Requests that were answered", ("path", "status"), registry=registry),
        Counter("ens_images", "Images, predicted or unreadable", ("outcome",), registry=registry),
        Histogram("ens_batch_size", "Images in a batch of the model", buckets=SIZES, registry=registry),
        seconds("ens_decoding_seconds", "Decoding of an image"),
        seconds("ens_waiting_seconds", "Waiting of a decoded image for its batch"),
        seconds("ens_model_seconds", "A batch's time in the model"),
        Gauge("ens_queue_length", "Images that are accepted and not answered", registry=registry),
    )
