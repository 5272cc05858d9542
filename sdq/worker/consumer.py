"""The Celery worker around a task: a threads pool, one queue a model, and nothing else of Celery.

No gossip, mingle, Celery heartbeat, events or remote control: our own heartbeat tells more,
and each of them would be another connection. Two things differ from Celery's own classes:

- Nothing is prefetched, so a full worker asks Redis for nothing, and Celery would only look
  again when its loop wakes for another reason, up to a second later. `WakingPool` wakes it
  (40 jobs that cost nothing, two at a time: 3 ms each with it, 300 ms without).
- After a cut Celery waits 2, 4, 6 … 30 seconds between tries. `QuickConsumer` waits at most
  `RECONNECT_SECONDS`, and leaves it to the heartbeat to speak of it.

A line that was cut without a word (a host without power, a firewall that forgot us) is noticed
after two to three times `ANSWER_SECONDS`; Celery's own choice is to wait for ever.
"""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from celery import Celery
from celery.app.trace import setup_worker_optimizations
from celery.concurrency.thread import TaskPool
from celery.worker import WorkController, state
from celery.worker.consumer import Consumer

from sdq.broker import DRAW_TASK, make_app

RECONNECT_SECONDS = 1.0

ANSWER_SECONDS = 3.0
"""A Redis that owes an answer for so long is taken for gone, and we connect anew."""


class WakingPool(TaskPool):
    """Celery's thread pool; each end of a task wakes the loop that fetches the next one."""

    _hub: Any = None

    def register_with_event_loop(self, loop: Any) -> None:
        self._hub = loop

    def on_apply(self, *args: Any, **options: Any) -> Any:
        result = super().on_apply(*args, **options)
        result.f.add_done_callback(self._wake)
        return result

    def _wake(self, _future: "Future[Any]") -> None:
        if self._hub is not None:
            self._hub.call_soon(_nothing)


class QuickConsumer(Consumer):
    """Celery's consumer with short, silent waits between tries to connect."""

    def ensure_connected(self, conn: Any) -> Any:
        conn.ensure_connection(
            None,
            None,
            interval_start=RECONNECT_SECONDS / 5,
            interval_step=RECONNECT_SECONDS / 5,
            interval_max=RECONNECT_SECONDS,
            callback=state.maybe_shutdown,
        )
        self.first_connection_attempt = False
        return conn


def build(
    redis_url: str,
    queues: list[str],
    run: Callable[..., None],
    *,
    concurrency: int,
    name: str,
    on_ready: Callable[[], None],
    cycle: Callable[[], Any] | None = None,
) -> WorkController:
    """A Celery worker that hands each task to ``run`` in one of ``concurrency`` threads.

    Its ``start`` blocks until `stop`. One a process: Celery's state is the process's. ``cycle``
    makes what says which queues are asked next, as kombu's cycles; else all take turns.
    """
    app = _app(redis_url)
    if cycle is not None:
        app.conf.broker_transport_options["queue_order_strategy"] = cycle
    app.task(name=DRAW_TASK, ignore_result=True, typing=False)(run)
    state.should_stop = state.should_terminate = None
    hostname = f"sdq@{name}"
    setup_worker_optimizations(app, hostname)  # the pool's threads find this app, and no other
    return WorkController(
        app=app,
        hostname=hostname,
        queues=queues,
        concurrency=concurrency,
        pool_cls=WakingPool,
        consumer_cls=QuickConsumer,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        ready_callback=lambda _consumer: on_ready(),
    )


def _app(redis_url: str) -> Celery:
    """The app of both sides, with a worker's own settings."""
    app = make_app(redis_url)
    app.conf.update(
        broker_transport_options={
            **app.conf.broker_transport_options,
            "socket_timeout": ANSWER_SECONDS,
            "health_check_interval": ANSWER_SECONDS,
        },
        worker_consumer=QuickConsumer,
        worker_enable_remote_control=False,
        worker_soft_shutdown_timeout=0.0,
    )
    return app


def stop(controller: WorkController) -> None:
    """Makes ``controller.start`` fetch nothing more, wait for its tasks and return.

    From a thread of its own: not from the one that runs the loop, nor from a signal handler.
    """
    state.should_stop = 0
    wake(controller)


def wake(controller: WorkController) -> None:
    """Makes the loop look again which queues are to be asked. From any thread."""
    hub = getattr(controller, "hub", None)
    if hub is not None:
        hub.call_soon(_nothing)


def _nothing() -> None:
    """Waking the loop is all that is wanted."""
