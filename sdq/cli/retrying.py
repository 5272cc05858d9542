"""``--retry``: asking again for what failed for a reason that may pass."""

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack

from sdq.cli.output import Sink, as_duration, plain
from sdq.client.client import Client
from sdq.client.connecting import connect
from sdq.client.losses import may_pass
from sdq.config import ClientSettings
from sdq.errors import (
    Cancelled,
    ConnectionFailed,
    GenerationFailed,
    NobodyCanDoIt,
    SdqError,
    ServerBusy,
)

FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 30.0


def passes(error: SdqError) -> bool:
    """Whether the same request may well succeed a moment later."""
    return isinstance(error, GenerationFailed | ServerBusy | NobodyCanDoIt) and not isinstance(
        error, Cancelled
    )


async def pause(attempt: int) -> None:
    """Before the ``attempt``-th time again (from 1): twice as long each time."""
    await asyncio.sleep(pause_seconds(attempt))


def pause_seconds(attempt: int) -> float:
    """0.5, 1, 2 … 30 s."""
    return min(FIRST_PAUSE_SECONDS * 2.0 ** min(attempt - 1, 16), MAX_PAUSE_SECONDS)


async def connected(
    stack: AsyncExitStack, settings: ClientSettings, retries: int, sink: Sink
) -> Client:
    """A connection that ends with ``stack``. A server that is not there is looked for again, so
    many times. Raises what `connect` raises."""
    attempt = 0
    while True:
        try:
            return await stack.enter_async_context(
                connect(settings.server, reconnect_seconds=settings.reconnect_seconds)
            )
        except ConnectionFailed as error:
            attempt += 1
            if attempt > retries or not may_pass(error):
                raise
            tell_again(sink, error.message, attempt)
            await pause(attempt)


def tell_again(sink: Sink, what: str, attempt: int) -> None:
    """The line that says why it takes longer."""
    seconds = as_duration(pause_seconds(attempt))
    sink.say(f"{plain(what)}; asking again in {seconds}")


def runs_of(indices: Iterable[int]) -> list[tuple[int, int]]:
    """Neighbouring indices as (first, how many)."""
    runs: list[tuple[int, int]] = []
    for index in sorted(indices):
        if runs and sum(runs[-1]) == index:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((index, 1))
    return runs
