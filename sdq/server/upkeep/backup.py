"""A consistent copy of a server's data, made while the server runs.

The database is copied by SQLite in one read transaction; a server goes on writing meanwhile.
Then each picture that the copy names goes into the archive. One that was removed or replaced in
between loses its row in the copy, so what is restored is whole.
"""

import contextlib
import errno
import io
import os
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal, NamedTuple

from sdq.errors import OutputError, UsageError
from sdq.server.database import DATABASE_NAME, damaged, is_damage, reraise
from sdq.server.library.files import LIBRARY_NAME, PictureFiles, sha256_of
from sdq.server.upkeep.damage import is_at_rest, reading

CATALOG_NAME = "catalog.toml"

_Mode = Literal["w", "w:gz"]
_ARCHIVES: dict[str, _Mode] = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz"}
_DATABASES = (".sqlite3", ".db")
_NAMES = "SELECT key, size_bytes, sha256 FROM pictures ORDER BY key"
_OF_THE_SOURCE = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN)
_FORGET = "DELETE FROM pictures WHERE key = ?"

Told = Callable[[int, int], None]


class Backup(NamedTuple):
    """What was copied."""

    pictures: int  # rows; their files are in an archive
    left_out: int  # pictures removed while they were copied, or damaged before
    size_bytes: int  # of the file


def backup(data_dir: Path, file: Path, *, force: bool, told: Told) -> Backup:
    """Copies a server's data into ``file``: database and pictures for ``.tar``, ``.tar.gz`` and
    ``.tgz``, the database alone for ``.sqlite3`` and ``.db``.

    ``told`` hears how many pictures are copied, and of how many. Raises `UsageError` for another
    ending, `OutputError` when the file exists and ``force`` is not given, or cannot be written;
    `StackError` when the data cannot be read. Nothing half is left.
    """
    suffix = _suffix_of(file)
    source = data_dir / DATABASE_NAME
    if not source.is_file():
        raise UsageError(
            f"there are no data of a server in {data_dir}", hint="choose another with --data-dir"
        )
    if file.is_dir() or (file.exists() and not force):
        raise OutputError(f"{file} exists", hint="choose another name, or overwrite with --force")
    with _beside(file) as scratch:
        copy = scratch / DATABASE_NAME
        _copy_database(source, copy)
        if suffix in _DATABASES:
            fresh, counts = copy, (_count(copy), 0)
        else:
            fresh = scratch / "archive"
            counts = _write_archive(fresh, _ARCHIVES[suffix], copy, data_dir, told)
        size_bytes = _flush(fresh)
        fresh.replace(file)
    return Backup(*counts, size_bytes)


def _suffix_of(file: Path) -> str:
    for suffix in (*_ARCHIVES, *_DATABASES):
        if file.name.endswith(suffix) and file.name != suffix:
            return suffix
    raise UsageError(
        f"{file} has no ending that says what to write",
        hint=".tar or .tar.gz: everything; .sqlite3: the database without the pictures",
    )


@contextlib.contextmanager
def _beside(file: Path) -> Iterator[Path]:
    """A folder beside the file, gone at the end; what the disk says is said in words."""
    try:
        with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as scratch:
            yield Path(scratch)
    except OSError as error:
        raise OutputError(
            f"cannot write {file}: {error.strerror or error}",
            hint="make room, or choose another place",
        ) from error


def _copy_database(source: Path, copy: Path) -> None:
    """Raises `StackError` when the source is damaged, `OSError` when there is no room."""
    rested = is_at_rest(source)
    problem = _try_to_copy(source, copy)
    if rested and not is_at_rest(source):  # a server was started meanwhile
        copy.unlink()
        problem = _try_to_copy(source, copy)
    if problem != "ok":
        raise damaged(f"{source} is damaged: {problem}")


def _try_to_copy(source: Path, copy: Path) -> str:
    try:
        with reading(source) as found, closing(sqlite3.connect(copy)) as target:
            # All pages in one step: with several, each write of the server starts it anew.
            found.backup(target, pages=-1)
            target.execute("PRAGMA journal_mode = DELETE")
            return str(target.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.Error as error:
        if is_damage(error) or getattr(error, "sqlite_errorcode", 0) in _OF_THE_SOURCE:
            reraise(error, source)
        raise OSError(errno.EIO, str(error)) from error


def _count(database: Path) -> int:
    with closing(sqlite3.connect(database)) as copy:
        return int(copy.execute("SELECT count(*) FROM pictures").fetchone()[0])


def _write_archive(
    fresh: Path, mode: _Mode, database: Path, data_dir: Path, told: Told
) -> tuple[int, int]:
    """Pictures first: which of them are there decides what the database's copy says."""
    with fresh.open("xb") as file, tarfile.open(fileobj=file, mode=mode) as archive:
        with closing(sqlite3.connect(database)) as copy:
            counts = _add_pictures(archive, copy, PictureFiles(data_dir / LIBRARY_NAME), told)
            copy.commit()
        archive.add(database, DATABASE_NAME)
        with contextlib.suppress(FileNotFoundError):
            archive.add(data_dir / CATALOG_NAME, CATALOG_NAME)
    return counts


def _add_pictures(
    archive: tarfile.TarFile, copy: sqlite3.Connection, files: PictureFiles, told: Told
) -> tuple[int, int]:
    rows = copy.execute(_NAMES).fetchall()
    added = 0
    for number, (key, size_bytes, sha256) in enumerate(rows, 1):
        path = files.path_of(key)
        try:
            image = files.read(key, size_bytes)
            modified_at = int(path.stat().st_mtime)
        except OSError:
            image, modified_at = None, 0
        if image is None or sha256_of(image) != sha256:
            copy.execute(_FORGET, (key,))
        else:
            name = f"{LIBRARY_NAME}/{path.relative_to(files.directory)}"
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(image), modified_at
            archive.addfile(info, io.BytesIO(image))
            added += 1
        told(number, len(rows))
    return added, len(rows) - added


def _flush(path: Path) -> int:
    """Makes the file its owner's (prompts are in it) and flushes it; its size in bytes."""
    path.chmod(0o600)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return path.stat().st_size
