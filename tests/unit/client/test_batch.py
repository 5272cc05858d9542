"""Many pictures, a few at a time: order, bounds, failures, leaving."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing

import msgspec
import pytest

from sdq import Client
from sdq.client import Done
from sdq.errors import ConnectionFailed, GenerationFailed, InvalidSpec, UsageError
from sdq.protocol.job_messages import Attach
from sdq.protocol.messages import Cancel, ClientMessage, Failure, Generate
from sdq.spec import SpecDraft
from sdq.testing.scripted_jobs import ScriptedJobs
from sdq.testing.transport import (
    LIMITS,
    ScriptedPeer,
    ScriptedServer,
    hits,
    pictures_of,
    stays_silent,
)

Served = Callable[..., AbstractAsyncContextManager[tuple[ScriptedServer, ScriptedJobs, Client]]]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - there is nothing to be woken by
            await asyncio.sleep(0.01)


async def all_of(client: Client, items: object, **options: object) -> list[Done]:
    return [done async for done in client.batch(items, **options)]


async def test_each_item_ends_with_its_picture() -> None:
    items = ["a red circle", SpecDraft("a star", seed=7), {"prompt": "a square", "size": (64, 32)}]
    async with ScriptedServer(hits()) as server, await Client.connect(server.address) as client:
        ends = await all_of(client, items, num_inference_steps=5, seed=1, width=128)
    ends.sort(key=lambda done: done.index)
    assert [done.item for done in ends] == items
    assert all(done.error is None for done in ends)
    specs = [done.picture.spec for done in ends if done.picture]
    assert [spec.prompt for spec in specs] == ["a red circle", "a star", "a square"]
    assert [spec.seed for spec in specs] == [1, 7, 1]  # what an item says goes before
    assert [spec.width for spec in specs] == [128, 128, 64]
    assert {spec.num_inference_steps for spec in specs} == {5}


class Holds:
    """A server that answers when it is let."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[ScriptedPeer, Generate]] = {}
        self.most = 0
        self._changed = asyncio.Event()

    async def handle(self, peer: ScriptedPeer, message: ClientMessage) -> None:
        if isinstance(message, Generate):
            self.held[message.draft.prompt] = (peer, message)
            self.most = max(self.most, len(self.held))
            self._changed.set()

    async def until(self, *prompts: str) -> None:
        async with asyncio.timeout(10):
            while not self.held.keys() >= set(prompts):
                self._changed.clear()
                await self._changed.wait()

    def let(self, prompt: str) -> None:
        peer, message = self.held.pop(prompt)
        peer.send(pictures_of(message)[0])


async def test_they_come_in_the_order_of_completion_and_the_input_waits_for_room() -> None:
    taken: list[str] = []

    def prompts() -> Iterator[str]:
        for name in "abcde":
            taken.append(name)
            yield name

    holds = Holds()
    async with (
        ScriptedServer(holds.handle) as server,
        await Client.connect(server.address) as client,
        aclosing(client.batch(prompts(), jobs=2)) as ends,
    ):
        order = []
        first = asyncio.create_task(anext(ends))
        for waits, ready in ((("a", "b"), "b"), (("a", "c"), "c"), (("a", "d"), "a")):
            await holds.until(*waits)
            assert len(taken) == len(order) + 2  # nothing is taken ahead
            holds.let(ready)
            order.append((await first).item)
            first = asyncio.create_task(anext(ends))
        await holds.until("d", "e")
        holds.let("e")
        order.append((await first).item)
        holds.let("d")
        order += [done.item async for done in ends]
    assert order == ["b", "c", "a", "e", "d"]
    assert holds.most == 2


async def test_a_reader_that_stops_holds_the_input_up() -> None:
    taken = 0

    def prompts() -> Iterator[str]:
        nonlocal taken
        while True:  # without end
            taken += 1
            yield f"picture {taken}"

    async with (
        ScriptedServer(hits()) as server,
        await Client.connect(server.address) as client,
        aclosing(client.batch(prompts(), jobs=3)) as ends,
    ):
        for read in range(1, 6):
            await anext(ends)
            await client.generate("another")  # by then all was begun that would be
            assert taken <= read + 3


async def test_an_input_that_comes_slowly_keeps_nobody_waiting() -> None:
    more: asyncio.Queue[str | None] = asyncio.Queue()

    async def prompts() -> AsyncIterator[str]:
        while prompt := await more.get():
            yield prompt

    async with ScriptedServer(hits()) as server, await Client.connect(server.address) as client:
        ends = client.batch(prompts())
        for prompt in ("first", "second"):
            more.put_nowait(prompt)
            async with asyncio.timeout(10):
                assert (await anext(ends)).item == prompt
        more.put_nowait(None)
        assert [done async for done in ends] == []


async def test_an_item_that_fails_stops_nobody() -> None:
    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        assert isinstance(message, Generate)
        if message.draft.prompt == "bad":
            peer.send(Failure(message.request_id, 0, 0, "generation_failed", "no such luck"))
        else:
            peer.send(pictures_of(message)[0])

    items = ["good", "bad", "", 7, {"seed": 3}, {"prompt": "x", "sede": 3}, "fine"]
    async with ScriptedServer(handle) as server, await Client.connect(server.address) as client:
        ends = await all_of(client, items)
    errors = {done.index: done.error for done in ends}
    assert {place for place, error in errors.items() if error is None} == {0, 6}
    assert isinstance(errors[1], GenerationFailed)
    assert all(isinstance(errors[place], InvalidSpec) for place in (2, 3, 4, 5))
    assert "'sede'" in str(errors[5])
    assert all((done.picture is None) == (done.error is not None) for done in ends)


@pytest.mark.parametrize("way", ["aclose", "cancel"])
async def test_leaving_early_cancels_what_is_under_way(way: str) -> None:
    async with (
        ScriptedServer(stays_silent()) as server,
        await Client.connect(server.address) as client,
    ):
        ends = client.batch((f"picture {number}" for number in range(100)), jobs=3)
        reader = asyncio.create_task(anext(ends))
        await server.heard_enough(lambda: len(server.heard_of(Generate)) == 3)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        if way == "aclose":
            await ends.aclose()
        targets = {message.target for message in server.heard_of(Cancel)}
        assert targets == {message.request_id for message in server.heard_of(Generate)}
        assert len(targets) == 3


async def test_what_the_input_raises_ends_the_batch() -> None:
    def prompts() -> Iterator[str]:
        yield "one"
        raise ValueError("line 2 is torn")

    async with ScriptedServer(hits()) as server, await Client.connect(server.address) as client:
        with pytest.raises(ValueError, match="torn"):
            await all_of(client, prompts())
        assert await all_of(client, []) == []


async def test_a_restart_of_the_server_is_not_noticed(served: Served) -> None:
    async with served() as (server, table, client):
        ends = client.batch(["one", "two", "three"], jobs=2)
        first = asyncio.create_task(anext(ends))
        await until(lambda: table.waiting == 2)
        await server.stop()
        await server.start()
        await until(lambda: bool(server.heard_of(Attach)) and table.waiting == 2)
        table.finish()
        done = [await first]
        await until(lambda: len(table.jobs) == 3)
        table.finish()
        async with asyncio.timeout(10):
            done += [one async for one in ends]
    assert sorted(one.item for one in done) == ["one", "three", "two"]
    assert [one.error for one in done] == [None] * 3
    assert set(table.drawn.values()) == {1}


async def test_when_the_server_is_gone_for_good_all_items_say_so(served: Served) -> None:
    async with served(reconnect_seconds=0) as (server, table, client):
        ends = client.batch(["one", "two", "three"], jobs=2)
        first = asyncio.create_task(anext(ends))
        await until(lambda: table.waiting == 2)
        await server.stop()
        async with asyncio.timeout(10):
            errors = [(await first).error] + [one.error async for one in ends]
    assert len(errors) == 3
    assert all(isinstance(error, ConnectionFailed) for error in errors)


async def test_jobs_are_bounded_by_the_server_and_from_below() -> None:
    limits = msgspec.structs.replace(LIMITS, max_requests_in_flight=3)
    async with (
        ScriptedServer(hits(), limits=limits) as server,
        await Client.connect(server.address) as client,
    ):
        ends = await all_of(client, [f"picture {number}" for number in range(20)], jobs=100)
        assert [done.error for done in ends] == [None] * 20
        with pytest.raises(UsageError, match="jobs is 0"):
            await all_of(client, ["x"], jobs=0)
