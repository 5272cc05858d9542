"""What a link gives, without keeping it: its size, its hash, its first bytes."""

import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from sdq.worker.fetch.faults import Unreachable
from sdq.worker.fetch.links import resolve
from sdq.worker.fetch.part import READ_BYTES
from sdq.worker.fetch.web import Wanted, download

HEAD_BYTES = 16 * 1024 * 1024
"""Enough for the header of a checkpoint, which says what is in it."""


class Measured(NamedTuple):
    size_bytes: int
    sha256: str
    head: bytes


def measure(
    link: str,
    on_bytes: Callable[[int], None] = lambda done: None,
    environ: Mapping[str, str] | None = None,
) -> Measured:
    """Streams the file once; a cut line is gone on with. Safe to interrupt.

    Raises `Unreachable` when the link does not give a file.
    """
    source = resolve(link, os.environ if environ is None else environ)
    sink = _Sink()
    if isinstance(source, Path):
        _read(source, sink, on_bytes)
    else:
        download(source, sink, Wanted(None, on_bytes, threading.Event()))
    return Measured(sink.size_bytes, sink.digest.hexdigest(), bytes(sink.head))


def _read(path: Path, sink: "_Sink", on_bytes: Callable[[int], None]) -> None:
    try:
        with path.open("rb") as reader:
            while chunk := reader.read(READ_BYTES):
                sink.write(chunk)
                on_bytes(sink.size_bytes)
    except OSError as error:
        raise Unreachable(f"cannot read {path}: {error.strerror or error}") from error


class _Sink:
    """See `sdq.worker.fetch.web.Sink`."""

    def __init__(self) -> None:
        self._validators: dict[str, str] = {}
        self.restart()

    def restart(self) -> None:
        self.size_bytes = 0
        self.digest = hashlib.sha256()
        self.head = bytearray()

    def write(self, chunk: bytes) -> None:
        self.size_bytes += len(chunk)
        self.digest.update(chunk)
        self.head += chunk[: HEAD_BYTES - len(self.head)]

    def validator_of(self, url: str) -> str:
        return self._validators.get(url, "")

    def remember(self, url: str, validator: str) -> None:
        self._validators = {url: validator}
