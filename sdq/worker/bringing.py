"""All files of a model into its folder: what is there and right stays, the rest is fetched."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from sdq.errors import DownloadError, ModelError
from sdq.protocol.model import ModelFile, ModelManifest
from sdq.worker import models
from sdq.worker.fetch.archive import unpack
from sdq.worker.fetch.many import fetch_files
from sdq.worker.fetch.paths import check_kind, place
from sdq.worker.fetch.rate import Rate

Report = Callable[[Literal["verify", "download", "unpack"], str, int, int], None]
"""``report(phase, file, bytes that are there, of how many)``; the last is 0 if nobody knows."""


def bring(
    manifest: ModelManifest,
    folder: Path,
    report: Report,
    *,
    all_anew: bool = False,
    rate: Rate | None = None,
) -> bool:
    """True when something had to be fetched. ``all_anew``: hashes what is there once more.
    ``rate`` hears what has arrived.

    Several files at once, each resumed where an earlier try ended. Raises `DownloadError`, and
    `ModelError` for files that are not accepted. Safe to interrupt: what has arrived stays.
    """
    check_manifest_files(manifest, folder)
    sizes = [file.size_bytes for file in manifest.files]
    total_bytes = 0 if None in sizes else sum(size or 0 for size in sizes)
    stamps = models.read_stamps(folder)
    missing, present_bytes = [], 0
    for file in manifest.files:
        report("verify", file.path, present_bytes, total_bytes)
        before = dict(stamps)
        if models.is_right(folder, file, stamps, trusts_times=not all_anew):
            present_bytes += file.size_bytes or 0
        else:
            missing.append(file)
        if stamps != before:  # after each file: an install that was cut off keeps what it has
            models.write_stamps(folder, stamps)

    def on_file(file: ModelFile) -> None:
        stamps[file.path] = models.stamp_of(folder / file.path, file.sha256)
        models.write_stamps(folder, stamps)

    fetch_files(
        missing,
        folder,
        lambda path, done: report("download", path, present_bytes + done, total_bytes),
        on_file,
        rate,
    )
    if manifest.kind == "archive" and not stamps[manifest.files[0].path].parts:
        report("unpack", manifest.files[0].path, total_bytes, total_bytes)
        _unpack(folder, manifest.files[0], stamps)
        return True
    return bool(missing)


def check_manifest_files(manifest: ModelManifest, folder: Path) -> None:
    """Raises `ModelError` for what is not to be fetched at all."""
    for file in manifest.files:
        place(folder, file.path)
    if manifest.kind != "archive":
        for file in manifest.files:
            check_kind(file.path)
    elif len(manifest.files) != 1:
        raise ModelError(
            f"{manifest.model_id} should be one archive, it has {len(manifest.files)} files",
            hint="mend its entry in the server's catalog",
        )


def _unpack(folder: Path, file: ModelFile, stamps: dict[str, models.FileStamp]) -> None:
    """The archive's files take its place; their hashes are noted, so that changes are seen."""
    archive = place(folder, file.path)
    try:
        parts = unpack(archive, folder)
        for part in parts:
            stamps[part] = models.stamp_of(folder / part, models.sha256_of(folder / part))
        whole = stamps[file.path]
        stamps[file.path] = models.FileStamp(whole.size_bytes, 0, whole.sha256, parts)
        models.write_stamps(folder, stamps)
        archive.unlink()
    except OSError as error:
        raise DownloadError(
            f"cannot unpack {archive}: {error.strerror or error}",
            hint="make room or mend the permissions, then install again",
        ) from error
