"""A worker played by hand: takes real tasks from a real Redis, and does what the test says."""

from collections.abc import Sequence
from typing import Any

import msgspec
from kombu.simple import SimpleQueue
from redis import Redis

from sdq.broker import (
    EVENT_FIELD,
    HEARTBEAT_TIMEOUT_SECONDS,
    WORKERS_SET,
    Begun,
    Drawn,
    DrawTask,
    Returned,
    Stepped,
    Stopped,
    WorkerEvent,
    cancel_flag,
    drain_flag,
    events_stream,
    from_argument,
    heartbeat_key,
    make_app,
    pack,
    preview_flag,
    progress_stream,
    queue_of,
)
from sdq.protocol.model import ModelManifest
from sdq.testing.dispatch import heartbeat


class HandWorker:
    """Holds one model. Blocking: call it in a thread from async tests. Close it after use."""

    def __init__(
        self, redis_url: str, manifest: ModelManifest, worker_id: str = "worker-1"
    ) -> None:
        self.worker_id = worker_id
        self._manifest = manifest
        self._redis: Redis = Redis.from_url(redis_url)
        self._connection = make_app(redis_url).connection_for_read()
        self._queue: Any = SimpleQueue(
            self._connection, queue_of(manifest.model_id, manifest.fingerprint), accept=["msgpack"]
        )
        self._beats = 0

    def close(self) -> None:
        self._queue.close()
        self._connection.close()
        self._redis.close()

    def beat(self, *, active: Sequence[str] = (), state: str = "ready", note: str = "") -> None:
        """One heartbeat."""
        self._beats += 1
        beat = heartbeat(
            self._manifest, self.worker_id, active=active, state=state, sent_at=self._beats
        )
        beat = msgspec.structs.replace(beat, note=note)
        name = heartbeat_key(self.worker_id)
        self._redis.set(name, pack(beat), px=int(HEARTBEAT_TIMEOUT_SECONDS * 1000))
        self._redis.zadd(WORKERS_SET, {self.worker_id: self._beats})

    def die(self) -> None:
        """As if its heartbeats had run out."""
        self._redis.delete(heartbeat_key(self.worker_id))

    def take(self, timeout_seconds: float = 10.0) -> DrawTask:
        """The next task, acknowledged at once as real workers do. Raises `queue.Empty`."""
        message = self._queue.get(timeout=timeout_seconds)
        message.ack()
        return from_argument(message.payload[0][0])

    def tell(self, task: DrawTask, event: WorkerEvent) -> None:
        """Appends any event to the stream where it belongs."""
        name = progress_stream if isinstance(event, Stepped) else events_stream
        self._redis.xadd(name(task.server_id), {EVENT_FIELD: pack(event)})

    def begin(self, task: DrawTask) -> None:
        self.tell(task, Begun(task.job_id, task.attempt, self.worker_id))

    def step(self, task: DrawTask, step: int, preview: bytes = b"") -> None:
        steps = task.spec.num_inference_steps
        self.tell(task, Stepped(task.job_id, task.attempt, self.worker_id, step, steps, preview))

    def deliver(self, task: DrawTask, image: bytes) -> None:
        self.tell(task, Drawn(task.job_id, task.attempt, self.worker_id, image, 0.25))

    def give_back(self, task: DrawTask, reason: str = "the worker is draining") -> None:
        self.tell(task, Returned(task.job_id, task.attempt, self.worker_id, reason))

    def stop(self, task: DrawTask) -> None:
        self.tell(task, Stopped(task.job_id, task.attempt, self.worker_id))

    def is_cancelled(self, task: DrawTask) -> bool:
        """As a worker sees it: the flag is the number of the last attempt to stop."""
        flag: Any = self._redis.get(cancel_flag(task.job_id))
        return flag is not None and int(flag) >= task.attempt

    def is_asked_to_show(self, task: DrawTask) -> bool:
        return bool(self._redis.exists(preview_flag(task.job_id)))

    def is_asked_to_drain(self) -> bool:
        return bool(self._redis.exists(drain_flag(self.worker_id)))

    def garbage(self, server_id: str, data: bytes) -> None:
        """Anything at all, as an event."""
        self._redis.xadd(events_stream(server_id), {EVENT_FIELD: data})

    def unread(self, server_id: str) -> int:
        """Events that the server has not committed and deleted yet."""
        return int(self._redis.xlen(events_stream(server_id)))
