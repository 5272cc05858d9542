"""`Client`: the library for scripts, and all that the command line asks of a server."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Unpack

from sdq.client.batch import Batch, Done, ItemT
from sdq.client.checks import check_count, check_draft, check_job_ids, choice_of
from sdq.client.connector import Connector
from sdq.client.drafts import Item, Parameters, draft_of
from sdq.client.news import News
from sdq.client.pictures import Picture
from sdq.client.questions import Questions
from sdq.client.waiting import Waiting, WhenLeft
from sdq.config import split_address
from sdq.errors import DeadlinePassed, ProtocolError, UsageError, from_code
from sdq.protocol import messages
from sdq.protocol.constants import DEFAULT_PORT
from sdq.protocol.job_messages import Submit, Submitted
from sdq.protocol.messages import CachePolicy, Failure, Generate, Welcome
from sdq.protocol.vocabulary import Priority

_SPARE_REQUESTS = 1
"""What a batch leaves of a connection's requests for other questions."""

RECONNECT_SECONDS = 300.0
"""How long a request that waits for pictures looks for a server that was lost."""


class Client(Questions):
    """A connection to a server. Use it in one event loop, from any number of tasks::

        async with connect("gpu-box:7433") as client:
            picture = await client.generate("a red circle", num_inference_steps=20)
            picture.save("circle.webp")

    Every method may raise `ConnectionFailed` and what the server answers as an error
    (`sdq.errors`), and is safe to cancel. When the server is lost, requests that wait for
    pictures look for it and go on; others fail. What is asked later connects anew by itself.
    """

    @classmethod
    async def connect(
        cls,
        address: str = f"127.0.0.1:{DEFAULT_PORT}",
        *,
        connect_timeout_seconds: float = 10,
        reconnect_seconds: float = RECONNECT_SECONDS,
    ) -> "Client":
        """Connects and agrees on a version of the protocol, or fails at once; `connect` knows
        the configured server too.

        ``reconnect_seconds``: how long a server that is lost later is looked for; 0: not at all.
        Raises `UsageError` for what is no address, `ConnectionFailed` when nobody answers,
        `ProtocolMismatch` when an older, newer or foreign server does. Safe to cancel.
        """
        host, port = split_address(address, DEFAULT_PORT)
        connector = await Connector.open(
            host,
            port,
            connect_timeout_seconds=connect_timeout_seconds,
            reconnect_seconds=reconnect_seconds,
        )
        return cls(connector)

    @property
    def welcome(self) -> Welcome:
        """What the server said at the beginning: its version and its limits."""
        return self._connector.line.welcome

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection. Requests under way get `ConnectionFailed`."""
        await self._connector.close()

    # ------------------------------------------------------------ pictures

    async def generate(
        self,
        prompt: Item,
        *,
        index: int = 0,
        cache: CachePolicy | str = CachePolicy.PREFER,
        wait: bool = True,
        priority: Priority | str = Priority.NORMAL,
        timeout_seconds: float | None = None,
        **parameters: Unpack[Parameters],
    ) -> Picture:
        """One picture of a prompt: number ``index`` of those that `pictures` gives.

        ``prompt``: words, a `SpecDraft`, or a mapping with a prompt and parameters.
        ``parameters``: see `Parameters`. ``cache``: ``prefer``, ``only``, ``refresh`` or ``off``.
        ``wait``: without it `NobodyCanDoIt` is raised when no worker online holds the model.
        ``timeout_seconds``: `DeadlinePassed` is raised then, a second later at most.

        Raises why the picture failed: `GenerationFailed`, `NotInLibrary` … Cancelling it
        cancels the request on the server, unless somebody else wants the same picture.
        """
        news = self.pictures(
            prompt, count=1, first_index=index, cache=cache, wait=wait, priority=priority,
            timeout_seconds=timeout_seconds, **parameters,
        )  # fmt: skip
        async with aclosing(news):
            async for picture in news:
                return picture
        raise ProtocolError("the server ended the request without a picture")

    async def pictures(
        self,
        prompt: Item,
        *,
        count: int = 1,
        first_index: int = 0,
        cache: CachePolicy | str = CachePolicy.PREFER,
        wait: bool = True,
        priority: Priority | str = Priority.NORMAL,
        timeout_seconds: float | None = None,
        **parameters: Unpack[Parameters],
    ) -> AsyncGenerator[Picture, None]:
        """``count`` pictures of a prompt (1 to `Limits.max_count`) as they arrive; the rest as in
        `generate`. ``timeout_seconds`` is for all of them.

        Raises the error of the first picture that fails. Leave it early with ``aclose`` (or
        `contextlib.aclosing`): a bare ``break`` cancels only when Python collects it.
        """
        events = self.watch(
            prompt, count=count, first_index=first_index, cache=cache, wait=wait,
            priority=priority, **parameters,
        )  # fmt: skip
        clock = asyncio.get_running_loop().time
        until = None if timeout_seconds is None else clock() + timeout_seconds
        async with aclosing(events):
            while (event := await _next_before(events, until, timeout_seconds)) is not None:
                if isinstance(event, Failure):
                    raise from_code(event.code, event.message, event.hint)
                if isinstance(event, messages.Picture):
                    yield Picture.of(event)

    async def batch(
        self,
        items: Iterable[ItemT] | AsyncIterable[ItemT],
        *,
        jobs: int = 8,
        cache: CachePolicy | str = CachePolicy.PREFER,
        wait: bool = True,
        priority: Priority | str = Priority.NORMAL,
        timeout_seconds: float | None = None,
        **parameters: Unpack[Parameters],
    ) -> AsyncGenerator[Done[ItemT], None]:
        """A picture of each item, as they are finished; ``index`` is the place in the input.

        ``items``: prompts, drafts and mappings as in `generate`, in any number; each is taken when
        there is room for it, in the event loop, so let a plain iterator not block. ``jobs``: how
        many are under way at once (at least 1, at most what the server allows on a connection).
        ``timeout_seconds`` is for each item; ``parameters`` are for all that do not say otherwise.

        An item that fails comes with its error and stops nobody; when the server is gone for good,
        that is all that are left. Raises what ``items`` raises. Leaving early, as in `pictures`,
        cancels what is under way.
        """
        if jobs < 1:
            raise UsageError(f"jobs is {jobs}: it must be 1 or more")

        async def draw(item: ItemT) -> Picture:
            return await self.generate(
                draft_of(item, {}, defaults=parameters),
                cache=cache, wait=wait, priority=priority, timeout_seconds=timeout_seconds,
            )  # fmt: skip

        most = max(1, self.welcome.limits.max_requests_in_flight - _SPARE_REQUESTS)
        async with aclosing(Batch(items, draw, min(jobs, most)).follow()) as ends:
            async for done in ends:
                yield done

    async def watch(
        self,
        prompt: Item,
        *,
        count: int = 1,
        first_index: int = 0,
        cache: CachePolicy | str = CachePolicy.PREFER,
        wait: bool = True,
        priority: Priority | str = Priority.NORMAL,
        preview: bool = False,
        when_left: WhenLeft | None = None,
        **parameters: Unpack[Parameters],
    ) -> AsyncGenerator[News, None]:
        """News of pictures ``first_index`` … ``first_index + count - 1`` until the last is there.

        `Accepted` (not when all are in the library), `Progress` while it lasts, and a
        `messages.Picture` (`Picture.of` makes more of it) or a `Failure` for each. When the server
        is lost: `Reconnecting`, then `Reconnected` and all that is still missing, none of it
        twice; `ConnectionFailed` when it does not come back.

        ``preview``: some of the `Progress` have a small JPEG of how far the picture is, as far as
        the model can be watched; it comes from a worker, so decode it with care.

        Leaving early (``aclose``, a cancelled task) cancels the request on the server and
        waits up to a second for its word, which ``when_left`` is called with (``None``: it did
        not come); what somebody else wants is drawn all the same. Raises `InvalidSpec` or
        `UsageError` before anything is sent, and the server's refusal as its class of
        `sdq.errors`.
        """
        draft = draft_of(prompt, parameters)
        check_draft(draft, self.welcome.limits)
        check_count(count, first_index, self.welcome.limits)
        order = Generate(
            request_id=0,
            draft=draft,
            count=count,
            first_index=first_index,
            cache=choice_of(CachePolicy, cache),
            wait=wait,
            priority=choice_of(Priority, priority),
            preview=preview,
        )
        waiting = Waiting(self._connector, order, when_left=when_left, preview=preview)
        async with aclosing(waiting.follow()) as news:
            async for item in news:
                yield item

    async def attach(
        self, job_ids: Sequence[str], *, preview: bool = False
    ) -> AsyncGenerator[News, None]:
        """News of jobs, whoever asked for them, as `watch` tells them; the index of a picture
        is the place of its job in ``job_ids`` (1 to 1000). Leaving it stops no job.
        ``preview`` as in `watch`.

        An unknown job is a `Failure` with the code ``unknown_job``. Raises `UsageError` for
        what is no job id.
        """
        check_job_ids(job_ids)
        waiting = Waiting(self._connector, None, dict(enumerate(job_ids)), preview=preview)
        async with aclosing(waiting.follow()) as news:
            async for item in news:
                yield item

    async def submit(
        self,
        prompt: Item,
        *,
        count: int = 1,
        first_index: int = 0,
        cache: CachePolicy | str = CachePolicy.PREFER,
        priority: Priority | str = Priority.NORMAL,
        **parameters: Unpack[Parameters],
    ) -> Submitted:
        """Hands pictures in without waiting: each has a ``job_id``, for `attach`.

        What is in the library already has ``cache`` ``hit`` and a job that has succeeded.
        Raises as `watch`. When the connection is lost before the answer, the jobs may exist
        all the same; handing them in again is harmless.
        """
        draft = draft_of(prompt, parameters)
        check_draft(draft, self.welcome.limits)
        check_count(count, first_index, self.welcome.limits)
        message = Submit(
            request_id=0,
            draft=draft,
            count=count,
            first_index=first_index,
            cache=choice_of(CachePolicy, cache),
            priority=choice_of(Priority, priority),
        )
        return await self._ask(message, Submitted)


async def _next_before(
    events: AsyncGenerator[News, None], until: float | None, timeout_seconds: float | None
) -> News | None:
    """The next event, ``None`` after the last. Raises `DeadlinePassed`."""
    try:
        async with asyncio.timeout_at(until):
            return await anext(events, None)
    except TimeoutError as error:
        raise DeadlinePassed(
            f"the picture was not there after {timeout_seconds:g} s: the request was cancelled",
            hint="allow more; `sdq status` shows the queue",
        ) from error
