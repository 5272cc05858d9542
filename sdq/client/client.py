"""`Client`: the library for scripts, and all that the command line asks of a server."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from sdq.client.checks import check_count, check_draft
from sdq.client.connection import Line
from sdq.client.mailbox import Mailbox
from sdq.config import split_address
from sdq.errors import ConnectionFailed, ProtocolError, SdqError, ServerBusy, from_code
from sdq.protocol.constants import DEFAULT_PORT
from sdq.protocol.messages import (
    Accepted,
    CachePolicy,
    Cancel,
    ErrorReply,
    Failure,
    FetchPicture,
    FindPictures,
    FoundPictures,
    Generate,
    GetStatus,
    ListModels,
    Models,
    Picture,
    Progress,
    PruneLibrary,
    Removed,
    RemovePictures,
    Status,
    StoredPicture,
    Welcome,
    WorkerSettings,
    WorkerSetup,
)
from sdq.protocol.model import ModelInfo
from sdq.spec import SpecDraft

T = TypeVar("T")

REPLY_TIMEOUT_SECONDS = 60.0
"""A request other than `Client.generate` is answered by then, or the server is stuck."""

CANCEL_TIMEOUT_SECONDS = 1.0
"""How long leaving a request waits for the server's word that it is cancelled."""

News = Accepted | Progress | Picture | Failure


class Client:
    """A connection to a server. Use it in one event loop, from any number of tasks::

        async with await Client.connect("gpu-box:7433") as client:
            async for picture in client.pictures("a red circle", count=4):
                Path(f"{picture.key}.png").write_bytes(picture.image)

    Every method may raise `ConnectionFailed` and what the server answers as an error
    (`sdq.errors`), and is safe to cancel.
    """

    def __init__(self, line: Line) -> None:
        self._line = line

    @classmethod
    async def connect(
        cls, address: str = f"127.0.0.1:{DEFAULT_PORT}", *, connect_timeout_seconds: float = 10
    ) -> "Client":
        """Connects and agrees on a version of the protocol.

        Raises `UsageError` for what is no address, `ConnectionFailed` when nobody answers,
        `ProtocolMismatch` when an older, newer or foreign server does. Safe to cancel.
        """
        host, port = split_address(address, DEFAULT_PORT)
        return cls(await Line.open(host, port, timeout_seconds=connect_timeout_seconds))

    @property
    def welcome(self) -> Welcome:
        """What the server said at the beginning: its version and its limits."""
        return self._line.welcome

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
        await self._line.close()

    async def generate(
        self,
        draft: SpecDraft,
        *,
        count: int = 1,
        first_index: int = 0,
        cache: CachePolicy | str = CachePolicy.PREFER,
        wait: bool = True,
    ) -> AsyncGenerator[News, None]:
        """News of pictures ``first_index`` … ``first_index + count - 1`` until the last is there.

        `Accepted` (not when all are in the library), `Progress` while it lasts, and a
        `Picture` or a `Failure` for each. Leaving early (``aclose``, a cancelled task) cancels
        the request on the server and waits up to a second for its word; what somebody else
        wants is drawn all the same. Raises `InvalidSpec` or `UsageError` before anything is
        sent, and the server's refusal as its class of `sdq.errors`.
        """
        check_draft(draft, self.welcome.limits)
        check_count(count, first_index, self.welcome.limits)
        policy = CachePolicy(cache)
        request_id, mailbox = self._begin(
            lambda request_id: Generate(
                request_id=request_id,
                draft=draft,
                count=count,
                first_index=first_index,
                cache=policy,
                wait=wait,
            )
        )
        is_over = False
        try:
            while not is_over:
                news, is_over = _read_news(await mailbox.get())
                if isinstance(news, SdqError):
                    raise news
                yield news
        finally:
            self._line.forget(request_id)
            if not is_over:
                await self._cancel(request_id)

    async def pictures(
        self,
        prompt: str,
        *,
        count: int = 1,
        cache: CachePolicy | str = CachePolicy.PREFER,
        **parameters: Any,
    ) -> AsyncGenerator[Picture, None]:
        """The pictures of a prompt as they arrive; ``parameters`` as in `SpecDraft`.

        Raises the error of the first picture that fails. Leave it early with ``aclose`` (or
        `contextlib.aclosing`): a bare ``break`` cancels only when Python collects it.
        """
        draft = SpecDraft(prompt=prompt, **parameters)
        async with aclosing(self.generate(draft, count=count, cache=cache)) as news:
            async for item in news:
                if isinstance(item, Failure):
                    raise from_code(item.code, item.message, item.hint)
                if isinstance(item, Picture):
                    yield item

    async def models(self) -> tuple[ModelInfo, ...]:
        """The server's catalog."""
        answer = await self._ask(lambda request_id: ListModels(request_id=request_id), Models)
        return answer.models

    async def status(self) -> Status:
        """Workers, queue and library at this moment."""
        return await self._ask(lambda request_id: GetStatus(request_id=request_id), Status)

    async def find(self, words: str = "", limit: int = 50) -> tuple[StoredPicture, ...]:
        """The newest pictures whose prompt holds all the words, at most ``limit`` (1 to 1000)."""
        answer = await self._ask(
            lambda request_id: FindPictures(request_id=request_id, words=words, limit=limit),
            FoundPictures,
        )
        return answer.pictures

    async def fetch(self, key: str) -> Picture:
        """The picture whose key begins so (4 to 64 hexadecimal digits)."""
        return await self._ask(
            lambda request_id: FetchPicture(request_id=request_id, key=key), Picture
        )

    async def remove(self, keys: Sequence[str]) -> Removed:
        """Takes pictures out of the library, by the beginnings of their keys (at most 1000)."""
        chosen = tuple(keys)
        return await self._ask(
            lambda request_id: RemovePictures(request_id=request_id, keys=chosen), Removed
        )

    async def prune(self) -> Removed:
        """Has the server apply its retention now."""
        return await self._ask(lambda request_id: PruneLibrary(request_id=request_id), Removed)

    async def worker_setup(self, model: str | None = None) -> WorkerSettings:
        """What a worker needs to install a model (``None``: the server's default).

        The answer holds the password of Redis: never print it.
        """
        return await self._ask(
            lambda request_id: WorkerSetup(request_id=request_id, model=model), WorkerSettings
        )

    def _begin(self, build: Callable[[int], msgspec.Struct]) -> tuple[int, Mailbox]:
        limit = self.welcome.limits.max_requests_in_flight
        if self._line.requests_in_flight >= limit:
            raise ServerBusy(
                f"{limit} requests are under way on this connection, and that is its limit",
                hint="finish or leave some of them first",
            )
        return self._line.begin(build)

    async def _ask(self, build: Callable[[int], msgspec.Struct], kind: type[T]) -> T:
        """The one answer to a request."""
        request_id, mailbox = self._begin(build)
        try:
            async with asyncio.timeout(REPLY_TIMEOUT_SECONDS):
                reply = await mailbox.get()
        except TimeoutError as error:
            raise ConnectionFailed(
                f"the server gave no answer within {REPLY_TIMEOUT_SECONDS:g} s",
                hint="its log says what it is doing",
            ) from error
        finally:
            self._line.forget(request_id)
        if isinstance(reply, ErrorReply):
            raise from_code(reply.code, reply.message, reply.hint)
        if not isinstance(reply, kind):
            raise ProtocolError(f"the server answered with {type(reply).__name__}")
        return reply

    async def _cancel(self, target: int) -> None:
        """Sends the cancellation for sure, waits for its answer a little."""
        with suppress(SdqError):
            request_id, mailbox = self._line.begin(
                lambda request_id: Cancel(request_id=request_id, target=target)
            )
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(CANCEL_TIMEOUT_SECONDS):
                        await mailbox.get()
            finally:
                self._line.forget(request_id)


def _read_news(reply: object) -> tuple[News | SdqError, bool]:
    """A reply to `Generate`, or its error; and whether it is the last."""
    if isinstance(reply, ErrorReply):
        return from_code(reply.code, reply.message, reply.hint), True
    if isinstance(reply, Accepted | Progress):
        return reply, False
    if isinstance(reply, Picture | Failure):
        return reply, reply.remaining <= 0
    return ProtocolError(f"the server answered with {type(reply).__name__}"), False
