"""Workers on a Ray cluster that share one work by claims, as processes do that are started by hand: each does what is
free until nothing is left. One that is lost is started again."""

import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ensemble.errors import RunFailure
from ensemble.events import Events
from ensemble.launch.local import RAISED
from ensemble.launch.ray.cluster import Cluster, Needs
from ensemble.launch.ray.driver import HEARD, LOST, SHARE, SUBMIT
from ensemble.launch.ray.worker import Expected, Task
from ensemble.launch.slots import Slot

LOSSES = 3  # of workers, one after the other, while nothing was finished: then all end
LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Crew:
    """Workers that do the same.

    work: what each does; `slot` is its place
    count: how many there are
    needs: of each
    expected: what all machines have to have alike
    """

    work: Callable[[Slot], Any]
    count: int
    needs: Needs
    expected: Expected


@dataclass
class _Running:
    """The workers that Ray has: where each is, "" until it has begun."""

    cluster: Cluster
    crew: Crew
    places: dict[int, str] = field(default_factory=dict)
    started: int = 0

    def start(self) -> None:
        number, needs = self.started, self.crew.needs
        self.started += 1
        self.places[number] = ""
        self.cluster.send(SUBMIT, Task(number, "work", pickle.dumps(None), needs.threads), needs.options())


def run_workers(cluster: Cluster, crew: Crew, look: Callable[[], tuple[int, bool]], events: Events) -> list[Any]:
    """Start the workers, and follow them until nothing is left to do. Returns what came of each.

    look: is called again and again; says how much is finished, and whether all is. What a worker raises is raised here,
    and ends the others when the cluster is left. Raises RunFailure if the cluster is lost, or too many workers are.
    """
    running, results, losses = _Running(cluster, crew), [], 0
    cluster.send(SHARE, pickle.dumps({"work": partial(_work, crew.work), "expected": crew.expected}))
    for _ in range(crew.count):
        running.start()
    finished, is_over = look()
    looked = time.monotonic()
    # A worker that Ray has no place for yet is not waited for where the others have done all.
    while running.places and not (is_over and not any(running.places.values())):
        if cluster.pipe.poll(LOOK_SECONDS):
            kind, *words = cluster.receive()
            if kind == HEARD:
                number, what, about = words[0]
                if what == "began" and number in running.places:
                    running.places[number] = about[0]
            elif kind == LOST:
                place, reason = running.places.pop(words[0]), words[1]
                before, (finished, is_over) = finished, look()
                losses = 1 if finished > before else losses + 1
                if losses == LOSSES:
                    raise RunFailure(
                        f"{LOSSES} workers were lost, one after the other, and nothing was finished meanwhile (at last"
                        f"{f' on {place}' if place else ''}: {reason}), possibly out of memory; what is finished is "
                        "kept, and the same command goes on"
                    )
                events.message(f"a worker{f' on {place}' if place else ''} was lost ({reason}); another one is started")
                running.start()
            else:
                running.places.pop(words[0])
                outcome, answer, _ = words[1]
                if outcome == RAISED:
                    raise pickle.loads(answer)
                results.append(pickle.loads(answer))
        if time.monotonic() - looked >= LOOK_SECONDS:
            finished, is_over = look()
            looked = time.monotonic()
    look()
    return results


def _work(work: Callable[[Slot], Any], job: None, slot: Slot, events: Events) -> Any:
    return work(slot)
