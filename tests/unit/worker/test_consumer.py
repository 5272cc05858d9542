"""The Celery worker's settings; that it works is shown by the integration tests."""

from typing import Any

import pytest
from celery.app.trace import reset_worker_optimizations
from celery.worker import state

from sdq.broker import DRAW_TASK
from sdq.worker import consumer


def do_nothing(*_arguments: object) -> None:
    """Stands where the job runner is."""


@pytest.fixture
def controller(free_port: int) -> Any:
    built = consumer.build(
        f"redis://127.0.0.1:{free_port}/0",
        ["sdq.model.shapes"],
        do_nothing,
        concurrency=3,
        name="worker",
        on_ready=lambda: None,
    )
    yield built
    state.should_stop = None
    reset_worker_optimizations(built.app)


def test_it_takes_one_queue_and_hides_nothing(controller: Any) -> None:
    assert list(controller.app.amqp.queues.consume_from) == ["sdq.model.shapes"]
    assert controller.app.conf.worker_disable_prefetch
    assert not controller.app.conf.task_acks_late
    assert not controller.app.conf.worker_enable_remote_control
    assert controller.concurrency == 3
    assert DRAW_TASK in controller.app.tasks


def test_stopping_is_asked_for_by_celerys_own_flag(controller: Any) -> None:
    assert state.should_stop is None
    consumer.stop(controller)
    assert state.should_stop == 0


def test_the_end_of_a_task_wakes_the_loop() -> None:
    woken: list[Any] = []

    class Loop:
        def call_soon(self, call: Any) -> None:
            woken.append(call)

    pool = consumer.WakingPool(limit=1)
    pool.register_with_event_loop(Loop())
    pool.on_start()
    pool.on_apply(lambda: None, callback=lambda _: None).wait()
    pool.on_stop()
    assert len(woken) == 1
