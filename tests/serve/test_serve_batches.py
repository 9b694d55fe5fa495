"""Dynamic batching: what goes together, and who waits."""

import threading
import time

import numpy as np
import pytest

from ensemble.serve.batches import Batches
from ensemble.serve.metrics import new_metrics


class Recorder:
    """A model that notes its batches and computes only when it may. An image is a number; its answer is twice that."""

    def __init__(self):
        self.batches, self.may, self.begun = [], threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, images):
        self.begun.release()
        assert self.may.acquire(timeout=60)
        self.batches.append(list(images))
        values = 2.0 * np.array(images)[:, None]
        return values, np.stack([values, -values])


@pytest.fixture
def model():
    return Recorder()


@pytest.fixture
def batches(model):
    """At most 4 at a time, and an hour of waiting: whoever waits where nothing is decoded never ends."""
    made = Batches(model, 4, 3.6e6, new_metrics())
    yield made
    model.may.release(100)
    made.close()


def test_a_single_image_goes_at_once(model, batches):
    model.may.release()
    (answer,) = batches.submit([3])
    probabilities, of_members = answer.result(60)
    assert probabilities.tolist() == [6] and of_members.tolist() == [[6], [-6]] and model.batches == [[3]]


def test_images_gather_while_the_model_computes_and_keep_their_order(model, batches):
    answers = batches.submit([0])
    assert model.begun.acquire(timeout=60)
    for number in range(1, 7):
        answers += batches.submit([number])
    model.may.release(3)
    assert [answer.result(60)[0].item() for answer in answers] == [0, 2, 4, 6, 8, 10, 12]
    assert model.batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_it_waits_for_images_that_are_being_decoded(model, batches):
    model.may.release(2)
    with batches.decoding(1):
        first = batches.submit([1])
        assert not model.begun.acquire(timeout=0.05)
        second = batches.submit([2])
    assert [answer.result(60)[0].item() for answer in first + second] == [2, 4] and model.batches == [[1, 2]]


def test_a_full_batch_does_not_wait(model, batches):
    model.may.release()
    with batches.decoding(1):
        assert [answer.result(60)[0].item() for answer in batches.submit([1, 2, 3, 4])] == [2, 4, 6, 8]


def test_waiting_has_a_limit(model):
    batches = Batches(model, 4, 30.0, new_metrics())
    model.may.release()
    begun = time.monotonic()
    with batches.decoding(1):
        (answer,) = batches.submit([1])
        answer.result(60)
    assert time.monotonic() - begun > 0.029
    batches.close()


def test_a_failure_is_that_of_its_batch_alone(batches, model):
    failing = True

    def moody(images):
        if failing:
            raise ValueError("no")
        return model(images)

    own = Batches(moody, 4, 0.0, new_metrics())
    (answer,) = own.submit([1])
    with pytest.raises(ValueError, match="no"):
        answer.result(60)
    assert not own.is_answering
    failing = False
    model.may.release()
    assert own.submit([1])[0].result(60)[0] == 2 and own.is_answering
    own.close()


def test_closing_answers_what_waits(model):
    batches = Batches(model, 2, 0.0, new_metrics())
    answers = batches.submit([1, 2, 3, 4, 5])
    model.may.release(100)
    batches.close()
    assert [answer.result(0)[0].item() for answer in answers] == [2, 4, 6, 8, 10]
    assert model.batches == [[1, 2], [3, 4], [5]]
