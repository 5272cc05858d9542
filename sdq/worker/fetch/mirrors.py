"""One file of a model: from the first of its links that gives the right bytes.

It grows as ``NAME.part`` and gets its name when size and SHA-256 are right. Cancelling (Ctrl-C),
a kill and a full disk are harmless at any moment: the part stays, the next try goes on from there.
"""

import errno
import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from sdq.errors import DownloadError
from sdq.protocol.model import ModelFile
from sdq.worker.fetch.faults import Halted, Unreachable, WrongContent
from sdq.worker.fetch.links import resolve
from sdq.worker.fetch.part import READ_BYTES, Part
from sdq.worker.fetch.web import Wanted, download

_FULL = (errno.ENOSPC, errno.EDQUOT)
_log = logging.getLogger(__name__)


def fetch_file(
    file: ModelFile,
    target: Path,
    on_bytes: Callable[[int], None],
    *,
    halt: threading.Event | None = None,
    environ: Mapping[str, str] | None = None,
) -> None:
    """Puts the file at ``target``; ``on_bytes`` hears how many bytes are there so far,
    first of those that an earlier try has left.

    Raises `DownloadError` that names the reason of each link, and `Halted` once ``halt`` is set.
    """
    wanted = Wanted(file.size_bytes, on_bytes, halt or threading.Event())
    known = os.environ if environ is None else environ
    done_bytes = 0
    try:
        with Part(target) as part:
            on_bytes(part.size_bytes)
            try:
                reasons = _try_links(file, part, wanted, known)
            finally:
                done_bytes = part.size_bytes
            if reasons is None:
                part.move(target)
    except OSError as error:
        raise _unwritable(file, target, done_bytes, error) from error
    if reasons is not None:
        raise _refusal(file, reasons)


def _try_links(
    file: ModelFile, part: Part, wanted: Wanted, environ: Mapping[str, str]
) -> list[str] | None:
    """``None`` when the part is whole and right, else the reason of each link."""
    reasons = []
    for link in file.links:
        had_bytes = part.size_bytes
        try:
            try:
                _fetch_and_verify(link, file, part, wanted, environ)
            except WrongContent:
                if not had_bytes:
                    raise
                _fetch_and_verify(link, file, part, wanted, environ)  # the old part was wrong
        except Unreachable as error:
            reasons.append(f"{link}: {error}")
            _log.info("%s: %s", link, error)
        else:
            return None
    return reasons or ["it has no link"]


def _fetch_and_verify(
    link: str, file: ModelFile, part: Part, wanted: Wanted, environ: Mapping[str, str]
) -> None:
    source = resolve(link, environ)
    if isinstance(source, Path):
        _copy(source, part, wanted)
    else:
        download(source, part, wanted)
    found_bytes = part.size_bytes
    if file.size_bytes is not None and found_bytes != file.size_bytes:
        part.restart()
        raise WrongContent(f"expected {file.size_bytes} bytes, found {found_bytes}")
    found = part.sha256()
    if found != file.sha256:
        part.restart()
        raise WrongContent(
            f"wrong hash: expected sha256 {file.sha256}, found {found or 'another writer'}"
        )


def _copy(source: Path, part: Part, wanted: Wanted) -> None:
    """From this computer: quick enough to begin anew each time."""
    if part.size_bytes:
        part.restart()
    if source.exists() and not source.is_file():  # a device or a pipe may never end
        raise Unreachable(f"{source} is no file")
    try:
        reader = source.open("rb")
    except OSError as error:
        raise Unreachable(f"cannot read {source}: {error.strerror or error}") from error
    with reader:
        while chunk := reader.read(READ_BYTES):
            part.write(chunk)
            wanted.on_bytes(part.size_bytes)
            if wanted.halt.is_set():
                raise Halted


def _refusal(file: ModelFile, reasons: list[str]) -> DownloadError:
    return DownloadError(
        f"cannot fetch {file.path}: " + "; ".join(reasons),
        hint="this model is not installed; try again later, or tell whoever keeps the server's "
        "catalog",
    )


def _unwritable(file: ModelFile, target: Path, done_bytes: int, error: OSError) -> DownloadError:
    if error.errno in _FULL:
        missing = ""
        if file.size_bytes is not None:
            missing = f"; {(file.size_bytes - done_bytes) / 1e6:.0f} MB more are needed for it"
        return DownloadError(
            f"the disk is full: {target} cannot grow{missing}",
            hint="make room, then install again: it goes on from there",
        )
    return DownloadError(
        f"cannot write {target}: {error.strerror or error}",
        hint="make room or mend the permissions, then install again: it goes on from there",
    )
