"""Files that several processes meet at: replaced whole, and locks that say who holds them."""

import contextlib
import fcntl
import json
import os
import time
from pathlib import Path
from types import TracebackType

_POLL_SECONDS = 0.05
_MAX_FACTS_BYTES = 4_096


def replace_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Writes a file beside its place, flushes it to the disk and renames it; folders are made.

    At no moment can anybody read half of it, or more than ``mode`` allows. Raises `OSError`;
    the old file stays as it was then.
    """
    beside = path.with_name(path.name + ".new")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside.unlink(missing_ok=True)
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "wb") as writer:  # noqa: PTH123 - a descriptor, for its mode
            writer.write(data)
            writer.flush()
            os.fsync(writer.fileno())
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def nearest_there(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there as far as one may look."""
    # Path.exists raises where one may not look.
    return next(one for one in (path, *path.parents) if os.path.exists(one))  # noqa: PTH110


class LockHeld(Exception):
    """Somebody else holds the lock. ``holder`` is what that one wrote down about itself."""

    def __init__(self, holder: dict[str, object]) -> None:
        super().__init__("the lock is held")
        self.holder = holder

    @property
    def pid(self) -> str:
        """The process that holds it, or ``unknown``."""
        return str(self.holder.get("pid", "unknown"))


class LockFile:
    """An exclusive lock; the system lets go of it when the process ends, however it ends.

    As a context manager, or with `acquire` and `release`. ``patience_seconds``: how long
    somebody else may hold it; a holder that was just killed may need a moment to be gone.
    """

    def __init__(self, path: Path, *, patience_seconds: float = 0.0) -> None:
        self.path = path
        self._patience_seconds = patience_seconds
        self._descriptor = -1

    def acquire(self) -> "LockFile":
        """Takes the lock; blocks while patience lasts. Its folder is made.

        Raises `LockHeld`, and `OSError` when the file cannot be opened.
        """
        if self._descriptor >= 0:
            return self
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._lock()
        except BaseException:  # Ctrl-C too must not keep the descriptor; raised again
            os.close(self._descriptor)
            self._descriptor = -1
            raise
        self.write()
        return self

    def release(self) -> None:
        """Lets go of it. May be called twice.

        The file stays: removing it would let two processes lock two files of one name.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
            os.close(descriptor)

    def write(self, **facts: object) -> None:
        """Writes down who holds the lock: the process id and ``facts``.

        On a full disk the lock is held all the same, and nobody knows by whom.
        """
        data = json.dumps({"pid": os.getpid(), **facts}).encode()
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, data, 0)

    def _lock(self) -> None:
        deadline = time.monotonic() + self._patience_seconds
        while True:
            try:
                return fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise LockHeld(self._read()) from None
            time.sleep(_POLL_SECONDS)

    def _read(self) -> dict[str, object]:
        try:
            holder = json.loads(os.pread(self._descriptor, _MAX_FACTS_BYTES, 0))
        except (OSError, ValueError):
            return {}  # read in the moment between two writes
        return holder if isinstance(holder, dict) else {}

    def __enter__(self) -> "LockFile":
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
