"""What a worker says to the server that asked: events and progress, through Redis streams."""

import logging
import socket
import threading
import time
from typing import Any, NamedTuple, cast

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from sdq.broker import (
    EVENT_FIELD,
    EVENT_STREAM_ENTRIES,
    PROGRESS_STREAM_ENTRIES,
    Stepped,
    WorkerEvent,
    cancel_flag,
    events_stream,
    pack,
    preview_flag,
    progress_stream,
)
from sdq.errors import UsageError

AWAY_PATIENCE_SECONDS = 900.0
"""How long a picture that is ready waits for a Redis that is away: without it there is nothing
else to do."""

REFUSED_PATIENCE_SECONDS = 60.0
"""How long it waits for a Redis that answers, but refuses it (full, or read-only)."""

STOPPING_PATIENCE_SECONDS = 5.0
"""The same, once the worker has been told to stop at once."""

ANSWER_TIMEOUT_SECONDS = 5.0
"""How long a small command and its answer may take."""

LARGE_BYTES = 128 * 1024
LARGE_TIMEOUT_SECONDS = 60.0
"""How long a large event, a picture, may be on its way: some workers have a slow line."""

UNHEARD_MILLISECONDS = 10_000
"""A Redis whose host does not even acknowledge what we send is gone, slow line or not."""

AWAY_PAUSE_SECONDS = 1.0
"""No small news and no look at cancel flags for so long after Redis failed to answer."""

_FIRST_WAIT_SECONDS = 0.05
_LONGEST_WAIT_SECONDS = 2.0

_log = logging.getLogger(__name__)


def connect(
    redis_url: str,
    *,
    max_connections: int = 64,
    answer_timeout_seconds: float = ANSWER_TIMEOUT_SECONDS,
) -> "redis.Redis":
    """A client of Redis; connects when first used, and again after a cut."""
    try:
        return redis.Redis.from_url(
            redis_url,
            max_connections=max_connections,
            socket_connect_timeout=2.0,
            socket_timeout=answer_timeout_seconds,
            socket_keepalive=True,
            socket_keepalive_options=_quick_to_notice(),
            health_check_interval=30,
            retry=Retry(ExponentialBackoff(cap=0.2, base=0.02), 2),
        )
    except ValueError as error:
        raise UsageError(
            f"the address of Redis is not usable: {error}",
            hint="it looks like redis://:password@host:6379/0",
        ) from error


def _quick_to_notice() -> dict[int, int]:
    """Options of TCP where the system has them: what is sent must be received in time."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    return {option: UNHEARD_MILLISECONDS} if option is not None else {}


def forget_idle(client: "redis.Redis") -> None:
    """Closes the connections that nobody uses now; the next command opens a new one."""
    client.connection_pool.disconnect(inuse_connections=False)


class Flags(NamedTuple):
    """What the server says of a job under way."""

    is_cancelled: bool  # this attempt of it
    wants_preview: bool


class Delivery:
    """Writes events. Safe to use from several threads.

    ``patient``: a client that waits longer, for what is large; without it ``client`` does all.
    """

    def __init__(
        self,
        client: "redis.Redis",
        *,
        patient: "redis.Redis | None" = None,
        away_patience_seconds: float = AWAY_PATIENCE_SECONDS,
        refused_patience_seconds: float = REFUSED_PATIENCE_SECONDS,
    ) -> None:
        self._client = client
        self._patient = patient or client
        self._away_patience_seconds = away_patience_seconds
        self._refused_patience_seconds = refused_patience_seconds
        self._hurry = threading.Event()
        self._away_until = 0.0

    def hurry(self) -> None:
        """From now on nothing waits longer than `STOPPING_PATIENCE_SECONDS`."""
        self._hurry.set()

    def announce(self, server_id: str, event: WorkerEvent) -> bool:
        """One try: news that the server can do without. False: Redis did not take it."""
        if time.monotonic() < self._away_until:
            return False
        try:
            self._add(server_id, event)
        except redis.RedisError:
            self._away_until = time.monotonic() + AWAY_PAUSE_SECONDS
            return False
        return True

    def deliver(self, server_id: str, event: WorkerEvent) -> bool:
        """Tries until Redis has the event, within the patience above. False: given up.

        After a cut the event may be there twice; servers take the first.
        """
        began, wait_seconds = time.monotonic(), _FIRST_WAIT_SECONDS
        while True:
            try:
                self._add(server_id, event)
                return True
            except redis.RedisError as error:
                left = self._left_seconds(began, error)
                if left <= 0:
                    _log.error("job %s: given up, Redis did not take it: %s", event.job_id, error)
                    return False
            if not self._hurry.is_set():
                self._hurry.wait(min(wait_seconds, left))
            else:
                time.sleep(min(wait_seconds, left))
            wait_seconds = min(wait_seconds * 2, _LONGEST_WAIT_SECONDS)

    def report(self, server_id: str, event: Stepped) -> None:
        """Progress: lost when Redis is away."""
        if time.monotonic() < self._away_until:
            return
        try:
            self._client.xadd(
                progress_stream(server_id),
                {EVENT_FIELD: pack(event)},
                maxlen=PROGRESS_STREAM_ENTRIES,
                approximate=True,
            )
        except redis.RedisError:
            self._away_until = time.monotonic() + AWAY_PAUSE_SECONDS

    def flags(self, job_id: str, attempt: int) -> Flags:
        """Both in one round trip. Neither is set when Redis cannot say."""
        if time.monotonic() < self._away_until:
            return Flags(False, False)
        try:
            found = self._client.mget(cancel_flag(job_id), preview_flag(job_id))
        except redis.RedisError:
            self._away_until = time.monotonic() + AWAY_PAUSE_SECONDS
            return Flags(False, False)
        cancel, preview = cast("list[Any]", found)
        return Flags(cancel is not None and _stops(cancel, attempt), preview is not None)

    def _add(self, server_id: str, event: WorkerEvent) -> None:
        data, client = pack(event), self._client
        if len(data) > LARGE_BYTES:
            client = self._patient
            forget_idle(client)  # a line that was cut meanwhile would cost all the patience
        client.xadd(
            events_stream(server_id),
            {EVENT_FIELD: data},
            maxlen=EVENT_STREAM_ENTRIES,
            approximate=True,
        )

    def _left_seconds(self, began: float, error: redis.RedisError) -> float:
        is_away = isinstance(error, redis.ConnectionError | redis.TimeoutError)
        patience = self._away_patience_seconds if is_away else self._refused_patience_seconds
        if self._hurry.is_set():
            patience = min(patience, STOPPING_PATIENCE_SECONDS)
        return patience - (time.monotonic() - began)


def _stops(flag: object, attempt: int) -> bool:
    """Whether a cancel flag speaks of this attempt. What is no number speaks of all."""
    try:
        return int(flag) >= attempt  # type: ignore[call-overload,no-any-return]
    except (TypeError, ValueError):
        return True
