"""Jobs to workers: Celery tasks by name, one queue a model, and the flags that stop them."""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, cast

from celery import Celery
from kombu.exceptions import OperationalError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from sdq.broker import (
    CANCEL_FLAG_SECONDS,
    DRAIN_FLAG_SECONDS,
    DRAW_TASK,
    PREVIEW_FLAG_SECONDS,
    DrawTask,
    cancel_flag,
    drain_flag,
    make_app,
    preview_flag,
    queue_of,
    to_argument,
)
from sdq.errors import StackError
from sdq.protocol.model import ModelFile
from sdq.server.queue.job import Job

SEND_TIMEOUT_SECONDS = 5.0
"""A Redis that is stopped keeps its connections: without this, `close` would wait for ever."""

_RAISE_FLAG = """
local before = redis.call('GET', KEYS[1])
if not before or tonumber(before) < tonumber(ARGV[1]) then
    redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
end
"""
"""A cancel flag only ever rises: a cancel that comes while a job is being sent stays in force."""


class RedisGone(StackError):
    """Redis does not answer. Nothing is lost: the jobs stay in the table."""

    code = "redis_gone"


class Dispatcher(Protocol):
    """What the scheduler needs; ``sdq.testing.dispatch`` has one in memory."""

    async def send(self, jobs: Sequence[Job]) -> None:
        """Hands jobs to the workers' queues; their earlier attempts stop, wherever they are.

        Raises `RedisGone`; some may then have arrived. Sent again with a higher attempt, those
        are harmless: their flag stops them.
        """

    async def stop(self, jobs: Sequence[Job]) -> None:
        """Asks workers to drop these jobs, up to their present attempts, between two steps.

        Raises `RedisGone`.
        """

    async def stop_earlier(self, jobs: Sequence[Job]) -> None:
        """Asks workers to drop the attempts before these jobs' present ones. Raises `RedisGone`."""

    async def show(self, job_ids: Sequence[str]) -> None:
        """Asks workers for previews of these jobs, for the next `PREVIEW_FLAG_SECONDS`.

        Raises `RedisGone`.
        """

    async def drain(self, worker_id: str) -> None:
        """Asks a worker to finish what it has begun, hand the rest back and end.

        Raises `RedisGone`.
        """

    async def waiting(self, queue: str) -> set[str]:
        """The ids of the jobs in a queue that no worker has taken yet. Raises `RedisGone`."""

    async def close(self) -> None: ...


LoraFiles = Callable[[Iterable[str]], Sequence[ModelFile]]
"""From hashes to the files that the catalog names now."""


def _no_loras(sha256s: Iterable[str]) -> tuple[ModelFile, ...]:
    return ()


class CeleryDispatcher:
    """The real one. Celery's producer blocks, so one thread of its own does the sending."""

    def __init__(
        self,
        redis: "Redis",
        redis_url: str,
        server_id: str,
        lora_files: LoraFiles = _no_loras,
    ) -> None:
        self._redis = redis
        self._app: Celery = make_app(redis_url)
        self._app.conf.broker_transport_options |= {
            "max_retries": 0,  # else it tries for 6 s; the scheduler tries again by itself
            "socket_timeout": SEND_TIMEOUT_SECONDS,
        }
        self._server_id = server_id
        self._lora_files = lora_files
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="celery-producer")

    async def send(self, jobs: Sequence[Job]) -> None:
        await self.stop_earlier(jobs)
        tasks = [self._task(job) for job in jobs]
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._send_all, tasks)
        except (OperationalError, RedisError, OSError) as error:
            raise RedisGone(f"Redis does not take tasks: {error}") from error

    async def stop(self, jobs: Sequence[Job]) -> None:
        await self._raise_flags({job.job_id: job.attempt for job in jobs})

    async def stop_earlier(self, jobs: Sequence[Job]) -> None:
        await self._raise_flags({job.job_id: job.attempt - 1 for job in jobs})

    async def _raise_flags(self, attempts: Mapping[str, int]) -> None:
        """Attempts up to these stop; before the first there is nothing to be stopped."""
        flags = {cancel_flag(job_id): last for job_id, last in attempts.items() if last > 0}
        if not flags:
            return
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for flag, last in flags.items():
                    pipe.eval(_RAISE_FLAG, 1, flag, last, CANCEL_FLAG_SECONDS)
                await pipe.execute()
        except (RedisError, OSError) as error:
            raise RedisGone(f"Redis does not answer: {error}") from error

    async def show(self, job_ids: Sequence[str]) -> None:
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for job_id in job_ids:
                    pipe.set(preview_flag(job_id), b"1", ex=PREVIEW_FLAG_SECONDS)
                await pipe.execute()
        except (RedisError, OSError) as error:
            raise RedisGone(f"Redis does not answer: {error}") from error

    async def drain(self, worker_id: str) -> None:
        try:
            await self._redis.set(drain_flag(worker_id), b"1", ex=DRAIN_FLAG_SECONDS)
        except (RedisError, OSError) as error:
            raise RedisGone(f"Redis does not answer: {error}") from error

    async def waiting(self, queue: str) -> set[str]:
        try:
            messages = cast("list[bytes]", await self._redis.lrange(queue, 0, -1))
        except (RedisError, OSError) as error:
            raise RedisGone(f"Redis does not answer: {error}") from error
        return {_job_id(message) for message in messages}

    async def close(self) -> None:
        """Waits for the sending thread. Safe to call twice."""
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)
        self._app.close()

    def _task(self, job: Job) -> DrawTask:
        return DrawTask(
            job_id=job.job_id,
            attempt=job.attempt,
            server_id=self._server_id,
            spec=job.spec,
            key=job.key,
            fingerprint=job.fingerprint,
            loras=tuple(self._lora_files(lora.sha256 for lora in job.spec.loras)),
        )

    def _send_all(self, tasks: Sequence[DrawTask]) -> None:
        with self._app.producer_or_acquire() as producer:
            for task in tasks:
                self._app.send_task(
                    DRAW_TASK,
                    args=[to_argument(task)],
                    task_id=_task_id(task),
                    queue=queue_of(task.spec.model, task.fingerprint),
                    ignore_result=True,
                    retry=False,
                    producer=producer,
                )


def _task_id(task: DrawTask) -> str:
    return f"{task.job_id}.{task.attempt}"


def _job_id(message: bytes) -> str:
    """The job of a Celery message in its queue; empty when somebody else put it there."""
    try:
        return str(json.loads(message)["headers"]["id"]).partition(".")[0]
    except (ValueError, LookupError, TypeError):
        return ""
