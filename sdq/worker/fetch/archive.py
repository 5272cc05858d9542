"""A model's files out of a zip or tar archive that somebody else has packed."""

import contextlib
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, Self

import msgspec

from sdq.errors import ModelError
from sdq.protocol.model import RelativePath
from sdq.worker.fetch.part import READ_BYTES
from sdq.worker.fetch.paths import ACCEPTED, PICKLED, place

MAX_MEMBERS = 2_000
MAX_UNPACKED_BYTES = 64 * 1024**3
MAX_RATIO = 20
"""Weights hardly shrink. A megabyte that becomes a gigabyte is a bomb."""

SPARE_BYTES = 16 * 1024 * 1024
"""So much may come out of any archive: text shrinks well."""

MAX_HEADER_BYTES = 64 * 1024
"""Of what a tar says before a file, a long name for one: Python's reader takes it whole."""

_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    NotImplementedError,
    RecursionError,  # a tar with thousands of headers before one file
    UnicodeError,  # a zip with a name that is no text
)
_SYMBOLIC_LINK = 0o12
_PUBLISHER = "tell whoever keeps the server's catalog"


class _Member(NamedTuple):
    """``handle`` is ``None`` for what is no file: folders, links, devices."""

    name: str
    size_bytes: int
    handle: zipfile.ZipInfo | tarfile.TarInfo | None


def unpack(archive: Path, folder: Path) -> tuple[str, ...]:
    """Puts the archive's files below ``folder``; their paths there, sorted.

    A single folder at the top is left out, and so are files of kinds that models are not made of;
    pickled weights are refused. When it fails, nothing of it is left. Raises `ModelError` for an
    archive that is broken, too large, or wants to leave the folder; `OSError` of the disk.
    """
    made: list[Path] = []
    try:
        with _opened(archive) as reader:
            for path, member in _chosen(reader, archive).items():
                target = place(folder, path)
                target.parent.mkdir(parents=True, exist_ok=True)
                made.append(target)
                _copy(reader, member, target)
    except BaseException as error:  # whatever ends it, half a model is no model; raised again
        for target in made:
            target.unlink(missing_ok=True)
        if _is_broken(error):
            raise ModelError(
                f"{archive.name} is a broken archive: {error}", hint=_PUBLISHER
            ) from error
        raise
    return tuple(sorted(str(path.relative_to(folder.resolve())) for path in made))


def _is_broken(error: BaseException) -> bool:
    """Whether the archive is at fault. bz2 says so with an `OSError` that has no number."""
    return isinstance(error, _BROKEN) or (isinstance(error, OSError) and error.errno is None)


def _chosen(reader: "_Zip | _Tar", archive: Path) -> dict[str, _Member]:
    """The files of a model in it by their path, all of them looked at before one is written."""
    most_bytes = min(MAX_UNPACKED_BYTES, SPARE_BYTES + MAX_RATIO * archive.stat().st_size)
    files, total_bytes = [], 0
    for count, member in enumerate(reader.members(), 1):
        total_bytes += member.size_bytes
        if count > MAX_MEMBERS or total_bytes > most_bytes:
            raise ModelError(
                f"{archive.name} is refused: it would unpack to more than {MAX_MEMBERS} files or "
                f"{most_bytes / 1e6:.0f} MB",
                hint="publish the model's files one by one, or as a plain archive",
            )
        if member.handle is not None:
            files.append(member)
    top = _top_of([member.name for member in files])
    chosen: dict[str, _Member] = {}
    for member in files:
        path = member.name.removeprefix(top)
        if path.lower().endswith(PICKLED):
            raise ModelError(
                f"{archive.name} holds {path[:100]!r}: reading it (Python's pickle) would run "
                "whatever is in it",
                hint="publish the model as safetensors",
            )
        if path.lower().endswith(ACCEPTED) and not path.rpartition("/")[2].startswith("."):
            chosen[_checked(path)] = member
    if not chosen:
        raise ModelError(f"{archive.name} holds no file of a model", hint=_PUBLISHER)
    return chosen


def _top_of(names: list[str]) -> str:
    """``model/`` when all names begin so."""
    first = names[0].partition("/")[0] + "/" if names and "/" in names[0] else ""
    return first if first and all(name.startswith(first) for name in names) else ""


def _checked(path: str) -> str:
    try:
        return msgspec.convert(path, RelativePath)
    except msgspec.ValidationError as error:
        raise ModelError(
            f"the archive has a file {path[:100]!r}, which is no path below a model's folder",
            hint=_PUBLISHER,
        ) from error


def _copy(reader: "_Zip | _Tar", member: _Member, target: Path) -> None:
    left = member.size_bytes
    with reader.open(member) as source, target.open("wb") as writer:
        while chunk := source.read(READ_BYTES):
            left -= len(chunk)
            if left < 0:
                raise zipfile.BadZipFile(f"{member.name} is longer than it says")
            writer.write(chunk)


class _Zip:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def members(self) -> Iterator[_Member]:
        for info in self._archive.infolist():
            is_link = info.external_attr >> 28 == _SYMBOLIC_LINK
            yield _Member(info.filename, info.file_size, None if info.is_dir() or is_link else info)

    def open(self, member: _Member) -> IO[bytes]:
        assert isinstance(member.handle, zipfile.ZipInfo)
        try:
            return self._archive.open(member.handle)
        except RuntimeError as error:  # a password is wanted
            raise zipfile.BadZipFile(str(error)) from error


class _Header(tarfile.TarInfo):
    """What is not the head of a plain file is looked at before it is read into memory."""

    _GROWING = (
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
    )

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)
        is_long = found.type in cls._GROWING and found.size > MAX_HEADER_BYTES
        if is_long or found.type == tarfile.GNUTYPE_SPARSE:  # its list of holes has no end
            raise _unusual()
        return found

    def _proc_gnusparse_10(self, *facts: object) -> None:
        """tarfile's own, which reads a list of holes as long as what is unpacked. Its name is
        private there; a test tells when it is another one."""
        raise _unusual()


class _Tar:
    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive

    def members(self) -> Iterator[_Member]:
        for info in self._archive:
            name = info.name.removeprefix("./")
            yield _Member(name, info.size, info if info.isreg() else None)

    def open(self, member: _Member) -> IO[bytes]:
        assert isinstance(member.handle, tarfile.TarInfo)
        reader = self._archive.extractfile(member.handle)
        assert reader is not None  # it is a regular file
        return reader


def _unusual() -> ModelError:
    return ModelError(
        "the archive is refused: it has a header of a kind or size that no model needs",
        hint="publish the model's files one by one, or as a plain archive",
    )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator["_Zip | _Tar"]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as zipped:
            yield _Zip(zipped)
        return
    try:
        tarred = tarfile.open(path, tarinfo=_Header)  # noqa: SIM115 - entered below
    except tarfile.ReadError as error:
        raise ModelError(
            f"{path.name} is neither a zip nor a tar archive", hint=_PUBLISHER
        ) from error
    with tarred:
        yield _Tar(tarred)
