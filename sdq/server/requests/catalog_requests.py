"""Changing the catalog of a server that runs: checked, written, and in force with the answer."""

import asyncio
import logging
from collections.abc import Collection, Mapping

from sdq.errors import OutputError, UnknownLora, UnknownModel, UsageError
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
from sdq.server.catalog import Catalog
from sdq.server.catalog_file import CatalogFile, parse, read
from sdq.server.database import finish
from sdq.server.queue.roster import Roster
from sdq.server.requests.cancelling import Cancelling
from sdq.storage import replace_file

CatalogChange = PutModel | RemoveModel | SetDefaultModel | PutLora | RemoveLora
CatalogMessage = ShowModel | ListLoras | CatalogChange
log = logging.getLogger(__name__)


class CatalogRequests:
    """One for the server; changes come one after the other."""

    def __init__(self, catalog: Catalog, roster: Roster, cancelling: Cancelling) -> None:
        self._catalog = catalog
        self._roster = roster
        self._cancelling = cancelling
        self._changing = asyncio.Lock()

    async def answer(self, message: CatalogMessage) -> ModelShown | Loras | CatalogChanged:
        """The one reply to a message. Raises `UsageError`; the catalog is as before then.

        Cancelled, it ends what it has begun first: the file and what is in force stay the same.
        """
        if isinstance(message, ShowModel):
            return self._show(message)
        if isinstance(message, ListLoras):
            return self._loras(message)
        async with self._changing:
            return await finish(self._change(message))

    async def _change(self, message: CatalogChange) -> CatalogChanged:
        before = self._catalog.fingerprints()
        # A catalog of thousands of files takes tomlkit a second, in which others are answered.
        await self._write(await asyncio.to_thread(self._edited, message))
        return CatalogChanged(message.request_id, _named(message), await self._cancel(before))

    def _edited(self, message: CatalogChange) -> str:
        """The new text of the file. What it says by now counts, whoever wrote it."""
        from sdq.server import catalog_edit  # tomlkit: 20 ms that few servers need

        text = self._text()
        file = parse(text, str(self._catalog.file))  # raises for what is broken
        own = file.manifests.keys()
        try:
            match message:
                case PutLora() | RemoveLora():
                    return self._with_loras_edited(text, message, file)
                case PutModel():
                    self._check_new(message, own)
                    return catalog_edit.with_model(text, message.manifest)
                case RemoveModel(model_id=model_id):
                    self._check_own(model_id, own)
                    return catalog_edit.without_model(text, model_id) if model_id in own else text
                case SetDefaultModel(model_id=model_id):
                    if model_id not in own:
                        self._catalog.manifest(model_id)
                    return catalog_edit.with_default(text, model_id)
        except ValueError as error:  # tables in one line, say: allowed, and cannot be added to
            raise UsageError(
                f"{self._catalog.file} cannot be changed as it is written: {error}",
                hint="write each model in a table of its own, [models.ID], on the server "
                "(a LoRA: [loras.ID])",
            ) from error

    def _with_loras_edited(
        self, text: str, message: PutLora | RemoveLora, file: CatalogFile
    ) -> str:
        from sdq.server import catalog_edit

        if isinstance(message, PutLora):
            self._check_new_lora(message, file)
            return catalog_edit.with_lora(text, message.manifest)
        lora_id = message.lora_id
        if lora_id in file.loras:
            return catalog_edit.without_lora(text, lora_id)
        if lora_id not in self._catalog.own_loras:  # else somebody has taken it out by hand
            self._catalog.lora(lora_id)  # raises when there is none at all
            raise UnknownLora(
                f"{lora_id!r} comes with sdq and cannot be removed",
                hint="it changes only the pictures that ask for it",
            )
        return text

    def _check_new_lora(self, message: PutLora, file: CatalogFile) -> None:
        manifest = message.manifest
        lora_id = manifest.lora_id
        is_known = lora_id in file.loras or any(
            lora.lora_id == lora_id for lora in self._catalog.loras()
        )
        if is_known and not message.replaces:
            raise UsageError(
                f"there is a LoRA {lora_id!r} already",
                hint="choose another id, or replace it with --replace",
            )
        for model_id in manifest.models:  # a typing error would make it useless
            if model_id not in file.manifests:
                self._catalog.manifest(model_id)

    def _loras(self, message: ListLoras) -> Loras:
        found = self._catalog.loras(message.model)
        if not found and message.model is not None:
            self._catalog.manifest(message.model)  # raises: a typing error is not "none"
        return Loras(message.request_id, found)

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
        return read(self._catalog.file) or ""

    def _check_new(self, message: PutModel, own: Collection[str]) -> None:
        for file in message.manifest.files:
            if file.size_bytes is None:  # workers could not tell beforehand whether there is room
                raise UsageError(
                    f"{file.path} has no size: nothing is published without hash and size",
                    hint="`sdq model add` finds out both",
                )
        model_id = message.manifest.model_id
        is_known = model_id in own or model_id in self._catalog.fingerprints()
        if is_known and not message.replaces:
            raise UsageError(
                f"there is a model {model_id!r} already",
                hint="choose another id, or replace it with --replace",
            )

    def _check_own(self, model_id: str, own: Collection[str]) -> None:
        if model_id in own or model_id in self._catalog.own:
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

    async def _cancel(self, before: Mapping[str, str]) -> int:
        """Jobs of all models with other files than before: some may have been edited by hand."""
        now = self._catalog.fingerprints()
        cancelled = 0
        for model_id in sorted(before):
            fingerprint = now.get(model_id, "")
            if fingerprint == before[model_id]:
                continue
            count = await self._cancelling.cancel_other_files(model_id, fingerprint)
            if count:
                log.info("%d jobs are cancelled: the catalog changed %s", count, model_id)
            cancelled += count
        return cancelled


def _named(change: CatalogChange) -> str:
    """The id of what it is about."""
    match change:
        case PutModel():
            return change.manifest.model_id
        case PutLora():
            return change.manifest.lora_id
        case RemoveLora():
            return change.lora_id
        case _:
            return change.model_id
