"""Pictures fetched or read, made small, and written into a page: there whole or not at all."""

import asyncio
import io
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from stat import S_ISREG
from typing import IO, Any

import msgspec

from sdq import metadata
from sdq.cli.describing import description_of, of_provenance, read_file
from sdq.cli.fetching import in_order
from sdq.cli.gallery.page import Card, beginning, card_html, end
from sdq.cli.output import as_bytes, as_pictures, plain, print_data, print_json, tell
from sdq.client.client import Client
from sdq.client.connecting import connect
from sdq.client.pictures import Picture
from sdq.client.saving import FORMATS, cannot_write, part_name
from sdq.client.searching import Filters
from sdq.config import ClientSettings
from sdq.errors import OutputError, UsageError

MAX_PAGE_BYTES = 100 * 1024 * 1024
"""Browsers open that; mail and chat do not."""

MAX_FILES = 100_000
"""Looked at in a folder."""

_QUALITY = 80
_ERASE = "\r\x1b[K"


class Page:
    """The page that is being written, and what came of it."""

    def __init__(self, path: Path, title: str, *, side: int, limit: int, force: bool) -> None:
        self.limit = limit
        self._path = path
        self._title = title
        self._side = side
        self._force = force
        self.pictures = 0
        self._without = 0  # files and rows of which nothing can be shown
        self._left_out = 0  # for lack of room
        self._size_bytes = 0
        self._is_live = sys.stderr.isatty()
        self._refuse()

    def _refuse(self) -> None:
        if not self._force and os.path.lexists(self._path):
            raise OutputError(
                f"{self._path} exists already", hint="choose another name with -o, or give --force"
            )

    @contextmanager
    def writing(self) -> Iterator["_Writer"]:
        """The file beside its place; at the end it takes its place, unless something was raised
        or there is no picture in it."""
        part = self._path.parent / part_name()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("x", encoding="utf-8") as file:
                writer = _Writer(self, file)
                writer.write(beginning(self._title))
                yield writer
                writer.write(end())
            if self.pictures:
                self._refuse()
                part.replace(self._path)
        except OSError as error:
            raise cannot_write(self._path, error) from error
        finally:
            if self._is_live:
                sys.stderr.write(_ERASE)
                sys.stderr.flush()
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def skip(self) -> None:
        """One more of which nothing can be shown."""
        self._without += 1

    def add(self, writer: "_Writer", data: bytes, said: Mapping[str, Any], total: int) -> bool:
        """Puts a picture in; False when the page is full."""
        try:
            thumbnail, size = thumbnail_of(data, self._side)
        except UsageError:
            self.skip()
            return True
        html = card_html(Card(thumbnail, size, said))
        if self._size_bytes + len(html) > MAX_PAGE_BYTES:
            self._left_out = max(1, total - self.pictures - self._without)
            return False
        self._size_bytes += writer.write(html)
        self.pictures += 1
        if self._is_live:
            sys.stderr.write(f"{_ERASE}{self.pictures} of {total}")
            sys.stderr.flush()
        return True

    def tell(self, *, as_json: bool) -> int:
        """Says what came of it; the exit code. Raises `UsageError` when there was no picture."""
        if not self.pictures:
            raise UsageError("there are no pictures for the page", hint="`sdq find` shows some")
        size_bytes = self._path.stat().st_size
        if as_json:
            counts = {"pictures": self.pictures, "without": self._without}
            counts |= {"left_out": self._left_out, "size_bytes": size_bytes}
            print_json({"path": str(self._path), **counts})
            return 0
        print_data(str(self._path))
        parts = [as_pictures(self.pictures), as_bytes(size_bytes)]
        parts += [f"{self._without} that cannot be shown"] if self._without else []
        parts += [f"{self._left_out} left out: the page is full"] if self._left_out else []
        tell(plain(", ".join(parts)))
        return 0


class _Writer:
    def __init__(self, page: Page, file: IO[str]) -> None:
        self.page = page
        self._file = file

    def write(self, text: str) -> int:
        self._file.write(text)
        return len(text)

    def add(self, data: bytes, said: Mapping[str, Any], total: int) -> bool:
        """See `Page.add`."""
        return self.page.add(self, data, said, total)


def thumbnail_of(data: bytes, side: int) -> tuple[bytes, tuple[int, int]]:
    """A small WebP of a picture, and its size in pixels. Raises `UsageError` for no picture."""
    image = metadata.decoded(data).convert("RGB")
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=_QUALITY)
    return buffer.getvalue(), image.size


def of_folder(page: Page, folder: Path) -> None:
    """The picture files in a folder and below it, the newest first; links are not followed.

    Raises `UsageError` when it is no folder, `OutputError` when the page cannot be written.
    """
    paths = _picture_files(folder)
    total = min(len(paths), page.limit)
    with page.writing() as writer:
        for path in paths:
            if page.pictures >= page.limit:
                return
            try:
                data, said = read_file(path), description_of(path)
            except (UsageError, ModuleNotFoundError):  # sd-parsers, which is an extra
                page.skip()
                continue
            if not writer.add(data, said, total):
                return


def _picture_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder", hint="name one with picture files in it")
    found: list[tuple[float, Path]] = []
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if path.suffix.lower() in FORMATS:
                with suppress(OSError):
                    about = path.lstat()
                    if S_ISREG(about.st_mode):  # a pipe would be waited for
                        found.append((about.st_mtime, path))
            if len(found) > MAX_FILES:
                raise UsageError(
                    f"there are more than {MAX_FILES} pictures in {folder}", hint="name one below"
                )
    found.sort(reverse=True)
    return [path for _, path in found]


async def of_library(page: Page, settings: ClientSettings, words: str, filters: Filters) -> int:
    """The newest pictures of the library that are meant; the exit code is 0.

    Raises `ConnectionFailed`, `OutputError`; then there is no page. Safe to cancel.
    """
    async with connect(settings.server, reconnect_seconds=settings.reconnect_seconds) as client:
        keys = await _keys(client, words, filters, page.limit)
        with page.writing() as writer:
            async with aclosing(in_order(client, keys)) as pictures:
                async for _, found in pictures:
                    if not isinstance(found, Picture):  # removed meanwhile, or damaged
                        page.skip()
                    elif not await asyncio.to_thread(_add, writer, found, len(keys)):
                        break
    return 0


def _add(writer: _Writer, picture: Picture, total: int) -> bool:
    """In a thread."""
    try:
        found = metadata.read(picture.png)
    except UsageError:
        found = None
    plain_said = {"spec": {"negative_prompt": "", **_spec(picture)}, "key": picture.key}
    return writer.add(picture.png, plain_said if found is None else of_provenance(found), total)


def _spec(picture: Picture) -> dict[str, Any]:
    return dict(msgspec.to_builtins(picture.spec))


async def _keys(client: Client, words: str, filters: Filters, limit: int) -> list[str]:
    async with aclosing(client.find_each(words, limit, **filters)) as pictures:
        return [picture.key async for picture in pictures]
