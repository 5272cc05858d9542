"""LoRAs on this worker's disk: fetched when the first job asks for one, kept for the next ones.

::

    <home>/loras/<sha256>.safetensors        one each; the time of its last use is its access time
    <home>/loras/<sha256>.safetensors.part   still growing, or left by a job that was cancelled
    <home>/loras/.stamp.json                 size, time and hash of each verified file
"""

import contextlib
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from sdq.config import GIB
from sdq.errors import DownloadError, GenerationFailed, ModelError, OutputError, SdqError
from sdq.protocol.model import MAX_LORA_BYTES, ModelFile
from sdq.spec import Lora
from sdq.worker import models
from sdq.worker.fetch.faults import Halted
from sdq.worker.fetch.many import FILES_AT_ONCE, HALT_SECONDS, check_room
from sdq.worker.fetch.mirrors import fetch_file
from sdq.worker.fetch.paths import check_kind

MAX_FILE_BYTES = MAX_LORA_BYTES

LOOK_SECONDS = 0.2
"""Between two looks at whether the job that waits is still wanted."""

MAX_NOTED = 3
"""Downloads that the worker's note names; a heartbeat has to stay small."""

HINT = "try again later, or tell whoever keeps the server's catalog"

_ENDING = ".safetensors"
_log = logging.getLogger(__name__)


def lora_path(folder: Path, lora: Lora) -> Path:
    """Where its file lies once it was fetched."""
    return folder / f"{lora.sha256}{_ENDING}"


class _Fetch:
    """One file that is on its way: a thread, and how many jobs wait for it."""

    def __init__(self, lora: Lora, file: ModelFile | None) -> None:
        self.lora = lora
        self.file = file
        self.waiting = 0
        self.halt = threading.Event()
        self.done = threading.Event()
        self.error: SdqError | None = None
        self.thread: threading.Thread | None = None


class LoraStore:
    """For the threads of all jobs. ``max_bytes``: of all files together; those that were not used
    for longest leave, but none that a job in hand needs."""

    def __init__(self, folder: Path, max_bytes: int = 10 * GIB) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()
        self._fetches: dict[str, _Fetch] = {}
        self._stamps: dict[str, models.FileStamp] = models.read_stamps(folder)
        self._lines = threading.Semaphore(FILES_AT_ONCE)

    @property
    def note(self) -> str:
        """What is being fetched now, for people; empty when nothing is."""
        with self._lock:
            names = sorted({_described(fetch) for fetch in self._fetches.values()})
        more = [f"{len(names) - MAX_NOTED} more"] if len(names) > MAX_NOTED else []
        return f"fetching {', '.join(names[:MAX_NOTED] + more)}" if names else ""

    @contextlib.contextmanager
    def held(
        self, loras: Sequence[Lora], files: Sequence[ModelFile], look: Callable[[], object]
    ) -> Iterator[None]:
        """Inside, the files of all these are here and stay. ``look`` is called every
        `LOOK_SECONDS` while one is fetched; what it raises ends the waiting, and the download
        unless another job waits for it. What was fetched so far is kept.

        Raises `GenerationFailed` for a file that is refused whoever offers it, else
        `DownloadError`.
        """
        found = {file.sha256: file for file in files}
        names = [lora.sha256 for lora in loras]
        with self._lock:
            self._held.update(names)
        try:
            for lora in loras:
                self._bring(lora, found.get(lora.sha256), look)
            yield
        finally:
            with self._lock:
                self._held.subtract(names)
                self._held += Counter()  # those of nobody are not kept

    def close(self) -> None:
        """Ends what is under way; a thread that waits for a silent server is left behind."""
        with self._lock:
            fetches = list(self._fetches.values())
        for fetch in fetches:
            fetch.halt.set()
        for fetch in fetches:
            if fetch.thread is not None:
                fetch.thread.join(HALT_SECONDS)

    # ------------------------------------------------------------ in a job's thread

    def _bring(self, lora: Lora, file: ModelFile | None, look: Callable[[], object]) -> None:
        while (fetch := self._join(lora, file)) is not None:
            try:
                while not fetch.done.wait(LOOK_SECONDS):
                    look()
            finally:
                self._leave(fetch)
            if fetch.error is not None:
                raise fetch.error
            look()  # it was halted when nobody waited any more: once again, then

    def _join(self, lora: Lora, file: ModelFile | None) -> _Fetch | None:
        """What to wait for; ``None`` when the file is here."""
        with self._lock:
            if self._is_here(lora):
                return None
            fetch = self._fetches.get(lora.sha256)
            if fetch is None:
                fetch = self._fetches[lora.sha256] = _Fetch(lora, file)
                fetch.thread = threading.Thread(
                    target=self._run, args=(fetch,), name="sdq-lora", daemon=True
                )
                fetch.thread.start()
            fetch.waiting += 1
            return fetch

    def _leave(self, fetch: _Fetch) -> None:
        with self._lock:
            fetch.waiting -= 1
            if not fetch.waiting:
                fetch.halt.set()

    def _is_here(self, lora: Lora) -> bool:
        path = lora_path(self._folder, lora)
        stamp = self._stamps.get(path.name)
        try:
            if stamp is None or stamp != models.stamp_of(path, lora.sha256):
                return False
            os.utime(path, ns=(time.time_ns(), stamp.mtime_ns))
        except OSError:
            return path.exists() and os.access(path, os.R_OK)  # a read-only home
        return True

    # ------------------------------------------------------------ in a thread of its own

    def _run(self, fetch: _Fetch) -> None:
        try:
            while not self._lines.acquire(timeout=LOOK_SECONDS):
                if fetch.halt.is_set():
                    return
            try:
                self._fetch(fetch)
            finally:
                self._lines.release()
        except Halted:
            pass
        except SdqError as error:
            fetch.error = error
        except Exception as error:  # noqa: BLE001 - told to the jobs that wait
            _log.debug("LoRA %s", fetch.lora.name, exc_info=True)
            fetch.error = _failed(fetch.lora, f"{type(error).__name__}: {error}")
        finally:
            with self._lock:
                del self._fetches[fetch.lora.sha256]
            fetch.done.set()

    def _fetch(self, fetch: _Fetch) -> None:
        lora, target = fetch.lora, lora_path(self._folder, fetch.lora)
        if target.exists():
            if models.sha256_of(target) == lora.sha256:
                self._stamp(lora, target)
                return
            _log.warning("%s has changed: it is fetched again", target)
            target.unlink()
        file = _checked(lora, fetch.file)
        self._make_room(lora, file.size_bytes or 0)
        too_large = threading.Event()

        def on_bytes(done_bytes: int) -> None:
            if done_bytes > MAX_FILE_BYTES:
                too_large.set()
                fetch.halt.set()

        _log.info("fetching %s", _described(fetch))
        try:
            wanted = msgspec.structs.replace(file, path=target.name)
            check_room([wanted], self._folder)
            fetch_file(wanted, target, on_bytes, halt=fetch.halt)
        except DownloadError as error:
            raise _failed(lora, error.message) from error
        except Halted:
            if too_large.is_set():
                raise _too_large(lora) from None
            raise
        self._stamp(lora, target)
        _log.info("LoRA %s is here", lora.name)
        self._make_room(lora, 0)  # one whose size nobody knew before

    def _stamp(self, lora: Lora, path: Path) -> None:
        with self._lock:
            self._stamps[path.name] = models.stamp_of(path, lora.sha256)
            with contextlib.suppress(OutputError):  # hashed again after the next start, then
                models.write_stamps(self._folder, self._stamps)

    def _make_room(self, lora: Lora, size_bytes: int) -> None:
        """Lets the oldest leave. Raises `DownloadError` when it is not enough."""
        with self._lock:
            files = [_Kept(path) for path in self._folder.glob(f"*{_ENDING}*") if path.is_file()]
            files.sort(key=lambda file: file.used_at)
            total_bytes = size_bytes + sum(
                file.size_bytes for file in files if file.sha256 != lora.sha256
            )
            for file in files:
                if total_bytes <= self._max_bytes:
                    return
                if file.sha256 not in self._held and file.sha256 not in self._fetches:
                    _log.info("%s leaves, to make room", file.path.name)
                    file.path.unlink(missing_ok=True)
                    self._stamps.pop(file.path.name, None)
                    total_bytes -= file.size_bytes
        if size_bytes and total_bytes > self._max_bytes:
            raise DownloadError(
                f"no room for the LoRA {lora.name} ({size_bytes / 1e6:.0f} MB): this worker keeps "
                f"{self._max_bytes / 1e6:.0f} MB of them, and jobs in hand need the others",
                hint="raise worker.lora_bytes on it",
            )


class _Kept:
    """A file in the folder, as it is now."""

    def __init__(self, path: Path) -> None:
        found = path.stat()
        self.path = path
        self.sha256 = path.name.partition(".")[0]
        self.size_bytes = found.st_size
        self.used_at = max(found.st_atime_ns, found.st_mtime_ns)


def _checked(lora: Lora, file: ModelFile | None) -> ModelFile:
    """The file to be fetched. Raises `GenerationFailed` for one that nobody should fetch."""
    if file is None or not file.links:
        raise DownloadError(
            f"the LoRA {lora.name} is not on this worker, and the server names no link for it",
            hint="ask whoever keeps the server's catalog",
        )
    try:
        check_kind(file.path)
    except ModelError as error:
        raise GenerationFailed(error.message, hint=error.hint) from error
    if not file.path.lower().endswith(_ENDING):
        raise GenerationFailed(f"{file.path} is refused: a LoRA is a safetensors file", hint=HINT)
    if (file.size_bytes or 0) > MAX_FILE_BYTES:
        raise _too_large(lora)
    return file


def _too_large(lora: Lora) -> GenerationFailed:
    return GenerationFailed(
        f"the LoRA {lora.name} is larger than {MAX_FILE_BYTES / GIB:.0f} GiB", hint=HINT
    )


def _failed(lora: Lora, reason: str) -> DownloadError:
    return DownloadError(f"the LoRA {lora.name} cannot be fetched: {reason}", hint=HINT)


def _described(fetch: _Fetch) -> str:
    size_bytes = fetch.file.size_bytes if fetch.file else None
    size = "size unknown" if size_bytes is None else f"{size_bytes / 1e6:.1f} MB"
    return f"LoRA {fetch.lora.name} ({size})"
