"""The first news: with the reason, and never after more recent news."""

from pathlib import Path

from sdq.errors import StackError
from sdq.protocol.messages import Accepted, Generate, Origin, Picture, Progress
from sdq.protocol.states import JobState
from sdq.server.queue.subscriptions import Request
from sdq.server.queue.waiting import Why
from sdq.server.requests.announcing import Announcer
from sdq.spec import SpecDraft
from sdq.testing.orders import order
from sdq.testing.rig import ListeningPeer, open_rig


class Slow:
    """Explains, and something happens meanwhile."""

    def __init__(self, meanwhile=lambda: None) -> None:
        self.meanwhile = meanwhile

    async def explain(self, jobs):
        self.meanwhile()
        return {job.job_id: Why(3, 12.5, "3 ahead") for job in jobs}


class Broken:
    async def explain(self, jobs):
        raise StackError("the disk does not answer")


async def test_place_time_and_reason_are_in_the_first_news(tmp_path: Path):
    async with open_rig(tmp_path) as rig:
        ((job, _),) = await rig.table.add([order(1)])
        peer = ListeningPeer()
        waiting = rig.subscriptions.add(Request(1, peer, remaining=1), 0, job, Origin.MADE)
        await Announcer(Slow(), {}).announce([(waiting, job)])
        (news,) = peer.all(Progress)
        assert (news.state, news.ahead, news.eta_seconds, news.note) == (
            *(JobState.QUEUED, 3, 12.5, "3 ahead"),
        )


async def test_what_was_told_or_ended_meanwhile_is_not_told_as_it_was(tmp_path: Path):
    async with open_rig(tmp_path) as rig:
        added = await rig.table.add([order(1), order(2)])
        peer = ListeningPeer()
        request = Request(1, peer, remaining=2)
        awaited = [
            (rig.subscriptions.add(request, index, job, Origin.MADE), job)
            for index, (job, _) in enumerate(added)
        ]

        def meanwhile() -> None:
            awaited[0][0].progress(JobState.RUNNING, step=4)
            rig.subscriptions.deliver(awaited[1][1], b"png", 0.5)

        await Announcer(Slow(meanwhile), {}).announce(awaited)
        assert [(news.state, news.step) for news in peer.all(Progress)] == [(JobState.RUNNING, 4)]
        assert len(peer.all(Picture)) == 1


async def test_a_disk_that_cannot_say_why_costs_no_request(tmp_path: Path):
    async with open_rig(tmp_path) as rig:
        rig.generation._announcer._waiting = Broken()
        peer = ListeningPeer()
        await rig.generate(peer, Generate(1, SpecDraft("a cat")))
        assert [type(message) for message in peer.told] == [Accepted, Progress]


async def test_a_running_job_comes_with_its_step(tmp_path: Path):
    async with open_rig(tmp_path) as rig:
        ((job, _),) = await rig.table.add([order(1)])
        await rig.turns.dispatch_next(job.spec.model, 1)
        running = await rig.table.move(job.job_id, JobState.RUNNING, worker_id="worker-1")
        assert running is not None
        peer = ListeningPeer()
        waiting = rig.subscriptions.add(Request(1, peer, remaining=1), 0, running, Origin.JOINED)
        await Announcer(Slow(), {job.job_id: 7}).announce([(waiting, running)])
        assert [(news.state, news.step) for news in peer.all(Progress)] == [(JobState.RUNNING, 7)]
