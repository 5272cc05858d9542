"""Changing the catalog of a server that runs: checked, written, and in force with the answer."""

import asyncio
import logging

from sdq.errors import OutputError, UnknownModel, UsageError
from sdq.protocol.catalog_messages import (
    CatalogChanged,
    ModelShown,
    PutModel,
    RemoveModel,
    SetDefaultModel,
    ShowModel,
)
from sdq.server.catalog import Catalog
from sdq.server.catalog_file import parse, read
from sdq.server.queue.roster import Roster
from sdq.server.requests.cancelling import Cancelling
from sdq.storage import replace_file

CatalogMessage = ShowModel | PutModel | RemoveModel | SetDefaultModel
log = logging.getLogger(__name__)


class CatalogRequests:
    """One for the server; changes come one after the other."""

    def __init__(self, catalog: Catalog, roster: Roster, cancelling: Cancelling) -> None:
        self._catalog = catalog
        self._roster = roster
        self._cancelling = cancelling
        self._changing = asyncio.Lock()

    async def answer(self, message: CatalogMessage) -> ModelShown | CatalogChanged:
        """The one reply to a message. Raises `UsageError`; the catalog is as before then.

        Safe to cancel: the file is written whole or not at all.
        """
        if isinstance(message, ShowModel):
            return self._show(message)
        from sdq.server import catalog_edit  # tomlkit: 20 ms that few servers need

        async with self._changing:
            match message:
                case PutModel():
                    self._check_new(message)
                    model_id = message.manifest.model_id
                    text = catalog_edit.with_model(self._text(), message.manifest)
                case RemoveModel(model_id=model_id):
                    self._check_own(model_id)
                    text = catalog_edit.without_model(self._text(), model_id)
                case SetDefaultModel(model_id=model_id):
                    self._catalog.manifest(model_id)
                    text = catalog_edit.with_default(self._text(), model_id)
            await self._write(text)
            return CatalogChanged(message.request_id, model_id, await self._cancel(model_id))

    def _show(self, message: ShowModel) -> ModelShown:
        manifest = self._catalog.manifest(message.model)
        holders = self._roster.holders(manifest.model_id, manifest.fingerprint)
        return ModelShown(
            message.request_id,
            manifest,
            is_default=manifest.model_id == self._catalog.default_model_id,
            is_shipped=manifest.model_id not in self._catalog.own,
            workers=tuple(sorted(beat.worker_id for beat in holders)),
        )

    def _text(self) -> str:
        if self._catalog.file is None:
            raise UsageError("this server keeps no catalog of its own")
        text = read(self._catalog.file) or ""
        parse(text, str(self._catalog.file))  # what somebody broke is not to be written over
        return text

    def _check_new(self, message: PutModel) -> None:
        model_id = message.manifest.model_id
        known = {manifest.model_id for manifest in self._catalog.manifests()}
        if model_id in known and not message.replaces:
            raise UsageError(
                f"there is a model {model_id!r} already",
                hint="choose another id, or replace it with --replace",
            )

    def _check_own(self, model_id: str) -> None:
        if model_id in self._catalog.own:
            return
        self._catalog.manifest(model_id)  # raises when there is none at all
        raise UnknownModel(
            f"{model_id!r} comes with sdq and cannot be removed",
            hint="no worker has to hold it; `sdq model default` chooses another default",
        )

    async def _write(self, text: str) -> None:
        """Only what can be read again, as it would be at the next start."""
        file = self._catalog.file
        assert file is not None  # `_text` has looked
        parse(text, str(file))
        before = read(file)
        try:
            await asyncio.to_thread(replace_file, file, text.encode(), mode=0o644)
            self._catalog.reload()
        except OSError as error:
            raise OutputError(
                f"cannot write {file}: {error.strerror or error}",
                hint="make room or mend the permissions on the server",
            ) from error
        except UsageError:  # a default that is gone: only both files together can tell
            await asyncio.to_thread(replace_file, file, (before or "").encode(), mode=0o644)
            raise

    async def _cancel(self, model_id: str) -> int:
        now = {found.model_id: found.fingerprint for found in self._catalog.manifests()}
        cancelled = await self._cancelling.cancel_other_files(model_id, now.get(model_id, ""))
        if cancelled:
            log.info("%d jobs are cancelled: the catalog changed %s", cancelled, model_id)
        return cancelled
