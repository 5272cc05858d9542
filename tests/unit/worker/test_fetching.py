"""From which queues the next job is taken; that it pays is shown by the integration tests."""

from collections.abc import Callable, Iterator

import msgspec
import pytest
import redis

from sdq import broker
from sdq.broker import HeldModel
from sdq.testing.dispatch import heartbeat
from sdq.testing.rig import Clock
from sdq.testing.worker import fake_manifest
from sdq.worker.delivery import connect
from sdq.worker.fetching import LOOK_SECONDS, Cycle, Fetching

MANIFESTS = {
    model_id: msgspec.structs.replace(fake_manifest(), model_id=model_id) for model_id in "ABC"
}
QUEUES = {
    model_id: broker.queue_of(model_id, manifest.fingerprint)
    for model_id, manifest in MANIFESTS.items()
}


class Worker:
    """What one is at the moment, and where it fetches from. A is in memory."""

    def __init__(self, client: "redis.Redis", worker_id: str = "me") -> None:
        self.client = client
        self.clock = Clock()
        self.serving: tuple[str, ...] = ("A",)
        self.failing: tuple[str, ...] = ()
        self.in_hand: dict[str, int] = {}
        self.fetching = Fetching(
            worker_id,
            [HeldModel(name, manifest.fingerprint) for name, manifest in MANIFESTS.items()],
            serving=lambda: self.serving,
            failing=lambda: self.failing,
            in_hand=lambda: self.in_hand,
            clock=self.clock,
        )

    @property
    def order(self) -> str:
        """The models that are asked for, the first one first."""
        models = {queue: model_id for model_id, queue in QUEUES.items()}
        return "".join(models[queue] for queue in self.fetching.order(list(QUEUES.values())))

    def look(self, seconds: float = LOOK_SECONDS) -> bool:
        self.clock.now += seconds
        return self.fetching.look(self.client)


@pytest.fixture
def client(redis_url: str) -> Iterator["redis.Redis"]:
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def worker(client: "redis.Redis") -> Worker:
    return Worker(client)


@pytest.fixture
def send(client: "redis.Redis") -> Callable[[str], None]:
    def push(model_id: str) -> None:
        client.lpush(QUEUES[model_id], b"a task")

    return push


@pytest.fixture
def neighbour(client: "redis.Redis") -> Callable[..., None]:
    """Another worker that holds all models and has one in memory."""

    def beat(loaded: str, worker_id: str = "you", state: str = "ready") -> None:
        first, *others = MANIFESTS.values()
        beat = heartbeat(first, worker_id, others=others, loaded=tuple(loaded), state=state)
        client.set(broker.heartbeat_key(worker_id), broker.pack(beat))
        client.zadd(broker.WORKERS_SET, {worker_id: 1.0})

    return beat


def test_who_has_nothing_to_do_takes_what_comes_and_best_what_is_in_memory(worker: Worker) -> None:
    assert worker.order == "ABC"
    worker.serving = ("B", "C")
    assert worker.order == "BCA"
    worker.serving = ()
    assert worker.order == "ABC"


def test_a_model_that_comes_is_fetched_for_and_one_that_must_leave_is_not(worker: Worker) -> None:
    worker.in_hand, worker.serving = {"A": 3, "B": 1}, ("B",)
    assert worker.order == "B"


def test_the_first_ones_of_a_burst_are_taken_together(worker: Worker) -> None:
    """Nobody else has work here: its model will come at once."""
    worker.in_hand = {"B": 1}
    assert worker.order == "AB"


def test_while_there_is_other_work_one_job_knocks_once_it_was_left_to_us(
    worker: Worker, send: Callable[[str], None]
) -> None:
    worker.in_hand = {"A": 2}
    send("B")
    assert worker.order == "A"
    assert not worker.look()
    assert worker.order == "A"
    assert not worker.look(LOOK_SECONDS / 2)  # too soon for another look
    assert worker.look()
    assert worker.order == "BA"
    worker.fetching.taken(QUEUES["B"])
    assert worker.order == "A"  # although it is not counted yet
    worker.in_hand = {"A": 2, "B": 1}
    worker.look()
    worker.look()
    assert worker.order == "A"  # one is enough


def test_what_another_worker_took_meanwhile_does_not_knock(
    worker: Worker, send: Callable[[str], None]
) -> None:
    worker.in_hand = {"A": 2}
    send("B")
    worker.look()
    worker.client.delete(QUEUES["B"])
    worker.look()
    assert worker.order == "A"


def test_what_another_worker_has_in_memory_is_left_to_it(
    worker: Worker, send: Callable[[str], None], neighbour: Callable[..., None]
) -> None:
    worker.in_hand = {"A": 2}
    neighbour("B")
    send("B")
    for _ in range(3):
        worker.look()
    assert worker.order == "A"
    worker.in_hand = {}
    assert worker.order == "ABC"  # it is busy: nothing else is to be done here
    worker.fetching.taken(QUEUES["B"])
    assert worker.order == "AC"


def test_who_has_it_in_memory_and_takes_no_jobs_does_not_count(
    worker: Worker, neighbour: Callable[..., None]
) -> None:
    neighbour("B", state="stopping")
    neighbour("C", worker_id="me")  # ourselves
    worker.client.set(broker.heartbeat_key("odd"), b"of another version")
    worker.client.zadd(broker.WORKERS_SET, {"odd": 1.0, "gone": 1.0})
    worker.look()
    assert worker.order == "ABC"
    neighbour("B")
    worker.look()
    assert worker.order == "AC"
    worker.client.delete(broker.heartbeat_key("you"))
    worker.look()
    assert worker.order == "ABC"


def test_a_model_that_cannot_be_loaded_is_not_fetched_for(worker: Worker) -> None:
    worker.failing = ("B",)
    assert worker.order == "AC"
    worker.in_hand = {"B": 1}
    assert worker.order == "A"


def test_with_all_in_memory_nobody_looks(worker: Worker) -> None:
    worker.serving = ("A", "B", "C")
    worker.client.close()
    worker.fetching.look(None)  # type: ignore[arg-type]
    assert worker.order == "ABC"


def test_models_in_memory_take_turns(worker: Worker) -> None:
    worker.serving = ("A", "B", "C")
    cycle = Cycle(worker.fetching)
    cycle.update(worker.fetching.queues)
    asked = []
    for _ in range(7):
        first = cycle.consume(3)[0]
        asked.append(first)
        cycle.rotate(first)
    assert asked == [QUEUES[model_id] for model_id in "ABCABCA"]
    assert cycle.rotate("sdq.model.gone") == "sdq.model.gone"


def test_one_model_in_each_of_two_workers_stays_there(
    client: "redis.Redis", send: Callable[[str], None], neighbour: Callable[..., None]
) -> None:
    """Both have work: neither brings in what the other one has."""
    me, you = Worker(client, "me"), Worker(client, "you")
    me.in_hand, you.in_hand, you.serving = {"A": 2}, {"B": 2}, ("B",)
    neighbour("A", "me", "drawing")
    neighbour("B", "you", "drawing")
    for model_id in "AB":
        send(model_id)
    for worker in (me, you) * 4:
        worker.look()
    assert (me.order, you.order) == ("A", "B")
