"""The queue of one request: bounded, never behind with the news, and no hindrance to others."""

import asyncio
import tempfile

import msgspec
import pytest

from sdq.client.mailbox import MAX_WAITING_REPLIES, Budget, Mailbox
from sdq.errors import ConnectionFailed, OutputError, ProtocolError, ServerBusy
from sdq.protocol.constants import MAX_PREVIEW_BYTES
from sdq.protocol.messages import CancelReply, Generate, Picture, Progress
from sdq.protocol.states import JobState
from sdq.spec import SpecDraft
from sdq.testing.transport import pictures_of


def step(number: int, index: int = 0, request_id: int = 1) -> Progress:
    return Progress(request_id, index, "job", JobState.RUNNING, step=number, steps=1_000_000)


def pictures(count: int) -> list[Picture]:
    return pictures_of(Generate(1, SpecDraft(prompt="x"), count=count))


async def test_only_the_newest_progress_of_a_picture_waits() -> None:
    mailbox = Mailbox()
    for number in range(10_000):
        mailbox.put(step(number))
        mailbox.put(step(number, index=1))
        mailbox.put(step(number, request_id=2))
    assert await mailbox.get() == step(9_999)
    assert await mailbox.get() == step(9_999, index=1)
    assert await mailbox.get() == step(9_999, request_id=2)


async def test_the_newest_preview_waits_with_the_newest_step() -> None:
    mailbox = Mailbox()
    mailbox.put(msgspec.structs.replace(step(1), preview=b"old"))
    mailbox.put(msgspec.structs.replace(step(2), preview=b"new"))
    mailbox.put(step(3))
    assert await mailbox.get() == msgspec.structs.replace(step(3), preview=b"new")
    mailbox.put(step(4))
    assert await mailbox.get() == step(4)


async def test_a_preview_that_is_too_large_is_left_out() -> None:
    mailbox = Mailbox()
    mailbox.put(msgspec.structs.replace(step(1), preview=bytes(MAX_PREVIEW_BYTES + 1)))
    assert await mailbox.get() == step(1)


async def test_what_arrived_before_a_failure_is_still_delivered() -> None:
    mailbox = Mailbox()
    mailbox.put(CancelReply(1, 0, 0))
    mailbox.fail(ConnectionFailed("gone"))
    assert await mailbox.get() == CancelReply(1, 0, 0)
    with pytest.raises(ConnectionFailed, match="gone"):
        await mailbox.get()


async def test_far_too_many_replies_end_the_request() -> None:
    mailbox = Mailbox()
    for number in range(MAX_WAITING_REPLIES + 100):
        mailbox.put(CancelReply(number, 0, 0))
    for _ in range(MAX_WAITING_REPLIES + 1):
        await mailbox.get()
    with pytest.raises(ProtocolError, match="more than was asked"):
        await asyncio.wait_for(mailbox.get(), 5)


async def test_pictures_over_the_memory_wait_in_a_file_and_come_in_order() -> None:
    sent = pictures(6)
    one = max(len(picture.image) for picture in sent)
    budget = Budget(2 * one)
    mailbox = Mailbox(budget)
    for picture in sent[:4]:
        mailbox.put(picture)
    assert not budget.take(one)  # the memory is full, and two of them are elsewhere
    assert [await mailbox.get() for _ in range(3)] == sent[:3]
    for picture in sent[4:]:
        mailbox.put(picture)
    assert [await mailbox.get() for _ in range(3)] == sent[3:]
    assert budget.take(2 * one)  # all of it was given back
    mailbox.close()


async def test_a_closed_mailbox_gives_its_memory_back_and_drops_the_rest() -> None:
    sent = pictures(3)
    size = sum(len(picture.image) for picture in sent)
    budget = Budget(size)
    mailbox = Mailbox(budget)
    for picture in sent:
        mailbox.put(picture)
    mailbox.close()
    mailbox.put(sent[0])
    assert budget.take(size)


async def test_a_full_file_ends_this_request_only() -> None:
    sent = pictures(3)
    mailbox = Mailbox(Budget(0), max_file_bytes=len(sent[0].image))
    for picture in sent:
        mailbox.put(picture)
    assert await mailbox.get() == sent[0]
    with pytest.raises(ServerBusy, match="not read as fast"):
        await mailbox.get()
    mailbox.close()


async def test_no_place_for_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    mailbox = Mailbox(Budget(0))
    mailbox.put(pictures(1)[0])
    with pytest.raises(OutputError, match="No space left") as caught:
        await mailbox.get()
    assert caught.value.hint
