"""What `sdq generate` does once its flags are understood: ask, wait, write, report."""

import asyncio
import sys
from contextlib import AsyncExitStack, aclosing

from sdq.cli.deadline import deadline
from sdq.cli.files import Outputs
from sdq.cli.order import Order
from sdq.cli.output import Sink
from sdq.cli.prompts import prompts_of
from sdq.cli.receiving import Receiving, Request
from sdq.cli.retrying import connected, passes, pause, runs_of, tell_again
from sdq.cli.running import first_of
from sdq.client.client import Client
from sdq.config import ClientSettings
from sdq.errors import ConnectionFailed, OutputError, SdqError
from sdq.spec import SpecDraft

MAX_REQUESTS_AT_ONCE = 8
"""Requests under way when prompts come from standard input."""


async def draw(settings: ClientSettings, order: Order, outputs: Outputs, sink: Sink) -> int:
    """Runs an order to its end; the exit code. Cancelling it cancels its requests.

    Raises what ends everything: `ConnectionFailed`, `DeadlinePassed`, `OutputError`.
    """
    receiving = Receiving(outputs, sink, order.showing)

    def left() -> str:
        goes_on = receiving.tally.what_was_left
        return f"cancelled, {goes_on}" if goes_on else "the request was cancelled"

    hint = "allow more with --timeout; `sdq status` shows the queue"
    async with (
        deadline(order.timeout_seconds, left=left, hint=hint),
        AsyncExitStack() as stack,
    ):
        client = await connected(stack, settings, order.retries, sink)
        return await _Drawing(client, order, outputs, sink, receiving).run()


class _Drawing:
    """One run of an order over an open connection."""

    def __init__(
        self, client: Client, order: Order, outputs: Outputs, sink: Sink, receiving: Receiving
    ) -> None:
        self._client = client
        self._order = order
        self._outputs = outputs
        self._sink = sink
        self._receiving = receiving
        self._tally = receiving.tally

    async def run(self) -> int:
        try:
            await self._request_all()
        except asyncio.CancelledError:
            self._receiving.close()
            self._say_what_is_left()
            raise
        finally:
            self._receiving.close()
        return self._receiving.end()

    def _say_what_is_left(self) -> None:
        tally = self._tally
        parts = [f"{tally.written} of {tally.asked} written"] if tally.asked else []
        parts += [tally.what_was_left] if tally.what_was_left else []
        self._sink.say("cancelled" + (": " + ", ".join(parts) if parts else ""))

    async def _request_all(self) -> None:
        """A request for each prompt, a few at once."""
        order = self._order
        if order.prompt is None and sys.stdin.isatty():
            self._sink.say("one prompt a line, Ctrl-D ends")
        places = asyncio.Semaphore(MAX_REQUESTS_AT_ONCE)
        try:
            async with (
                asyncio.TaskGroup() as group,
                aclosing(prompts_of(order.prompt, order.expansion)) as prompts,
            ):
                first_n = 1
                async for about, prompt in prompts:
                    await places.acquire()
                    task = group.create_task(self._request(prompt, first_n, about))
                    task.add_done_callback(lambda _: places.release())
                    first_n += order.count
        except BaseExceptionGroup as errors:
            raise first_of(errors) from None
        if order.expansion.hint:
            self._sink.say(order.expansion.hint)

    async def _request(self, prompt: str, first_n: int, about: str) -> None:
        """One request from beginning to end. What concerns only it is reported and counted."""
        order = self._order
        draft = order.draft_of(prompt)
        request = Request(first_n, order.count, prompt, about, retries=order.retries)
        self._tally.asked += order.count
        try:
            self._outputs.refuse_existing(draft, order.count, first_n)
            while request.left:
                for first_index, count in runs_of(request.left):
                    await self._follow(request, draft, first_index, count)
                if request.again:
                    await pause(request.attempt)
                    request.attempt += 1
                    request.left, request.again = request.again, set()
        except (ConnectionFailed, OutputError):
            raise
        except SdqError as error:
            self._tally.fail(error, len(request.left | request.again))
            self._sink.error(error, about=about)

    async def _follow(self, request: Request, draft: SpecDraft, first_index: int, n: int) -> None:
        """Neighbouring pictures of a request; those that may be asked for again are noted."""
        order = self._order
        news = self._client.watch(
            draft,
            count=n,
            first_index=first_index,
            cache=order.cache,
            wait=order.wait,
            priority=order.priority,
            preview=self._receiving.wants_preview,
            when_left=self._tally.left,
        )
        try:
            await self._receiving.follow(request, news)
        except (ConnectionFailed, OutputError):
            raise
        except SdqError as error:
            if request.attempt > request.retries or not passes(error):
                raise
            tell_again(self._sink, error.message, request.attempt)
            mine = request.left.intersection(range(first_index, first_index + n))
            request.again |= mine
            request.left -= mine
