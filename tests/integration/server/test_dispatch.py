"""The dispatcher and a real Redis."""

from sdq.broker import queue_of
from sdq.protocol.states import JobState
from sdq.server.dispatch import CeleryDispatcher
from sdq.server.jobs import Job
from sdq.server.redis_link import connect
from sdq.spec import ImageSpec

SPEC = ImageSpec("a cat", "", "shapes", 64, 64, 20, 4.0, "ddim", 1)


def dispatched(job_id: str) -> Job:
    return Job(
        job_id=job_id,
        key="a" * 64,
        spec=SPEC,
        fingerprint="f" * 64,
        state=JobState.DISPATCHED,
        attempt=1,
        keep=True,
        identity="me",
        created_at=0.0,
        dispatched_at=0.0,
        changed_at=None,
        worker_id=None,
        error_code="",
        error_message="",
        draw_seconds=None,
    )


QUEUE = queue_of(SPEC.model, "f" * 64)


async def test_what_waits_in_a_queue_is_known_by_its_jobs(redis_url: str):
    redis = connect(redis_url)
    dispatcher = CeleryDispatcher(redis, redis_url, "server1")
    try:
        await dispatcher.send([dispatched("job1"), dispatched("job2")])
        await redis.lpush(QUEUE, b"not from us", b'{"headers": []}')
        assert await dispatcher.waiting(QUEUE) == {"job1", "job2", ""}
        assert await dispatcher.waiting("another") == set()
    finally:
        await dispatcher.close()
        await redis.aclose()
