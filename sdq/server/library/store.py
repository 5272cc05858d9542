"""Pictures' rows and files together: both are changed, or neither.

Writing goes file first, row second: the file is written beside its place and flushed, takes its
place inside the transaction that writes the row, and that one is committed last. Removing hides
the file in the transaction that removes the row, and deletes it after the commit. So whatever is
killed when leaves one file without a row at most, which `PictureStore.sweep` takes away, and
never a row that answers with half a picture: a file that is missing, or whose hash is not the
row's, is a miss.
"""

import asyncio
import errno
import functools
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import ParamSpec, TypeVar

import aiosqlite

from sdq.errors import StackError
from sdq.server.database import reraise
from sdq.server.library.files import FOLDERS, PictureFiles, sha256_of
from sdq.server.library.index import DamagedRow, PictureIndex, PictureRow
from sdq.server.library.memory import StoredImage

MAX_STRANGERS = 1
"""Files without a row that a kill can leave: pictures are put in one after the other."""

Settle = Callable[[aiosqlite.Connection], Awaitable[bool]]
"""Goes on in the transaction that writes a picture's row; False undoes it."""

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")

_TOO_MANY = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})  # says nothing of the file

_log = logging.getLogger(__name__)


class _NotSettled(Exception):
    """Ends the transaction in which ``settle`` gave False."""


class PictureStore:
    """One caller at a time changes something; reading is always allowed.

    What cannot be done raises `StackError` and has changed nothing.
    """

    def __init__(self, index: PictureIndex, files: PictureFiles) -> None:
        self._index = index
        self._files = files

    async def open(self) -> None:
        """Makes the folder; rids it of what a killed server left half done."""
        directory = self._files.directory
        is_new = not directory.exists()
        await self._on_disk(functools.partial(directory.mkdir, parents=True, exist_ok=True))
        if is_new and (pictures := (await self._index.totals()).pictures):
            # Perhaps a disk that is not there: what is asked for and missing is drawn again.
            _log.warning(
                "none of %d pictures is in %s: is it the right place?", pictures, directory
            )
        else:
            await self.sweep()

    async def read(
        self, key: str, is_fresh: Callable[[str, float], bool]
    ) -> tuple[StoredImage | None, bool]:
        """The picture from disk, and whether row and file agree (no row, no quarrel).

        ``is_fresh`` is asked with the key and the row's last use; False is a miss, but for what
        is pinned.
        """
        try:
            row = await self._index.get(key)
        except DamagedRow as error:
            _log.warning("%s", error)
            return None, False
        if row is None or not (row.pinned or is_fresh(key, row.last_used_at)):
            return None, True
        try:
            stored = await asyncio.to_thread(self._load, key, row)
        except OSError as error:
            if error.errno in _TOO_MANY:
                reraise(error, self._files.path_of(key))
            _log.warning("picture %s: its file cannot be read: %s", key, error)
            return None, True
        return stored, stored is not None

    def _load(self, key: str, row: PictureRow) -> StoredImage | None:
        """In a thread: the picture of a row, when its file is whole."""
        image = self._files.read(key, row.size_bytes)
        if image is None or sha256_of(image) != row.sha256:
            return None
        return StoredImage(key, row.spec, image, row.draw_seconds)

    async def put(self, stored: StoredImage, now: float, settle: Settle | None) -> bool:
        """Adds or replaces a picture; False when ``settle`` gave that. Do not cancel it."""
        key, placed = stored.key, False
        sha256 = await self._on_disk(self._files.stage, key, stored.image)

        async def then(inside: aiosqlite.Connection) -> None:
            nonlocal placed
            if settle is not None and not await settle(inside):
                raise _NotSettled
            await self._on_disk(self._files.place, key)
            placed = True

        try:
            await self._index.put(stored, sha256, now, then=then)
        except BaseException as error:  # no half picture, also when cancelled; raised again
            await self._tidy(self._files.displace if placed else self._files.unstage, key)
            if isinstance(error, _NotSettled):
                return False
            raise
        await self._tidy(self._files.settle, key)
        return True

    async def delete(self, keys: Collection[str]) -> dict[str, int]:
        """Takes pictures out; the sizes in bytes of those that were there. Do not cancel it."""

        async def hide(gone: Collection[str]) -> None:
            await self._on_disk(self._files.hide, gone)

        try:
            gone = await self._index.remove(keys, then=hide)
        except BaseException:  # as above: the files come back
            await self._tidy(self._files.unhide, keys)
            raise
        await self._tidy(self._files.remove, gone)
        return gone

    async def sweep(self) -> None:
        """Folder by folder, so that memory stays small: rows without file, what a kill left."""
        strangers: list[str] = []
        for folder in FOLDERS:
            known = set(await self._index.keys(folder))
            try:
                swept = await self._on_disk(self._files.sweep, folder, known)
                if swept.missing:
                    await self.delete(sorted(swept.missing))
            except StackError as error:  # what can be read is served all the same
                _log.warning("folder %s cannot be swept: %s", folder, error)
                continue
            if swept.deleted or swept.missing:
                _log.info("swept %s: %d files, %d rows", folder, swept.deleted, len(swept.missing))
            strangers += swept.strangers[: MAX_STRANGERS + 1]
        if len(strangers) <= MAX_STRANGERS:
            await self._tidy(self._files.hide, strangers)
            await self._tidy(self._files.remove, strangers)
        else:
            _log.warning(
                "there are pictures without a row in the index: an older one was put in its place,"
                " or it was damaged; `sdq server check --repair` gives them their rows back"
            )

    async def _tidy(self, step: Callable[[S], None], subject: S) -> None:
        """What cannot be tidied up now is a miss at worst, and swept at the next start."""
        try:
            await self._on_disk(step, subject)
        except StackError as error:
            _log.warning("%s", error)

    async def _on_disk(self, step: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """In a thread: what the disk says is said in words."""
        try:
            return await asyncio.to_thread(step, *arguments, **named)
        except OSError as error:
            reraise(error, self._files.directory)
