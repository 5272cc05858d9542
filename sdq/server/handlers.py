"""What each message does. Those about jobs and about the catalog live in ``requests``."""

import time
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

from sdq import __version__
from sdq.config import ServerSettings
from sdq.protocol.activity_messages import GetActivity
from sdq.protocol.catalog_messages import (
    ListLoras,
    PutLora,
    PutModel,
    RemoveLora,
    RemoveModel,
    SetDefaultModel,
    ShowModel,
)
from sdq.protocol.job_messages import Attach, CancelJobs, DrainWorker, Foresee, ListJobs, Submit
from sdq.protocol.library_messages import (
    FetchPicture,
    FindPictures,
    PinPictures,
    PruneLibrary,
    Removed,
    RemovePictures,
)
from sdq.protocol.messages import (
    Cancel,
    ClientMessage,
    Generate,
    GetStatus,
    Hello,
    ListModels,
    Models,
    Ping,
    Pong,
    Status,
    WorkerSettings,
    WorkerSetup,
)
from sdq.protocol.model import ModelInfo, ModelManifest
from sdq.protocol.states import JobState
from sdq.server.queue.subscriptions import Request
from sdq.server.requests.catalog_requests import CatalogRequests
from sdq.server.requests.job_requests import JobRequests
from sdq.server.requests.library_requests import LibraryRequests
from sdq.server.session import Session
from sdq.server.wiring import Parts

UNROUTABLE_HOSTS = frozenset({"127.0.0.1", "localhost", "::1", "0.0.0.0", "::", ""})  # noqa: S104


class Handlers:
    """Answers requests of all sessions."""

    def __init__(
        self,
        settings: ServerSettings,
        parts: Parts,
        *,
        worker_redis_url: str,
        redis_trouble: Callable[[], str],
    ) -> None:
        self._settings = settings
        self._parts = parts
        self._jobs = JobRequests(parts)
        self._catalog_requests = CatalogRequests(parts.catalog, parts.roster, parts.cancelling)
        self._library_requests = LibraryRequests(parts.library)
        self._catalog = parts.catalog
        self._library = parts.library
        self._table = parts.table
        self._roster = parts.roster
        self._worker_redis_url = worker_redis_url
        self._redis_trouble = redis_trouble
        self._started_at = time.monotonic()

    def quick(self, message: Generate, session: Session) -> bool:
        """Answers at once when everything asked for is in memory."""
        return self._parts.generation.answer_from_memory(message, session)

    async def left(self, request: Request) -> None:
        """The client is gone."""
        await self._parts.cancelling.leave(request)

    async def handle(self, message: ClientMessage, session: Session) -> None:
        """Answers one request. Raises `SdqError`, which becomes its error reply."""
        match message:
            case Generate() | Attach():
                await self._jobs.wait(message, session)
            case Submit() | Cancel() | CancelJobs() | ListJobs() | Foresee() | DrainWorker():
                session.send(await self._jobs.answer(message, session))
            case (
                ShowModel()
                | PutModel()
                | RemoveModel()
                | SetDefaultModel()
                | ListLoras()
                | PutLora()
                | RemoveLora()
            ):
                session.send(await self._catalog_requests.answer(message))
            case ListModels():
                session.send(Models(message.request_id, self._models()))
            case GetActivity():
                session.send(await self._parts.activity.report(message, session.identity))
            case GetStatus():
                session.send(await self._status(message.request_id))
            case FindPictures() | FetchPicture() | PinPictures() | RemovePictures():
                session.send(await self._library_requests.answer(message))
            case PruneLibrary():
                session.send(Removed(message.request_id, *await self._library.prune()))
            case WorkerSetup():
                session.send(self._worker_setup(message, session))
            case Hello() | Ping() | Pong():
                pass  # the session answers these itself

    def _models(self) -> tuple[ModelInfo, ...]:
        return tuple(self._info(manifest) for manifest in self._catalog.manifests())

    def _info(self, manifest: ModelManifest) -> ModelInfo:
        sizes = [file.size_bytes for file in manifest.files]
        return ModelInfo(
            model_id=manifest.model_id,
            title=manifest.title,
            license=manifest.license,
            defaults=manifest.defaults,
            limits=manifest.limits,
            fingerprint=manifest.fingerprint,
            size_bytes=None if None in sizes else sum(size or 0 for size in sizes),
            is_default=manifest.model_id == self._catalog.default_model_id,
            workers_online=len(self._roster.holders(manifest.model_id, manifest.fingerprint)),
        )

    async def _status(self, request_id: int) -> Status:
        counts = await self._table.counts()
        stats, pinned = await self._library.stats(), await self._library.pinned()
        return Status(
            request_id=request_id,
            server=f"sdq {__version__}",
            uptime_seconds=round(time.monotonic() - self._started_at, 1),
            redis=self._redis_trouble() or "ok",
            workers=self._roster.statuses(),
            queued=counts.get(JobState.QUEUED, 0),
            dispatched=counts.get(JobState.DISPATCHED, 0),
            running=counts.get(JobState.RUNNING, 0),
            pictures=stats.pictures,
            library_bytes=stats.bytes,
            library_max_bytes=self._settings.library_max_bytes,
            retention_days=self._settings.retention_days,
            pinned_pictures=pinned.pictures,
            pinned_bytes=pinned.bytes,
        )

    def _worker_setup(self, message: WorkerSetup, session: Session) -> WorkerSettings:
        manifest = self._catalog.manifest(message.model)
        url = reachable_url(self._worker_redis_url, session.local_host)
        return WorkerSettings(message.request_id, url, manifest)


def reachable_url(redis_url: str, local_host: str) -> str:
    """The Redis URL as a worker reaches it, who reached this server at ``local_host``.

    An address that means "this machine" is replaced by the one that led the worker here.
    """
    parts = urlsplit(redis_url)
    if parts.scheme == "unix" or parts.hostname not in UNROUTABLE_HOSTS or not local_host:
        return redis_url
    user, at, _ = parts.netloc.rpartition("@")
    host = f"[{local_host}]" if ":" in local_host else local_host
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit(parts._replace(netloc=f"{user}{at}{host}{port}"))
