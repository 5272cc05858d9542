"""Jobs through the socket: handed in, attached to from elsewhere, taken back, drained."""

from asyncio import to_thread
from contextlib import AsyncExitStack
from typing import Any

import pytest

from sdq.config import Settings
from sdq.server.server import Server
from sdq.testing.handwork import HandWorker
from sdq.testing.raw import RawClient
from sdq.testing.rig import png

ME, YOU = "127.0.0.1", "127.0.0.2"


class House:
    """A server that can be started again, and its clients."""

    def __init__(self, settings: Settings, redis_url: str, held: AsyncExitStack) -> None:
        self.settings, self.redis_url, self.held = settings, redis_url, held

    async def open(self) -> None:
        self.server = await Server.start(self.settings, redis_url=self.redis_url)
        self.held.push_async_callback(self.server.close)

    async def client(self, address: str = ME) -> RawClient:
        client = await RawClient.greeted(self.server.port, address=address)
        self.held.push_async_callback(client.close)
        return client


@pytest.fixture
async def house(settings: Settings, redis_url: str):
    async with AsyncExitStack() as held:
        house = House(settings, redis_url, held)
        await house.open()
        yield house


def asking(kind: str, prompt: str = "a cat", *, count: int = 1, **others: Any) -> dict[str, Any]:
    return {"type": kind, "request_id": 1, "draft": {"prompt": prompt}, "count": count} | others


async def submit(client: RawClient, prompt: str = "a cat", count: int = 1) -> list[str]:
    submitted = await client.ask(asking("submit", prompt, count=count), "submitted")
    return [picture["job_id"] for picture in submitted["pictures"]]


def attach(client: RawClient, *job_ids: str) -> None:
    client.send({"type": "attach", "request_id": 2, "job_ids": list(job_ids)})


async def cancel(client: RawClient, *job_ids: str, all_mine: bool = False) -> tuple[int, ...]:
    message = {"type": "canceljobs", "request_id": 3, "job_ids": list(job_ids)}
    reply = await client.ask(message | {"all_mine": all_mine}, "jobscancelled")
    return tuple(reply[name] for name in ("cancelled", "kept", "ended", "foreign"))


async def test_handed_in_here_and_fetched_from_elsewhere(house: House, worker: HandWorker):
    worker.beat()
    mine = await house.client(ME)
    (job_id,) = await submit(mine)
    await mine.close()
    yours = await house.client(YOU)
    attach(yours, job_id)
    accepted = await yours.read()
    assert (accepted["type"], accepted["pictures"][0]["job_id"]) == ("accepted", job_id)
    task = await to_thread(worker.take)
    await to_thread(worker.begin, task)
    await to_thread(worker.step, task, 5)
    while (news := await yours.read_until("progress"))["step"] != 5:
        pass
    assert (news["job_id"], news["state"]) == (job_id, "running")
    await to_thread(worker.deliver, task, png())
    picture = await yours.read_until("picture")
    assert (picture["index"], picture["remaining"], picture["image"]) == (0, 0, png())
    late = await house.client(YOU)
    attach(late, job_id)
    assert (await late.read())["cache"] == "hit"


async def test_cancelling_mine_does_not_cancel_yours(house: House, worker: HandWorker):
    mine, yours = await house.client(ME), await house.client(YOU)
    (job_id,) = await submit(mine)
    yours.send(asking("generate"))
    accepted = await yours.read()
    assert (accepted["pictures"][0]["cache"], accepted["pictures"][0]["job_id"]) == (
        *("joined", job_id),
    )
    assert await cancel(mine, job_id) == (0, 1, 0, 0)
    assert await cancel(mine, job_id) == (0, 0, 0, 1)
    worker.beat()
    await to_thread(lambda: worker.deliver(worker.take(), png()))
    assert (await yours.read_until("picture"))["image"] == png()


async def test_ctrl_c_in_one_of_two_equal_requests_keeps_the_other(
    house: House, worker: HandWorker
):
    first, second = await house.client(), await house.client()
    first.send(asking("generate"))
    await first.read_until("accepted")
    second.send(asking("generate"))
    await second.read_until("accepted")
    reply = await first.ask({"type": "cancel", "request_id": 9, "target": 1}, "cancelreply")
    assert (reply["cancelled"], reply["kept"]) == (0, 1)
    worker.beat()
    await to_thread(lambda: worker.deliver(worker.take(), png()))
    assert (await second.read_until("picture"))["image"] == png()


async def test_a_queued_one_never_touches_the_running_one(
    house: House, worker: HandWorker, eventually
):
    worker.beat()
    client = await house.client()
    running, *queued = await submit(client, count=6)
    task = await to_thread(worker.take)
    await to_thread(worker.begin, task)

    async def is_running() -> bool:
        jobs = await client.ask({"type": "listjobs", "request_id": 8, "mine": True}, "jobs")
        return [job["job_id"] for job in jobs["jobs"] if job["state"] == "running"] == [running]

    await eventually(is_running)
    attach(client, running)
    await client.read_until("accepted")
    assert await cancel(client, *queued) == (5, 0, 0, 0)
    assert not await to_thread(worker.is_cancelled, task)
    await to_thread(worker.deliver, task, png())
    assert (await client.read_until("picture"))["image"] == png()


async def test_all_of_mine_stops_what_is_drawn_and_who_waits_is_told(
    house: House, worker: HandWorker, eventually
):
    worker.beat()
    client, other = await house.client(), await house.client(YOU)
    client.send(asking("generate", count=3))
    await client.read_until("accepted")
    task = await to_thread(worker.take)
    await to_thread(worker.begin, task)
    attach(other, task.job_id)
    await other.read_until("accepted")
    mine, yours = await house.client(), await house.client(YOU)
    assert await cancel(mine, all_mine=True) == (2, 1, 0, 0)
    failures = [await client.read_until("failure") for _ in range(3)]
    assert {failure["code"] for failure in failures} == {"cancelled"}
    assert failures[-1]["remaining"] == 0
    assert await cancel(yours, task.job_id) == (1, 0, 0, 0)
    assert (await other.read_until("failure"))["code"] == "cancelled"
    await eventually(lambda: to_thread(worker.is_cancelled, task))


async def test_a_client_that_vanishes_takes_only_what_would_not_be_kept_with_it(
    house: House, worker: HandWorker, eventually
):
    worker.beat()
    lost = await house.client()
    lost.send(asking("generate", cache="off"))
    await lost.read_until("accepted")
    task = await to_thread(worker.take)
    await to_thread(worker.begin, task)
    lost.writer.transport.abort()
    await eventually(lambda: to_thread(worker.is_cancelled, task))


async def test_a_server_that_is_started_again_has_the_jobs_to_attach_to(
    house: House, worker: HandWorker
):
    worker.beat()
    mine = await house.client()
    mine.send(asking("generate", count=3))
    accepted = await mine.read_until("accepted")
    job_ids = [picture["job_id"] for picture in accepted["pictures"]]
    task = await to_thread(worker.take)
    await to_thread(worker.begin, task)
    await house.server.close()
    assert (await mine.read_until("errorreply"))["code"] == "leaving"
    assert await mine.is_closed()
    await to_thread(worker.deliver, task, png())  # while the server is away
    worker.beat()
    await house.open()
    again = await house.client(YOU)
    attach(again, *job_ids, "forgotten")
    early = [await again.read_until("picture", "failure") for _ in range(2)]  # in any order
    codes = {one["index"]: one.get("code", "") for one in early}
    assert codes == {job_ids.index(task.job_id): "", 3: "unknown_job"}
    for _ in range(2):
        await to_thread(lambda: worker.deliver(worker.take(), png()))
    late = [await again.read_until("picture") for _ in range(2)]
    assert sorted([*codes, *(one["index"] for one in late)]) == [0, 1, 2, 3]
    assert late[-1]["remaining"] == 0


async def test_a_worker_is_asked_to_drain(house: House, worker: HandWorker):
    worker.beat()
    client = await house.client()
    message = {"type": "drainworker", "request_id": 5, "worker_id": "nobody"}
    refused = await client.ask(message, "draining")
    assert refused["code"] == "unknown_worker"

    async def drain() -> dict[str, Any]:
        return await client.ask(message | {"worker_id": worker.worker_id}, "draining")

    while (reply := await drain())["type"] == "errorreply":
        pass  # its first heartbeat has not been read yet
    assert (reply["worker_id"], reply["active"]) == (worker.worker_id, 0)
    assert await to_thread(worker.is_asked_to_drain)


async def test_what_cannot_be_done_is_said(house: House):
    client = await house.client()
    refused = await client.ask(asking("submit", cache="off"), "submitted")
    assert (refused["code"], refused["request_id"]) == ("usage", 1)
    refused = await client.ask(asking("submit", cache="only"), "submitted")
    assert refused["code"] == "not_in_library"
    refused = await client.ask(asking("submit", count=101), "submitted")
    assert refused["code"] == "invalid_spec"
    attach(client)
    assert (await client.read())["code"] == "invalid_message"


async def test_a_request_that_goes_on_after_a_loss_takes_back_no_more_than_it_wanted(
    house: House, worker: HandWorker
):
    lost, other = await house.client(), await house.client()
    lost.send(asking("generate"))
    accepted = await lost.read_until("accepted")
    job_id = accepted["pictures"][0]["job_id"]
    other.send(asking("generate"))
    await other.read_until("accepted")
    lost.writer.transport.abort()
    again = await house.client()
    again.send({"type": "attach", "request_id": 2, "job_ids": [job_id], "resumes": True})
    await again.read_until("accepted")
    reply = await again.ask({"type": "cancel", "request_id": 9, "target": 2}, "cancelreply")
    assert (reply["cancelled"], reply["kept"]) == (0, 1)
    reply = await other.ask({"type": "cancel", "request_id": 9, "target": 1}, "cancelreply")
    assert (reply["cancelled"], reply["kept"]) == (1, 0)
