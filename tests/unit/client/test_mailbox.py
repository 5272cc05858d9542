"""The queue of one request: bounded, and never behind with the news."""

import asyncio

import pytest

from sdq.client.mailbox import MAX_WAITING_REPLIES, Mailbox
from sdq.errors import ConnectionFailed
from sdq.protocol.messages import CancelReply, Progress
from sdq.protocol.states import JobState


def step(number: int, index: int = 0) -> Progress:
    return Progress(1, index, "job", JobState.RUNNING, step=number, steps=1_000_000)


async def test_only_the_newest_progress_of_a_picture_waits() -> None:
    mailbox = Mailbox()
    for number in range(10_000):
        await mailbox.put(step(number))
        await mailbox.put(step(number, index=1))
    assert await mailbox.get() == step(9_999)
    assert await mailbox.get() == step(9_999, index=1)


async def test_a_full_mailbox_holds_the_connection_up() -> None:
    mailbox = Mailbox()
    for number in range(MAX_WAITING_REPLIES):
        await mailbox.put(CancelReply(number, 0, 0))
    late = asyncio.create_task(mailbox.put(CancelReply(9_999, 0, 0)))
    await asyncio.sleep(0)
    assert not late.done()
    await mailbox.get()
    await asyncio.wait_for(late, 5)


async def test_an_abandoned_mailbox_holds_nothing_up() -> None:
    mailbox = Mailbox()
    for number in range(MAX_WAITING_REPLIES):
        await mailbox.put(CancelReply(number, 0, 0))
    late = asyncio.create_task(mailbox.put(CancelReply(9_999, 0, 0)))
    await asyncio.sleep(0)
    mailbox.abandon()
    await asyncio.wait_for(late, 5)


async def test_what_arrived_before_a_failure_is_still_delivered() -> None:
    mailbox = Mailbox()
    await mailbox.put(CancelReply(1, 0, 0))
    mailbox.fail(ConnectionFailed("gone"))
    assert await mailbox.get() == CancelReply(1, 0, 0)
    with pytest.raises(ConnectionFailed, match="gone"):
        await mailbox.get()
