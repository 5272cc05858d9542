"""The worker's heartbeat: what it says of itself in Redis, every two seconds."""

import contextlib
import logging
import threading
from collections.abc import Callable

import redis

from sdq.broker import (
    HEARTBEAT_INTERVAL_SECONDS,
    HEARTBEAT_TIMEOUT_SECONDS,
    WORKERS_SET,
    Heartbeat,
    drain_flag,
    heartbeat_key,
    pack,
)
from sdq.worker.delivery import forget_idle

AWAY_INTERVAL_SECONDS = 0.5
"""Between two tries while Redis is away: the server gives no jobs to whom it does not hear."""

_log = logging.getLogger(__name__)


class HeartbeatThread:
    """Owns the thread. Survives a Redis that is away: says so once, and once when it is back.

    ``on_drain`` is called in that thread, once, when this worker's drain flag stands. A flag from
    before the first heartbeat was meant for an earlier process of the same name; it is removed.
    ``look`` is called after each heartbeat; what else there is to be read in Redis.
    """

    def __init__(
        self,
        client: "redis.Redis",
        worker_id: str,
        describe: Callable[[], Heartbeat],
        *,
        on_drain: Callable[[], None] = lambda: None,
        look: Callable[[], None] = lambda: None,
        interval_seconds: float = HEARTBEAT_INTERVAL_SECONDS,
    ) -> None:
        self._client = client
        self._worker_id = worker_id
        self._describe = describe
        self._on_drain = on_drain
        self._look = look
        self._interval_seconds = interval_seconds
        self._is_known = False
        self._is_drained = False
        self._news = threading.Event()
        self._stopping = threading.Event()
        self._away = False
        self._thread = threading.Thread(target=self._run, name="sdq-heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def beat_soon(self) -> None:
        """The worker's state has changed: tell it now. Never waits, callable from any thread."""
        self._news.set()

    def stop(self, timeout_seconds: float = 5.0, *, keep_last: bool = False) -> None:
        """Ends the thread and takes the worker off the list; it has no drain flag any more.

        ``keep_last``: the last heartbeat stays until it expires, so that it is read.
        """
        self._stopping.set()
        self._news.set()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)
        if keep_last:
            self._beat()
        # Should Redis be away, the keys expire by themselves.
        with contextlib.suppress(redis.RedisError), self._client.pipeline() as pipe:
            pipe.delete(drain_flag(self._worker_id))
            if not keep_last:
                pipe.delete(heartbeat_key(self._worker_id))
                pipe.zrem(WORKERS_SET, self._worker_id)
            pipe.execute()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._news.clear()
            try:
                self._beat()
            except Exception as error:  # noqa: BLE001 - without it we would count as gone
                _log.error("the heartbeat met a defect and goes on: %r", error)
            wait_seconds = self._interval_seconds
            if self._away:
                wait_seconds = min(wait_seconds, AWAY_INTERVAL_SECONDS)
            self._news.wait(wait_seconds)

    def _beat(self) -> None:
        flag = drain_flag(self._worker_id)
        try:
            # Redis' clock, not ours: a worker whose clock is wrong is still online.
            seconds, microseconds = self._client.time()
            with self._client.pipeline() as pipe:
                expiry_seconds = int(HEARTBEAT_TIMEOUT_SECONDS)
                key = heartbeat_key(self._worker_id)
                pipe.set(key, pack(self._describe()), ex=expiry_seconds)
                pipe.zadd(WORKERS_SET, {self._worker_id: seconds + microseconds / 1e6})
                if self._is_known:
                    pipe.exists(flag)
                else:
                    pipe.delete(flag)
                *_, is_flagged = pipe.execute()
            is_flagged = is_flagged and self._is_known
            self._is_known = True
            self._look()
        except redis.RedisError as error:
            if not self._away:
                _log.warning(_complaint(error))
            self._away = True
            forget_idle(self._client)  # each of them may be dead, and would cost a time-out
        else:
            if self._away:
                _log.info("Redis answers again")
            self._away = False
            if is_flagged and not self._is_drained:
                self._is_drained = True
                self._on_drain()


def _complaint(error: redis.RedisError) -> str:
    if isinstance(error, redis.AuthenticationError):
        return f"Redis refuses us: {error}; run `sdq worker install` to learn its new password"
    return f"Redis does not answer: {error}; waiting for it to come back"
