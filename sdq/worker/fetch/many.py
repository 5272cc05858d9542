"""All files of a model, several at once."""

import queue
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from sdq.errors import DownloadError
from sdq.protocol.model import ModelFile
from sdq.storage import nearest_there
from sdq.worker.fetch.mirrors import fetch_file
from sdq.worker.fetch.paths import place
from sdq.worker.fetch.rate import Rate

FILES_AT_ONCE = 4
"""More lines to one server bring nothing but its displeasure."""

REPORT_INTERVAL_SECONDS = 0.1
HALT_SECONDS = 2.0
"""How long threads may take to stop. One that waits for a silent server is left behind: it can
do nothing but append to a part of which every byte will be verified."""

SPARE_BYTES = 64 * 1024 * 1024
"""Left free on the disk: a full one hurts everybody on the computer."""

Report = Callable[[str, int], None]
"""``report(path of the file that grew last, bytes of all these files that are there)``."""


def fetch_files(
    files: Sequence[ModelFile],
    folder: Path,
    report: Report,
    on_file: Callable[[ModelFile], None] = lambda file: None,
    rate: Rate | None = None,
) -> None:
    """Puts all of them below ``folder``. ``report`` and ``on_file`` (a file is whole and verified)
    are called in the caller's thread. ``rate`` hears, there too, what has arrived.

    Raises the first `DownloadError`, when the others have stopped; before anything is fetched
    when the disk has too little room. Safe to interrupt: parts stay.
    """
    check_room(files, folder)
    fetching = _Fetching(files, folder)
    try:
        fetching.run(report, on_file, rate or Rate())
    finally:
        fetching.halt()


def check_room(files: Sequence[ModelFile], folder: Path) -> None:
    """Raises `DownloadError` that says how much is missing on the disk of ``folder``."""
    needed_bytes = sum(_missing_bytes(file, place(folder, file.path)) for file in files)
    there = nearest_there(folder.absolute())
    free_bytes = shutil.disk_usage(there).free
    if needed_bytes and needed_bytes + SPARE_BYTES > free_bytes:
        short_bytes = needed_bytes + SPARE_BYTES - free_bytes
        raise DownloadError(
            f"not enough room in {folder}: {needed_bytes / 1e6:.0f} MB are to come, "
            f"{free_bytes / 1e6:.0f} MB are free",
            hint=f"make room for {short_bytes / 1e6:.0f} MB more, or choose another place with "
            "SDQ_HOME; what was fetched before is kept",
        )


def _missing_bytes(file: ModelFile, target: Path) -> int:
    part = target.with_name(target.name + ".part")
    have_bytes = part.stat().st_size if part.exists() else 0
    return max(0, (file.size_bytes or 0) - have_bytes)


class _Fetching:
    """Owns the threads. Each takes the next file until none is left."""

    def __init__(self, files: Sequence[ModelFile], folder: Path) -> None:
        self._folder = folder
        self._left = list(reversed(files))
        self._lock = threading.Lock()
        self._halt = threading.Event()
        self._bytes: dict[str, int] = {}
        self._arrived_bytes = 0
        self._newest = files[0].path if files else ""
        self._ends: queue.SimpleQueue[tuple[ModelFile, Exception | None]] = queue.SimpleQueue()
        self._awaited = len(files)
        self._threads = [
            threading.Thread(target=self._work, name=f"sdq-fetch-{number}", daemon=True)
            for number in range(min(FILES_AT_ONCE, len(files)))
        ]

    def run(self, report: Report, on_file: Callable[[ModelFile], None], rate: Rate) -> None:
        for thread in self._threads:
            thread.start()
        while self._awaited:
            try:
                file, error = self._ends.get(timeout=REPORT_INTERVAL_SECONDS)
            except queue.Empty:
                pass
            else:
                self._awaited -= 1
                if error is not None:
                    raise error
                on_file(file)
            with self._lock:
                newest, done_bytes = self._newest, sum(self._bytes.values())
                arrived_bytes = self._arrived_bytes
            rate.note(arrived_bytes)
            report(newest, done_bytes)

    def halt(self) -> None:
        """Stops what is under way; nothing when all is done."""
        self._halt.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(HALT_SECONDS)

    def _work(self) -> None:
        while not self._halt.is_set():
            with self._lock:
                if not self._left:
                    return
                file = self._left.pop()
            try:
                target = place(self._folder, file.path)
                fetch_file(file, target, self._counter(file), halt=self._halt)
            except Exception as error:  # noqa: BLE001 - raised again in the thread that waits
                self._ends.put((file, error))
            else:
                self._ends.put((file, None))

    def _counter(self, file: ModelFile) -> Callable[[int], None]:
        def tell(done_bytes: int) -> None:
            with self._lock:
                before = self._bytes.get(file.path, done_bytes)  # an earlier try's at first
                self._arrived_bytes += max(0, done_bytes - before)
                self._bytes[file.path] = done_bytes
                self._newest = file.path

        return tell
