"""A lock file that says who holds it."""

import fcntl
import json
import os
import time
from pathlib import Path
from types import TracebackType

from sdq.errors import StackError

_POLL_SECONDS = 0.05


class LockHeld(Exception):
    """Somebody else holds the lock. ``holder`` is what that one wrote down about itself."""

    def __init__(self, holder: dict[str, object]) -> None:
        super().__init__("the lock is held")
        self.holder = holder


class LockFile:
    """An exclusive lock as a context manager; the system releases it when the process dies.

    ``patience_seconds``: a holder that was just killed may need a moment to be gone.
    """

    def __init__(self, path: Path, *, patience_seconds: float = 1.0) -> None:
        self.path = path
        self._patience_seconds = patience_seconds
        self._descriptor = -1

    def __enter__(self) -> "LockFile":
        """Raises `LockHeld`, and `StackError` when the file cannot be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            self._lock()
            self.write()
        except OSError as error:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            raise StackError(
                f"cannot write {self.path}: {error.strerror}",
                hint="choose another place with SDQ_HOME",
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The file stays: removing it would let two processes lock two files of one name.
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)

    def write(self, **facts: object) -> None:
        """Writes down who holds the lock: the process id and ``facts``."""
        data = json.dumps({"pid": os.getpid(), **facts}).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, data, 0)

    def _lock(self) -> None:
        deadline = time.monotonic() + self._patience_seconds
        while True:
            try:
                return fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    holder = self._read()
                    os.close(self._descriptor)
                    raise LockHeld(holder) from None
            time.sleep(_POLL_SECONDS)

    def _read(self) -> dict[str, object]:
        try:
            holder = json.loads(os.pread(self._descriptor, 4096, 0))
        except ValueError:
            return {}  # read in the moment between two writes
        return holder if isinstance(holder, dict) else {}
