"""What is installed here: ``worker.json``, the model's folder, and whether its files are right.

::

    <home>/worker/worker.json                          settings, mode 0600: it holds a password
    <home>/models/<model_id>/<fingerprint[:16]>/       the model, in the layout that it came in
                                       …/.stamp.json   size, time and hash of each verified file
"""

import contextlib
import hashlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sdq.broker import HeldModel
from sdq.config import Home
from sdq.errors import ModelError, OutputError, UsageError
from sdq.protocol.model import ModelFile, ModelManifest, Sha256, WorkerId
from sdq.storage import LockFile, LockHeld, replace_file
from sdq.worker.fetch.paths import place
from sdq.worker.profile import Profile

INSTALL_HINT = "run `sdq worker install` first"
REPAIR_HINT = "run `sdq worker install` to fetch it again"
STAMP_NAME = ".stamp.json"


class InstalledModel(msgspec.Struct, frozen=True):
    manifest: ModelManifest
    profile: Profile


class WorkerConfig(msgspec.Struct, frozen=True):
    """``worker.json``. ``redis_url`` holds a password: never print it, nor the whole struct."""

    redis_url: str
    worker_id: WorkerId
    models: tuple[InstalledModel, ...]  # in the order of their first installation

    @property
    def model(self) -> ModelManifest:
        """The first of the models."""
        return self.models[0].manifest

    def held(self) -> tuple[HeldModel, ...]:
        """The models as the heartbeat names them."""
        manifests = [installed.manifest for installed in self.models]
        return tuple(HeldModel(found.model_id, found.fingerprint) for found in manifests)

    def find(self, model_id: str) -> InstalledModel | None:
        found = (one for one in self.models if one.manifest.model_id == model_id)
        return next(found, None)

    def with_model(self, installed: InstalledModel) -> "WorkerConfig":
        """One model more, or in the place of the one of the same id."""
        by_id = {one.manifest.model_id: one for one in self.models}
        by_id[installed.manifest.model_id] = installed
        return msgspec.structs.replace(self, models=tuple(by_id.values()))

    def without(self, model_id: str) -> "WorkerConfig":
        kept = tuple(one for one in self.models if one.manifest.model_id != model_id)
        return msgspec.structs.replace(self, models=kept)


class _Older(msgspec.Struct, frozen=True):
    """What every ``worker.json`` has had, whatever else was in it."""

    redis_url: str
    worker_id: WorkerId
    models: tuple[dict[str, object], ...]


class FileStamp(msgspec.Struct, frozen=True):
    """A file as it was when its hash was found to be right. An archive is gone once it was
    unpacked: ``parts`` are the files that came out of it, each with a stamp of its own."""

    size_bytes: int
    mtime_ns: int
    sha256: Sha256
    parts: tuple[str, ...] = ()


def config_file(home: Home) -> Path:
    return home.worker_dir / "worker.json"


def model_folder(home: Home, manifest: ModelManifest) -> Path:
    """Where the model's files lie. Raises `DownloadError` for an id that is no folder's name."""
    folder = place(home.models_dir, f"{manifest.model_id}/{manifest.fingerprint[:16]}")
    if folder.parent.parent != home.models_dir.resolve():
        raise ModelError(f"{manifest.model_id!r} cannot be the id of a model")
    return folder


def load_config(home: Home) -> WorkerConfig:
    """The worker's configuration, with one model at least.

    Raises `UsageError` when it is missing, broken, or of an older sdq.
    """
    config = read_config(home)
    if not config.models:
        raise _nothing_installed(home)
    return config


def read_config(home: Home) -> WorkerConfig:
    """The same; it may be without a model, once the last one was removed."""
    path = config_file(home)
    try:
        return msgspec.json.decode(_config_bytes(home), type=WorkerConfig)
    except FileNotFoundError as error:
        raise _nothing_installed(home) from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint=INSTALL_HINT) from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        if _older(home) is not None:
            raise UsageError(
                f"{path} was written by an older sdq", hint="run `sdq worker install`"
            ) from error
        raise UsageError(f"{path} is broken: {error}", hint=INSTALL_HINT) from error


def known_worker_id(home: Home) -> WorkerId | None:
    """Under which name this home has worked before, if it can still be read."""
    older = _older(home)
    return older.worker_id if older else None


def _older(home: Home) -> _Older | None:
    try:
        return msgspec.json.decode(_config_bytes(home), type=_Older)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _config_bytes(home: Home) -> bytes:
    return config_file(home).read_bytes()


def _nothing_installed(home: Home) -> UsageError:
    return UsageError(f"no model is installed in {home.root}", hint=INSTALL_HINT)


def save_config(home: Home, config: WorkerConfig) -> None:
    """Writes ``worker.json`` whole or not at all, readable by its owner only."""
    write_private(config_file(home), msgspec.json.format(msgspec.json.encode(config)))


def write_private(path: Path, data: bytes) -> None:
    """A file of mode 0600, written beside its place and renamed into it.

    Raises `OutputError` when that is not possible; the old file stays as it was.
    """
    try:
        replace_file(path, data)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write {path}: {error.strerror or error}",
        hint="make room or mend the permissions; SDQ_HOME chooses another place",
    )


# ---------------------------------------------------------------- are the files right?


def is_right(
    folder: Path, file: ModelFile, stamps: dict[str, FileStamp], *, trusts_times: bool = True
) -> bool:
    """Whether the file is there and has its hash; ``stamps`` learns what was computed.

    A file whose size and time are those of its stamp is taken at its word: somebody who
    changes bytes and puts the time back is not found out, unless ``trusts_times`` is off.
    """
    stamp = stamps.get(file.path)
    if stamp is None or not stamp.parts:
        return _is_right(folder, file.path, file.sha256, stamps, trusts_times)
    return stamp.sha256 == file.sha256 and all(
        part in stamps and _is_right(folder, part, stamps[part].sha256, stamps, trusts_times)
        for part in stamp.parts
    )


def _is_right(
    folder: Path, name: str, sha256: str, stamps: dict[str, FileStamp], trusts_times: bool
) -> bool:
    path = place(folder, name)
    stamp = stamps.get(name)
    try:
        if trusts_times and stamp is not None and stamp == stamp_of(path, sha256):
            return True
        if sha256_of(path) != sha256:
            return False
        stamps[name] = stamp_of(path, sha256)
    except OSError:
        return False
    return True


def stamp_of(path: Path, sha256: str) -> FileStamp:
    """As the file is now. Raises `OSError`."""
    found = path.stat()
    return FileStamp(found.st_size, found.st_mtime_ns, sha256)


def sha256_of(path: Path) -> str:
    """The file's SHA-256 as 64 hexadecimal digits. Raises `OSError`."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def check_files(home: Home, manifest: ModelManifest) -> Path:
    """The model's folder, once all its files are as they were installed.

    Quick while sizes and times have not changed. Raises `ModelError` naming the first file
    that is missing or has changed.
    """
    folder = model_folder(home, manifest)
    stamps = read_stamps(folder)
    before = dict(stamps)
    for file in manifest.files:
        if not is_right(folder, file, stamps):
            path = _culprit(folder, file, stamps)
            what = "has changed since it was installed"
            if not os.access(path, os.R_OK):
                what = "cannot be read" if path.exists() else "is missing"
            raise ModelError(
                f"{path} {what}: this worker will not draw with {manifest.model_id}",
                hint=REPAIR_HINT,
            )
    if stamps != before:
        with contextlib.suppress(OutputError):  # a read-only folder: hashed again next time
            write_stamps(folder, stamps)
    return folder


def _culprit(folder: Path, file: ModelFile, stamps: dict[str, FileStamp]) -> Path:
    """Which file it is that is not right."""
    stamp = stamps.get(file.path)
    for part in stamp.parts if stamp else ():
        if part not in stamps or not _is_right(folder, part, stamps[part].sha256, stamps, True):
            return folder / part
    return folder / file.path


def read_stamps(folder: Path) -> dict[str, FileStamp]:
    """The stamps of a folder; none when they cannot be read: everything is hashed then."""
    try:
        data = (folder / STAMP_NAME).read_bytes()
        return msgspec.json.decode(data, type=dict[str, FileStamp])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def write_stamps(folder: Path, stamps: dict[str, FileStamp]) -> None:
    write_private(folder / STAMP_NAME, msgspec.json.encode(stamps))


# ---------------------------------------------------------------- one at a time


@contextlib.contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Holds a lock file. With ``wait=False`` gives False when another process has it."""
    lock = LockFile(path, patience_seconds=math.inf if wait else 0.0)
    try:
        lock.acquire()
    except OSError as error:
        raise _unwritable(path, error) from error
    except LockHeld:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
