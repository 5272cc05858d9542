"""What a server answers at once: questions about jobs, workers, models, library."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence
from typing import TypeVar, Unpack

import msgspec

from sdq.client.checks import check_job_ids, check_worker_id
from sdq.client.connector import Connector
from sdq.client.pictures import Picture
from sdq.client.searching import PAGE_PICTURES, Filters, question_of
from sdq.errors import ConnectionFailed, ProtocolError, from_code
from sdq.protocol import messages
from sdq.protocol.activity_messages import Activity, GetActivity
from sdq.protocol.catalog_messages import (
    CatalogChanged,
    ListLoras,
    Loras,
    ModelShown,
    PutLora,
    PutModel,
    RemoveLora,
    RemoveModel,
    SetDefaultModel,
    ShowModel,
)
from sdq.protocol.job_messages import (
    CancelJobs,
    Draining,
    DrainWorker,
    Foresee,
    Foreseen,
    Intent,
    Jobs,
    JobsCancelled,
    ListJobs,
    Outlook,
)
from sdq.protocol.library_messages import (
    FetchPicture,
    FoundPictures,
    Pinned,
    PinPictures,
    PruneLibrary,
    Removed,
    RemovePictures,
    StoredPicture,
)
from sdq.protocol.messages import (
    ErrorReply,
    GetStatus,
    ListModels,
    Models,
    Status,
    WorkerSettings,
    WorkerSetup,
)
from sdq.protocol.model import LoraManifest, ModelInfo, ModelManifest
from sdq.protocol.vocabulary import BaseRequest

T = TypeVar("T")

REPLY_TIMEOUT_SECONDS = 60.0
"""A request that does not wait for pictures is answered by then, or the server is stuck."""

LONG_REPLY_TIMEOUT_SECONDS = 900.0
"""The same where a whole library is gone through."""


class Questions:
    """The part of a `Client` that asks and gets one answer. Nothing here waits for a picture.

    Every method raises `ConnectionFailed` when there is no answer within a minute, and what the
    server answers as an error as its class of `sdq.errors`; all are safe to cancel.
    """

    def __init__(self, connector: Connector) -> None:
        self._connector = connector

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

    async def foresee(self, intents: Sequence[Intent]) -> tuple[Outlook, ...]:
        """What would become of requests now, without asking for them: an `Outlook` for each, in
        their order. At most 100 requests and 1000 pictures together."""
        message = Foresee(request_id=0, intents=tuple(intents))
        return (await self._ask(message, Foreseen)).outlooks

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

    async def loras(self, model: str | None = None) -> tuple[LoraManifest, ...]:
        """The LoRAs of the server's catalog, those for one model or all, sorted by id."""
        return (await self._ask(ListLoras(request_id=0, model=model), Loras)).loras

    async def put_lora(self, manifest: LoraManifest, *, replaces: bool = False) -> CatalogChanged:
        """Adds a LoRA to the catalog; one that is there is only replaced when that is said."""
        message = PutLora(request_id=0, manifest=manifest, replaces=replaces)
        return await self._ask(message, CatalogChanged)

    async def remove_lora(self, lora_id: str) -> CatalogChanged:
        """Takes a LoRA out of the catalog; pictures and workers' files stay."""
        return await self._ask(RemoveLora(request_id=0, lora_id=lora_id), CatalogChanged)

    async def status(self) -> Status:
        """Workers, queue and library at this moment."""
        return await self._ask(GetStatus(request_id=0), Status)

    async def activity(self) -> Activity:
        """What the server has been doing since it started, and who waits for how much."""
        return await self._ask(GetActivity(request_id=0), Activity)

    async def find(
        self, words: str = "", limit: int = 50, **filters: Unpack[Filters]
    ) -> tuple[StoredPicture, ...]:
        """The newest pictures whose prompt has all the words, at most ``limit`` (1 to 1000).

        Words in any order, ``"phrases"``, ``begin*``; no text is an error. ``filters``: see
        `sdq.client.searching.Filters`. For older ones ask again, with the ``number`` of the last
        one as ``before``, or use `find_each`.
        """
        message = question_of(words, limit, filters)
        return (await self._ask(message, FoundPictures)).pictures

    async def find_each(
        self, words: str = "", limit: int | None = None, **filters: Unpack[Filters]
    ) -> AsyncGenerator[StoredPicture, None]:
        """All pictures that `find` would give, newest first, asked for as they are taken; at most
        ``limit`` of them.

        None comes twice, and none that is there throughout is missed, whatever is drawn meanwhile.
        """
        left = sys.maxsize if limit is None else limit
        while left > 0:
            message = question_of(words, min(left, PAGE_PICTURES), filters)
            answer = await self._ask(message, FoundPictures)
            for picture in answer.pictures:
                yield picture
            # A page may be short and not the last: the server leaves damaged rows out.
            if not answer.more or not answer.pictures:
                return
            left -= len(answer.pictures)
            filters = {**filters, "before": answer.pictures[-1].number}

    async def pin(self, keys: Sequence[str], *, pinned: bool = True) -> Pinned:
        """Keeps pictures whatever retention and the size limit say, or (``pinned`` false) no
        longer; by the beginnings of their keys (at most 1000). All of them or none: an unknown
        key is a `UsageError`."""
        message = PinPictures(request_id=0, keys=tuple(keys), pinned=pinned)
        return await self._ask(message, Pinned)

    async def fetch(self, key: str) -> Picture:
        """The picture whose key begins so (4 to 64 hexadecimal digits). Raises `NotInLibrary`."""
        message = FetchPicture(request_id=0, key=key)
        return Picture.of(await self._ask(message, messages.Picture))

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
