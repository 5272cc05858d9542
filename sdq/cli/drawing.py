"""What `sdq generate` does once its flags are understood: ask, wait, write, report."""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

import msgspec

from sdq.cli.files import Named, Outputs
from sdq.cli.output import Sink, as_duration
from sdq.cli.progress import display_for
from sdq.cli.prompts import read_prompts
from sdq.client.client import Client
from sdq.errors import (
    ConnectionFailed,
    DeadlinePassed,
    OutputError,
    SdqError,
    UsageError,
    from_code,
)
from sdq.protocol.messages import Accepted, CachePolicy, Failure, Origin, Picture, Progress
from sdq.spec import SpecDraft

MAX_REQUESTS_AT_ONCE = 8
"""Requests under way when prompts come from standard input."""


@dataclass(frozen=True)
class Order:
    """What was asked for. ``prompt`` ``None``: each line of standard input."""

    prompt: str | None
    draft: SpecDraft  # its prompt does not count
    new: bool  # a random seed for each prompt
    count: int
    cache: CachePolicy
    wait: bool
    timeout_seconds: float | None

    def draft_of(self, prompt: str) -> SpecDraft:
        seed = random_seed() if self.new else self.draft.seed
        return msgspec.structs.replace(self.draft, prompt=prompt, seed=seed)


def random_seed() -> int:
    """A seed that nobody can foresee."""
    from secrets import randbits

    return randbits(32)


@dataclass
class Tally:
    """How it went, over all requests."""

    asked: int = 0
    written: int = 0
    errors: list[SdqError] = field(default_factory=list)
    failed: int = 0

    def fail(self, error: SdqError, pictures: int = 1) -> None:
        self.failed += pictures
        if len(self.errors) < MAX_REQUESTS_AT_ONCE:
            self.errors.append(error)

    @property
    def exit_code(self) -> int:
        """0, the code that all failures share, or 1 when some pictures were made."""
        codes = {error.exit_code for error in self.errors}
        if not codes:
            return 0
        return codes.pop() if len(codes) == 1 and not self.written else 1


@dataclass(frozen=True)
class _Request:
    """One prompt's request under way."""

    prompt: str
    first_n: int
    about: str  # the place of the prompt, for errors; empty for the only one
    begun: float


async def draw(server: str, order: Order, outputs: Outputs, sink: Sink) -> int:
    """Runs an order to its end; the exit code. Cancelling it cancels its requests.

    Raises what ends everything: `ConnectionFailed`, `DeadlinePassed`, `OutputError`.
    """
    try:
        async with asyncio.timeout(order.timeout_seconds) as deadline:
            async with await Client.connect(server) as client:
                return await _Drawing(client, order, outputs, sink).run()
    except TimeoutError:
        if not deadline.expired():
            raise
        raise DeadlinePassed(
            f"not done within {order.timeout_seconds:g} s: the request was cancelled",
            hint="allow more with --timeout; `sdq status` shows the queue",
        ) from None


class _Drawing:
    """One run of an order over an open connection."""

    def __init__(self, client: Client, order: Order, outputs: Outputs, sink: Sink) -> None:
        self._client = client
        self._order = order
        self._outputs = outputs
        self._sink = sink
        self._display = display_for(sink)
        self._tally = Tally()

    async def run(self) -> int:
        try:
            if self._order.prompt is not None:
                await self._request(self._order.prompt, 1, "")
            else:
                await self._request_lines()
        except asyncio.CancelledError:
            self._display.close()
            self._say_what_is_left()
            raise
        finally:
            self._display.close()
        if self._tally.failed and self._tally.written:
            self._sink.say(f"{self._tally.written} written, {self._tally.failed} failed")
        return self._tally.exit_code

    def _say_what_is_left(self) -> None:
        written, asked = self._tally.written, self._tally.asked
        self._sink.say(f"cancelled: {written} of {asked} written" if asked else "cancelled")

    async def _request_lines(self) -> None:
        """A request for each line of standard input, a few at once."""
        if sys.stdin.isatty():
            self._sink.say("one prompt a line, Ctrl-D ends")
        places = asyncio.Semaphore(MAX_REQUESTS_AT_ONCE)
        try:
            async with asyncio.TaskGroup() as group, aclosing(_numbered_prompts()) as prompts:
                first_n = 1
                async for number, prompt in prompts:
                    await places.acquire()
                    about = f"line {number}"
                    task = group.create_task(self._request(prompt, first_n, about))
                    task.add_done_callback(lambda _: places.release())
                    first_n += self._order.count
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        if not self._tally.asked:
            raise UsageError(
                "there is no prompt on standard input",
                hint="with `-` as PROMPT, standard input holds one prompt a line",
            )

    async def _request(self, prompt: str, first_n: int, about: str) -> None:
        """One request from beginning to end. What concerns only it is reported and counted."""
        draft = self._order.draft_of(prompt)
        request = _Request(prompt, first_n, about, time.monotonic())
        count = self._order.count
        self._tally.asked += count
        left = set(range(count))
        try:
            self._outputs.refuse_existing(draft, count, first_n)
            news = self._client.generate(
                draft, count=count, cache=self._order.cache, wait=self._order.wait
            )
            await self._follow(request, news, left)
        except (ConnectionFailed, OutputError):
            raise
        except SdqError as error:
            self._tally.fail(error, len(left))
            self._sink.error(error, about=about)
        finally:
            for index in left:
                self._display.gone(first_n + index)

    async def _follow(
        self,
        request: _Request,
        news: AsyncGenerator[Accepted | Progress | Picture | Failure, None],
        left: set[int],
    ) -> None:
        async with aclosing(news):
            async for item in news:
                if isinstance(item, Accepted):
                    self._accepted(request, item)
                elif isinstance(item, Progress):
                    self._display.show(request.first_n + item.index, request.prompt, item)
                else:
                    left.discard(item.index)
                    self._display.gone(request.first_n + item.index)
                    self._finished(request, item)

    def _accepted(self, request: _Request, accepted: Accepted) -> None:
        awaited = [item for item in accepted.pictures if item.cache is not Origin.HIT]
        self._outputs.refuse_planned(
            Named(request.first_n, item.index, item.spec, item.key) for item in awaited
        )
        for item in awaited:
            self._display.show(request.first_n + item.index, request.prompt, None)

    def _finished(self, request: _Request, item: Picture | Failure) -> None:
        if isinstance(item, Failure):
            error = from_code(item.code, item.message, item.hint)
            self._tally.fail(error)
            number = f"picture {request.first_n + item.index}" if self._order.count > 1 else ""
            about = ", ".join(part for part in (request.about, number) if part)
            self._sink.error(error, about=about)
            return
        named = Named(request.first_n, item.index, item.spec, item.key)
        path = self._outputs.write(named, item.image)
        self._tally.written += 1
        self._report(item, None if path is None else str(path), time.monotonic() - request.begun)

    def _report(self, picture: Picture, path: str | None, seconds: float) -> None:
        if self._sink.as_json:
            self._sink.record(
                {
                    "path": path,
                    "key": picture.key,
                    "seed": picture.spec.seed,
                    "cache": picture.cache.value,
                    "seconds": round(seconds, 3),
                    "spec": msgspec.to_builtins(picture.spec),
                }
            )
            return
        origin = {
            Origin.HIT: "from the library",
            Origin.MADE: f"made in {as_duration(seconds)}",
            Origin.JOINED: f"made for somebody else too, in {as_duration(seconds)}",
        }[picture.cache]
        details = f"{origin}  seed {picture.spec.seed}  key {picture.key[:8]}"
        if path is None:
            self._sink.say(details)
        else:
            self._sink.path(path, details)


def _numbered_prompts() -> AsyncGenerator[tuple[int, str], None]:
    return read_prompts(sys.stdin.fileno())


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first plain exception in a group."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
