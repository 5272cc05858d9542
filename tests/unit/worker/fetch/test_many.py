"""All files of a model at once: what is told meanwhile, and how it ends."""

import shutil
import threading
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import pytest

from sdq.errors import DownloadError
from sdq.protocol.model import ModelFile
from sdq.testing.file_server import Fault, FileServer
from sdq.worker.fetch import many
from sdq.worker.fetch.many import check_room, fetch_files
from sdq.worker.fetch.rate import Rate


class Usage(NamedTuple):
    free: int


def model(web: FileServer, count: int, size_bytes: int = 10_000) -> list[ModelFile]:
    made = []
    for number in range(count):
        data = bytes([number]) * size_bytes
        web.files[f"/{number}"] = data
        digest = sha256(data).hexdigest()
        made.append(
            ModelFile(f"part{number}/w.safetensors", size_bytes, digest, (f"{web.url}/{number}",))
        )
    return made


def test_all_arrive_and_the_sum_is_told(web: FileServer, tmp_path: Path) -> None:
    files = model(web, 7)
    told: list[int] = []
    whole: list[str] = []
    fetch_files(
        files, tmp_path, lambda path, done: told.append(done), lambda f: whole.append(f.path)
    )
    for file in files:
        assert sha256((tmp_path / file.path).read_bytes()).hexdigest() == file.sha256
    assert sorted(whole) == sorted(file.path for file in files)
    assert told == sorted(told)
    assert told[-1] == 70_000


def test_nothing_to_fetch(tmp_path: Path) -> None:
    fetch_files([], tmp_path, lambda path, done: pytest.fail("nothing is under way"))


def test_several_are_under_way_at_once(web: FileServer, tmp_path: Path) -> None:
    """The first one waits until the second is there: one after the other would never end."""
    files = model(web, 2)
    web.faults["/0"] = [Fault(stall_seconds=30.0)]
    seen: list[str] = []

    def on_file(file: ModelFile) -> None:
        seen.append(file.path)
        raise KeyboardInterrupt  # and Ctrl-C does not wait for the line that is silent

    with pytest.raises(KeyboardInterrupt):
        fetch_files(files, tmp_path, lambda path, done: None, on_file)
    assert seen == ["part1/w.safetensors"]


def test_one_failure_stops_the_others_and_keeps_what_is_there(
    web: FileServer, tmp_path: Path
) -> None:
    files = model(web, 3)
    web.always["/2"] = Fault(status=404)
    with pytest.raises(DownloadError, match="404"):
        fetch_files(files, tmp_path, lambda path, done: None)
    assert not any(thread.name.startswith("sdq-fetch") for thread in threading.enumerate())
    web.always.clear()
    fetch_files(files, tmp_path, lambda path, done: None)
    assert all((tmp_path / file.path).exists() for file in files)


def test_too_little_room_is_told_before_anything_is_fetched(
    web: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = model(web, 2, size_bytes=3_000_000)
    free_bytes = many.SPARE_BYTES + 4_000_000
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free_bytes))
    with pytest.raises(DownloadError, match="6 MB are to come, 71 MB are free") as caught:
        fetch_files(files, tmp_path / "new" / "folder", lambda path, done: None)
    assert "room for 2 MB more" in caught.value.hint
    assert not web.requests
    # What is there already needs no room.
    part = tmp_path / "part0" / "w.safetensors.part"
    part.parent.mkdir()
    part.write_bytes(b"\0" * 2_500_000)
    check_room(files, tmp_path)


def test_a_path_that_leaves_the_folder(tmp_path: Path) -> None:
    file = ModelFile("../out.json", 1, "0" * 64, ("file:///dev/null",))
    with pytest.raises(DownloadError, match="leads out of"):
        fetch_files([file], tmp_path / "in", lambda path, done: None)


class Heard(Rate):
    """Remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[int] = []

    def note(self, arrived_bytes: int) -> None:
        self.told.append(arrived_bytes)


def test_the_rate_hears_only_of_what_arrives_in_this_run(web: FileServer, tmp_path: Path) -> None:
    files = model(web, 2)
    part = tmp_path / (files[0].path + ".part")
    part.parent.mkdir(parents=True)
    part.write_bytes(web.files["/0"][:7_000])
    rate, told = Heard(), []
    fetch_files(files, tmp_path, lambda path, done: told.append(done), rate=rate)
    assert told[-1] == 20_000
    assert rate.told[-1] == 13_000
    assert rate.told == sorted(rate.told)
