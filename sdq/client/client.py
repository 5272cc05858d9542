"""`Client`: the library for scripts, and all that the command line asks of a server."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from sdq.client.checks import check_count, check_draft, check_job_ids, check_worker_id
from sdq.client.connector import Connector
from sdq.client.news import News
from sdq.client.waiting import Waiting, WhenLeft
from sdq.config import split_address
from sdq.errors import ConnectionFailed, ProtocolError, from_code
from sdq.protocol.catalog_messages import (
    CatalogChanged,
    ModelShown,
    PutModel,
    RemoveModel,
    SetDefaultModel,
    ShowModel,
)
from sdq.protocol.constants import DEFAULT_PORT
from sdq.protocol.job_messages import (
    CancelJobs,
    Draining,
    DrainWorker,
    Jobs,
    JobsCancelled,
    ListJobs,
    Submit,
    Submitted,
)
from sdq.protocol.messages import (
    CachePolicy,
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
    PruneLibrary,
    Removed,
    RemovePictures,
    Status,
    StoredPicture,
    Welcome,
    WorkerSettings,
    WorkerSetup,
)
from sdq.protocol.model import ModelInfo, ModelManifest
from sdq.protocol.vocabulary import BaseRequest, Priority
from sdq.spec import SpecDraft

T = TypeVar("T")

REPLY_TIMEOUT_SECONDS = 60.0
"""A request that does not wait for pictures is answered by then, or the server is stuck."""

LONG_REPLY_TIMEOUT_SECONDS = 900.0
"""The same where a whole library is gone through."""

RECONNECT_SECONDS = 300.0
"""How long a request that waits for pictures looks for a server that was lost."""


class Client:
    """A connection to a server. Use it in one event loop, from any number of tasks::

        async with await Client.connect("gpu-box:7433") as client:
            async for picture in client.pictures("a red circle", count=4):
                Path(f"{picture.key}.png").write_bytes(picture.image)

    Every method may raise `ConnectionFailed` and what the server answers as an error
    (`sdq.errors`), and is safe to cancel. When the server is lost, requests that wait for
    pictures look for it and go on; others fail. What is asked later connects anew by itself.
    """

    def __init__(self, connector: Connector) -> None:
        self._connector = connector

    @classmethod
    async def connect(
        cls,
        address: str = f"127.0.0.1:{DEFAULT_PORT}",
        *,
        connect_timeout_seconds: float = 10,
        reconnect_seconds: float = RECONNECT_SECONDS,
    ) -> "Client":
        """Connects and agrees on a version of the protocol, or fails at once.

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

    async def generate(
        self,
        draft: SpecDraft,
        *,
        count: int = 1,
        first_index: int = 0,
        cache: CachePolicy | str = CachePolicy.PREFER,
        wait: bool = True,
        priority: Priority | str = Priority.NORMAL,
        preview: bool = False,
        when_left: WhenLeft | None = None,
    ) -> AsyncGenerator[News, None]:
        """News of pictures ``first_index`` … ``first_index + count - 1`` until the last is there.

        `Accepted` (not when all are in the library), `Progress` while it lasts, and a
        `Picture` or a `Failure` for each. When the server is lost: `Reconnecting`, then
        `Reconnected` and all that is still missing, none of it twice; `ConnectionFailed` when
        it does not come back.

        ``preview``: some of the `Progress` have a small JPEG of how far the picture is, as far as
        the model can be watched; it comes from a worker, so decode it with care.

        Leaving early (``aclose``, a cancelled task) cancels the request on the server and
        waits up to a second for its word, which ``when_left`` is called with (``None``: it did
        not come); what somebody else wants is drawn all the same. Raises `InvalidSpec` or
        `UsageError` before anything is sent, and the server's refusal as its class of
        `sdq.errors`.
        """
        check_draft(draft, self.welcome.limits)
        check_count(count, first_index, self.welcome.limits)
        order = Generate(
            request_id=0,
            draft=draft,
            count=count,
            first_index=first_index,
            cache=CachePolicy(cache),
            wait=wait,
            priority=Priority(priority),
            preview=preview,
        )
        waiting = Waiting(self._connector, order, when_left=when_left, preview=preview)
        async with aclosing(waiting.follow()) as news:
            async for item in news:
                yield item

    async def attach(
        self, job_ids: Sequence[str], *, preview: bool = False
    ) -> AsyncGenerator[News, None]:
        """News of jobs, whoever asked for them, as `generate` tells them; the index of a picture
        is the place of its job in ``job_ids`` (1 to 1000). Leaving it stops no job.
        ``preview`` as in `generate`.

        An unknown job is a `Failure` with the code ``unknown_job``. Raises `UsageError` for
        what is no job id.
        """
        check_job_ids(job_ids)
        waiting = Waiting(self._connector, None, dict(enumerate(job_ids)), preview=preview)
        async with aclosing(waiting.follow()) as news:
            async for item in news:
                yield item

    async def pictures(
        self,
        prompt: str,
        *,
        count: int = 1,
        cache: CachePolicy | str = CachePolicy.PREFER,
        priority: Priority | str = Priority.NORMAL,
        **parameters: Any,
    ) -> AsyncGenerator[Picture, None]:
        """The pictures of a prompt as they arrive; ``parameters`` as in `SpecDraft`.

        Raises the error of the first picture that fails. Leave it early with ``aclose`` (or
        `contextlib.aclosing`): a bare ``break`` cancels only when Python collects it.
        """
        draft = SpecDraft(prompt=prompt, **parameters)
        news = self.generate(draft, count=count, cache=cache, priority=priority)
        async with aclosing(news):
            async for item in news:
                if isinstance(item, Failure):
                    raise from_code(item.code, item.message, item.hint)
                if isinstance(item, Picture):
                    yield item

    async def submit(
        self,
        draft: SpecDraft,
        *,
        count: int = 1,
        first_index: int = 0,
        cache: CachePolicy | str = CachePolicy.PREFER,
        priority: Priority | str = Priority.NORMAL,
    ) -> Submitted:
        """Hands pictures in without waiting: each has a ``job_id``, for `attach`.

        What is in the library already has ``cache`` ``hit`` and a job that has succeeded.
        Raises as `generate`. When the connection is lost before the answer, the jobs may exist
        all the same; handing them in again is harmless.
        """
        check_draft(draft, self.welcome.limits)
        check_count(count, first_index, self.welcome.limits)
        message = Submit(
            request_id=0,
            draft=draft,
            count=count,
            first_index=first_index,
            cache=CachePolicy(cache),
            priority=Priority(priority),
        )
        return await self._ask(message, Submitted)

    async def cancel_jobs(
        self, job_ids: Sequence[str] = (), *, all_mine: bool = False
    ) -> JobsCancelled:
        """Takes back what this person asked for: these jobs (at most 1000), or all of them."""
        if job_ids or not all_mine:
            check_job_ids(job_ids)
        message = CancelJobs(request_id=0, job_ids=tuple(job_ids), all_mine=all_mine)
        return await self._ask(message, JobsCancelled)

    async def jobs(self, *, mine: bool = False, ended: bool = False, limit: int = 50) -> Jobs:
        """The newest jobs, at most ``limit`` (1 to 1000). ``mine``: that this person asked for;
        ``ended``: also those that came to their end."""
        message = ListJobs(request_id=0, mine=mine, ended=ended, limit=limit)
        return await self._ask(message, Jobs)

    async def drain(self, worker_id: str) -> Draining:
        """Has a worker finish what it has begun and end. Raises `UnknownWorker`."""
        check_worker_id(worker_id)
        return await self._ask(DrainWorker(request_id=0, worker_id=worker_id), Draining)

    async def models(self) -> tuple[ModelInfo, ...]:
        """The server's catalog."""
        return (await self._ask(ListModels(request_id=0), Models)).models

    async def model(self, model: str | None = None) -> ModelShown:
        """All that the catalog says of a model (``None``: the default one)."""
        return await self._ask(ShowModel(request_id=0, model=model), ModelShown)

    async def put_model(self, manifest: ModelManifest, *, replaces: bool = False) -> CatalogChanged:
        """Adds a model to the catalog; one that is there is only replaced when that is said."""
        message = PutModel(request_id=0, manifest=manifest, replaces=replaces)
        return await self._ask(message, CatalogChanged)

    async def remove_model(self, model_id: str) -> CatalogChanged:
        """Takes a model out of the catalog; pictures and workers' files stay."""
        return await self._ask(RemoveModel(request_id=0, model_id=model_id), CatalogChanged)

    async def set_default_model(self, model_id: str) -> CatalogChanged:
        """The model of requests that name none."""
        return await self._ask(SetDefaultModel(request_id=0, model_id=model_id), CatalogChanged)

    async def status(self) -> Status:
        """Workers, queue and library at this moment."""
        return await self._ask(GetStatus(request_id=0), Status)

    async def find(self, words: str = "", limit: int = 50) -> tuple[StoredPicture, ...]:
        """The newest pictures whose prompt holds all the words, at most ``limit`` (1 to 1000)."""
        message = FindPictures(request_id=0, words=words, limit=limit)
        return (await self._ask(message, FoundPictures)).pictures

    async def fetch(self, key: str) -> Picture:
        """The picture whose key begins so (4 to 64 hexadecimal digits)."""
        return await self._ask(FetchPicture(request_id=0, key=key), Picture)

    async def remove(self, keys: Sequence[str]) -> Removed:
        """Takes pictures out of the library, by the beginnings of their keys (at most 1000)."""
        message = RemovePictures(request_id=0, keys=tuple(keys))
        return await self._ask(message, Removed, timeout_seconds=LONG_REPLY_TIMEOUT_SECONDS)

    async def prune(self) -> Removed:
        """Has the server apply its retention now."""
        message = PruneLibrary(request_id=0)
        return await self._ask(message, Removed, timeout_seconds=LONG_REPLY_TIMEOUT_SECONDS)

    async def worker_setup(self, model: str | None = None) -> WorkerSettings:
        """What a worker needs to install a model (``None``: the server's default).

        The answer holds the password of Redis: never print it.
        """
        return await self._ask(WorkerSetup(request_id=0, model=model), WorkerSettings)

    async def _ask(
        self, message: BaseRequest, kind: type[T], *, timeout_seconds: float = REPLY_TIMEOUT_SECONDS
    ) -> T:
        """The one answer to a request, which gets its number here."""
        line = await self._connector.usable()
        mailbox = line.new_mailbox()
        request_id = line.begin(
            lambda number: msgspec.structs.replace(message, request_id=number), mailbox
        )
        try:
            async with asyncio.timeout(timeout_seconds):
                reply = await mailbox.get()
        except TimeoutError as error:
            raise ConnectionFailed(
                f"the server gave no answer within {timeout_seconds:g} s",
                hint="its log says what it is doing",
            ) from error
        finally:
            line.forget(request_id)
            mailbox.close()
        if isinstance(reply, ErrorReply):
            raise from_code(reply.code, reply.message, reply.hint)
        if not isinstance(reply, kind):
            raise ProtocolError(f"the server answered with {type(reply).__name__}")
        return reply
