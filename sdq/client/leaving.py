"""Takes a request back that is left before its last picture."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from sdq.client.connection import Line
from sdq.protocol.messages import Cancel, CancelReply

CANCEL_TIMEOUT_SECONDS = 1.0
"""How long leaving a request waits for the server's word that it is cancelled."""


async def take_back(line: Line, targets: Sequence[int]) -> CancelReply | None:
    """Ends requests of this line. What became of their jobs, all together.

    Sends it for sure, waits for the answers a little; ``None`` when they did not all come.
    Raises `ConnectionFailed`.
    """
    mailbox = line.new_mailbox()
    asked: list[int] = []
    try:
        asked.extend(line.begin(_cancel(target), mailbox, is_free=True) for target in targets)
        cancelled, kept = 0, 0
        with suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_TIMEOUT_SECONDS):
                for _ in asked:
                    reply = await mailbox.get()
                    if isinstance(reply, CancelReply):
                        cancelled, kept = cancelled + reply.cancelled, kept + reply.kept
                return CancelReply(targets[0], cancelled, kept)
        return None
    finally:
        for request_id in asked:
            line.forget(request_id)
        mailbox.close()


def _cancel(target: int) -> Callable[[int], Cancel]:
    return lambda request_id: Cancel(request_id=request_id, target=target)
