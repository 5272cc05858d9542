"""A file that is still growing: ``NAME.part``, hashed while it arrives."""

import contextlib
import hashlib
import os
import queue
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

READ_BYTES = 1024 * 1024
MAX_UNHASHED_CHUNKS = 8
"""A disk or network that is faster than the hash waits for it: memory stays bounded."""


class Part:
    """Owns the part file and a thread that hashes it. A context manager; for one thread.

    What an earlier process left is gone on with. Methods raise `OSError` when the disk refuses.
    Leaving the block keeps the file, however it is left.
    """

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(target.name + ".part")
        self._notes = target.with_name(target.name + ".part.json")
        self.size_bytes = 0

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "ab", buffering=0)  # noqa: PTH123
        self.size_bytes = self._file.tell()
        self._hash = _Hash(self.path, self.size_bytes)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._hash.close()
        self._file.close()

    def write(self, chunk: bytes) -> None:
        """Appends. A chunk that could only be written in part counts as far as it was."""
        written = 0
        while written < len(chunk):
            count = self._file.write(chunk[written:])
            self._hash.update(chunk[written : written + count])
            written += count
            self.size_bytes += count

    def restart(self) -> None:
        """Throws away what is there."""
        self._hash.close()
        self._file.truncate(0)
        self.size_bytes = 0
        self._hash = _Hash(self.path, 0)

    def sha256(self) -> str:
        """Of all that was written, once it is on the disk; 64 hexadecimal digits. Empty when
        somebody else has written to the file too: it is not what was hashed."""
        os.fsync(self._file.fileno())
        if os.fstat(self._file.fileno()).st_size != self.size_bytes:
            return ""
        return self._hash.hexdigest()

    def move(self, target: Path) -> None:
        """It is whole and right: gives it its name."""
        self.path.replace(target)
        self._notes.unlink(missing_ok=True)

    # ------------------------------------------------------------ which version of the file it is

    def validator_of(self, url: str) -> str:
        """What the server of this address said of its version when we began; may be empty."""
        return self._read_notes().get(url, "")

    def remember(self, url: str, validator: str) -> None:
        """Only the newest: bytes of two versions are never put together."""
        notes = {url: validator} if validator else {}
        with contextlib.suppress(OSError):  # the next try starts anew then, that is all
            self._notes.write_bytes(msgspec.json.encode(notes))

    def _read_notes(self) -> dict[str, str]:
        try:
            return msgspec.json.decode(self._notes.read_bytes(), type=dict[str, str])
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return {}


class _Hash:
    """SHA-256 in a thread of its own: it costs as much time as the network, on another core."""

    def __init__(self, path: Path, have_bytes: int) -> None:
        self._path = path
        self._have_bytes = have_bytes
        self._digest = hashlib.sha256()
        self._chunks: queue.Queue[bytes | None] = queue.Queue(MAX_UNHASHED_CHUNKS)
        self._error: OSError | None = None
        self._given_up = False
        self._thread = threading.Thread(target=self._run, name="sdq-sha256", daemon=True)
        self._thread.start()

    def update(self, chunk: bytes) -> None:
        self._chunks.put(chunk)

    def hexdigest(self) -> str:
        """Waits for the thread. Raises what it met."""
        self._end()
        if self._error is not None:
            raise self._error
        return self._digest.hexdigest()

    def close(self) -> None:
        """Nobody asks for the digest any more."""
        self._given_up = True
        self._end()

    def _end(self) -> None:
        if self._thread.is_alive():
            self._chunks.put(None)
            self._thread.join()

    def _run(self) -> None:
        try:
            self._hash_what_is_there()
        except OSError as error:
            self._error = error
        while (chunk := self._chunks.get()) is not None:
            self._digest.update(chunk)

    def _hash_what_is_there(self) -> None:
        left = self._have_bytes
        if not left:
            return
        with self._path.open("rb") as reader:
            while left and not self._given_up and (chunk := reader.read(min(left, READ_BYTES))):
                self._digest.update(chunk)
                left -= len(chunk)
