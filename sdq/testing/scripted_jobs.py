"""Jobs that outlive connections, for a `ScriptedServer`: a test says when each one ends.

::

    table = ScriptedJobs()
    async with ScriptedServer(table.handle) as server:
        ...
        table.finish("job0")
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from sdq.protocol.job_messages import (
    Attach,
    CancelJobs,
    JobInfo,
    Jobs,
    JobsCancelled,
    ListJobs,
    PlannedPicture,
    Submit,
    Submitted,
)
from sdq.protocol.messages import (
    Accepted,
    CachePolicy,
    ClientMessage,
    ErrorReply,
    Failure,
    Generate,
    Origin,
    Picture,
    Progress,
)
from sdq.protocol.states import JobState
from sdq.protocol.vocabulary import Priority
from sdq.spec import ImageSpec, SpecDraft, key_of
from sdq.testing.transport import FINGERPRINT, ScriptedPeer, drawn, resolved


@dataclass
class ScriptedJob:
    job_id: str
    spec: ImageSpec
    state: JobState = JobState.RUNNING
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def key(self) -> str:
        return key_of(self.spec, FINGERPRINT)


class ScriptedJobs:
    """The table and the library of a server that may die. ``drawn`` counts pictures by prompt
    and seed; ids are ``job0``, ``job1`` … in the order of asking."""

    def __init__(self) -> None:
        self.jobs: dict[str, ScriptedJob] = {}
        self.library: set[str] = set()
        self.drawn: Counter[str] = Counter()
        self.waiting = 0  # for the end of a job, over all connections
        self._count = 0

    def finish(self, *job_ids: str, state: JobState = JobState.SUCCEEDED) -> None:
        """These jobs end; without ids all that have not ended."""
        for job in [self.jobs[job_id] for job_id in job_ids] or list(self.jobs.values()):
            if job.ended.is_set():
                continue
            job.state = state
            if state is JobState.SUCCEEDED:
                self.drawn[job.key] += 1
                self.library.add(job.key)
            job.ended.set()

    def forget(self) -> None:
        """The table is lost; the library is not."""
        self.jobs.clear()

    async def handle(self, peer: ScriptedPeer, message: ClientMessage) -> None:
        """Answers what is about jobs, and refuses all else."""
        match message:
            case Generate():
                await self._generate(peer, message)
            case Attach():
                known = [(i, self.jobs.get(job_id)) for i, job_id in enumerate(message.job_ids)]
                await self._wait(peer, message.request_id, known, is_attach=True)
            case Submit():
                planned = self.plan(message.draft, message.first_index, message.count)
                peer.send(Submitted(message.request_id, tuple(planned)))
            case CancelJobs():
                peer.send(self._cancel(message))
            case ListJobs():
                peer.send(self._list(message))
            case _:
                request_id = getattr(message, "request_id", None)
                peer.send(ErrorReply(request_id, "error", "not in this script"))

    async def _generate(self, peer: ScriptedPeer, message: Generate) -> None:
        again = message.cache in (CachePolicy.REFRESH, CachePolicy.OFF)
        planned = self.plan(message.draft, message.first_index, message.count, again=again)
        if any(item.cache is not Origin.HIT for item in planned):
            bare = [
                PlannedPicture(item.index, item.key, item.spec, item.cache, None)
                if item.cache is Origin.HIT
                else item
                for item in planned
            ]
            peer.send(Accepted(message.request_id, tuple(bare)))
        waited = [(item.index, self.jobs[item.job_id or ""]) for item in planned]
        await self._wait(peer, message.request_id, waited)

    def plan(
        self, draft: SpecDraft, first_index: int = 0, count: int = 1, *, again: bool = False
    ) -> list[PlannedPicture]:
        """Jobs for these pictures, as `Submit` makes them. ``again``: whatever the library has."""
        planned = []
        for index in range(first_index, first_index + count):
            spec = resolved(draft, index)
            under_way = [
                job for job in self.jobs.values() if job.spec == spec and not job.ended.is_set()
            ]
            job = under_way[0] if under_way else self._new_job(spec)
            origin = Origin.JOINED if under_way else Origin.MADE
            if job.key in self.library and not again and not under_way:
                job.state, origin = JobState.SUCCEEDED, Origin.HIT
                job.ended.set()
            planned.append(PlannedPicture(index, job.key, spec, origin, job.job_id))
        return planned

    def _new_job(self, spec: ImageSpec) -> ScriptedJob:
        job = ScriptedJob(f"job{self._count}", spec)
        self._count += 1
        self.jobs[job.job_id] = job
        return job

    async def _wait(
        self,
        peer: ScriptedPeer,
        request_id: int,
        jobs: Sequence[tuple[int, ScriptedJob | None]],
        *,
        is_attach: bool = False,
    ) -> None:
        remaining = len(jobs)

        async def one(index: int, job: ScriptedJob | None) -> None:
            nonlocal remaining
            origin = Origin.MADE
            if is_attach and job is not None:
                origin = Origin.HIT if job.ended.is_set() else Origin.JOINED
            if job is not None and not job.ended.is_set():
                peer.send(
                    Progress(
                        request_id, index, job.job_id, job.state, step=1, steps=20, eta_seconds=4.0
                    )
                )
                self.waiting += 1
                try:
                    await job.ended.wait()
                finally:
                    self.waiting -= 1
            remaining -= 1
            if job is None:
                peer.send(Failure(request_id, index, remaining, "unknown_job", "no such job"))
            elif job.state is not JobState.SUCCEEDED:
                peer.send(Failure(request_id, index, remaining, job.state.value, "it was stopped"))
            else:
                made = Picture(
                    request_id, index, remaining, job.key, job.spec, origin, 0.5,
                    drawn(job.spec),
                )  # fmt: skip
                peer.send(made)

        async with asyncio.TaskGroup() as group:
            for index, job in jobs:
                group.create_task(one(index, job))

    def _cancel(self, message: CancelJobs) -> JobsCancelled:
        wanted = list(self.jobs) if message.all_mine else list(message.job_ids)
        known = [self.jobs[job_id] for job_id in wanted if job_id in self.jobs]
        alive = [job.job_id for job in known if not job.ended.is_set()]
        if alive:
            self.finish(*alive, state=JobState.CANCELLED)
        unknown = tuple(job_id for job_id in wanted if job_id not in self.jobs)
        ended = len(known) - len(alive)
        return JobsCancelled(message.request_id, len(alive), ended=ended, unknown=unknown)

    def _list(self, message: ListJobs) -> Jobs:
        shown = [job for job in self.jobs.values() if message.ended or not job.ended.is_set()]
        newest = [_info(job) for job in reversed(shown)]
        more = max(0, len(newest) - message.limit)
        return Jobs(message.request_id, tuple(newest[: message.limit]), more)


def _info(job: ScriptedJob) -> JobInfo:
    is_running = job.state is JobState.RUNNING
    return JobInfo(
        job_id=job.job_id,
        key=job.key,
        spec=job.spec,
        state=job.state,
        is_mine=True,
        priority=Priority.NORMAL,
        created_seconds_ago=3.0,
        changed_seconds_ago=1.0,
        attempt=1,
        worker_id="w1",
        step=1 if is_running else 0,
        eta_seconds=12.0 if is_running else None,
        draw_seconds=0.5 if job.state is JobState.SUCCEEDED else None,
    )
