"""LoRAs on the disk: fetched once, kept while there is room, never waited for in vain."""

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from sdq.errors import Cancelled, DownloadError, GenerationFailed
from sdq.protocol.model import ModelFile
from sdq.spec import Lora
from sdq.testing.file_server import Fault, FileServer
from sdq.worker import lora_store
from sdq.worker.fetch.many import FILES_AT_ONCE
from sdq.worker.lora_store import LoraStore, lora_path

Wait = Callable[[Callable[[], object]], None]
SIZE_BYTES = 1000


@pytest.fixture
def web() -> Iterator[FileServer]:
    with FileServer() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "loras"


@pytest.fixture
def store(folder: Path) -> Iterator[LoraStore]:
    made = LoraStore(folder)
    yield made
    made.close()


def published(web: FileServer, letter: str, **changes: object) -> tuple[Lora, ModelFile]:
    """A LoRA that this server has."""
    data = letter.encode() * SIZE_BYTES
    sha256 = hashlib.sha256(data).hexdigest()
    web.files[f"/{letter}.safetensors"] = data
    link = f"{web.url}/{letter}.safetensors"
    file = ModelFile(f"{letter}.safetensors", SIZE_BYTES, sha256, (link,))
    return Lora(letter, sha256, 1.0), msgspec.structs.replace(file, **changes)


def nobody() -> None:
    """No reason to stop."""


def bring(store: LoraStore, *pairs: tuple[Lora, ModelFile]) -> None:
    loras, files = zip(*pairs, strict=True)
    with store.held(loras, files, nobody):
        pass


def test_it_is_fetched_once(
    web: FileServer, store: LoraStore, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pair = published(web, "a")
    for _ in range(2):
        with store.held([pair[0]], [pair[1]], nobody):
            assert lora_path(folder, pair[0]).read_bytes() == b"a" * SIZE_BYTES
    bring(LoraStore(folder), pair)  # after a restart
    with store.held([pair[0]], [], nobody):  # the catalog has forgotten it
        pass
    assert len(web.requests) == 1
    assert caplog.text.count("fetching LoRA a (0.0 MB)") == 1


def test_a_file_without_a_stamp_is_hashed_and_a_changed_one_fetched_again(
    web: FileServer, store: LoraStore, folder: Path
) -> None:
    pair = published(web, "a")
    path = lora_path(folder, pair[0])
    folder.mkdir()
    path.write_bytes(b"a" * SIZE_BYTES)
    bring(store, pair)
    assert web.requests == []
    path.write_bytes(b"b" * SIZE_BYTES)
    os.utime(path, (1, 1))
    bring(store, pair)
    assert path.read_bytes() == b"a" * SIZE_BYTES
    assert len(web.requests) == 1


def test_all_who_need_it_wait_for_one_download(
    web: FileServer, store: LoraStore, wait_for: Wait
) -> None:
    pair = published(web, "a")
    web.faults["/a.safetensors"] = [Fault(stall_seconds=0.3)]
    threads = [threading.Thread(target=bring, args=(store, pair)) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_for(lambda: web.requests)
    assert store.note == "fetching LoRA a (0.0 MB)"
    for thread in threads:
        thread.join(10)
    assert len(web.requests) == 1
    assert store.note == ""


def test_the_note_stays_short(web: FileServer, store: LoraStore, wait_for: Wait) -> None:
    busy = Fault(status=503, retry_after="60")
    pairs = [published(web, letter) for letter in "abcdef"]
    web.always = dict.fromkeys(web.files, busy)
    wanted = threading.Event()

    def look() -> None:
        if wanted.is_set():
            stop()

    def begin(lora: Lora, file: ModelFile) -> None:
        with pytest.raises(Cancelled), store.held([lora], [file], look):
            pass

    threads = [threading.Thread(target=begin, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    wait_for(lambda: store.note.endswith("LoRA c (0.0 MB), 3 more"))
    assert len(web.requests) <= FILES_AT_ONCE
    wanted.set()
    for thread in threads:
        thread.join(10)


def test_who_stops_waiting_leaves_the_download_to_the_others(
    web: FileServer, store: LoraStore, folder: Path, wait_for: Wait
) -> None:
    pair = published(web, "a")
    web.faults["/a.safetensors"] = [Fault(stall_seconds=1.0)]
    other = threading.Thread(target=bring, args=(store, pair))
    other.start()
    wait_for(lambda: web.requests)
    with pytest.raises(Cancelled), store.held([pair[0]], [pair[1]], stop):
        raise AssertionError("it is not here yet")
    other.join(10)
    assert lora_path(folder, pair[0]).exists()
    assert len(web.requests) == 1


def stop() -> None:
    raise Cancelled("not wanted any more")


def test_when_nobody_waits_it_ends_and_goes_on_from_there_later(
    web: FileServer, store: LoraStore, folder: Path
) -> None:
    pair = published(web, "a")
    busy = Fault(status=503, retry_after="60")
    web.faults["/a.safetensors"] = [Fault(cut_after_bytes=400), busy]

    def stop_in_the_middle() -> None:
        if len(web.requests) == 2:
            stop()

    with pytest.raises(Cancelled), store.held([pair[0]], [pair[1]], stop_in_the_middle):
        pass
    bring(store, pair)
    assert lora_path(folder, pair[0]).read_bytes() == b"a" * SIZE_BYTES
    assert web.requests[-1].headers["range"] == "bytes=400-"
    assert sum(request.sent_bytes for request in web.requests) == SIZE_BYTES


def test_a_wrong_file_is_told_and_not_kept(web: FileServer, store: LoraStore, folder: Path) -> None:
    lora, file = published(web, "a")
    web.files["/a.safetensors"] = b"x" * SIZE_BYTES
    with pytest.raises(DownloadError, match=r"LoRA a cannot be fetched: .*wrong hash") as caught:
        bring(store, (lora, file))
    assert "catalog" in caught.value.hint
    assert not lora_path(folder, lora).exists()
    assert store.note == ""


def test_without_a_link(web: FileServer, store: LoraStore) -> None:
    lora, file = published(web, "a", links=())
    for files in ([], [file]):
        with (
            pytest.raises(DownloadError, match="server names no link"),
            store.held([lora], files, nobody),
        ):
            pass


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"path": "a.ckpt"}, "pickle"),
        ({"path": "a.json"}, "a LoRA is a safetensors file"),
        ({"size_bytes": 5 * 1024**3}, "larger than 4 GiB"),
    ],
)
def test_what_nobody_should_fetch(
    web: FileServer, store: LoraStore, changes: dict[str, object], reason: str
) -> None:
    pair = published(web, "a", **changes)
    with pytest.raises(GenerationFailed, match=reason):
        bring(store, pair)
    assert web.requests == []


def test_one_whose_size_nobody_knew_ends_when_it_is_too_large(
    web: FileServer, store: LoraStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora_store, "MAX_FILE_BYTES", SIZE_BYTES - 1)
    with pytest.raises(GenerationFailed, match="the LoRA a is larger"):
        bring(store, published(web, "a", size_bytes=None))


def test_the_one_used_longest_ago_leaves(web: FileServer, folder: Path) -> None:
    store = LoraStore(folder, max_bytes=3 * SIZE_BYTES)
    pairs = {letter: published(web, letter) for letter in "abcd"}
    for letter in "abc":
        bring(store, pairs[letter])
    bring(store, pairs["a"])  # b is the oldest now
    bring(store, pairs["d"])
    assert {letter for letter in "abcd" if lora_path(folder, pairs[letter][0]).exists()} == {*"acd"}


def test_never_one_that_is_needed(web: FileServer, folder: Path) -> None:
    store = LoraStore(folder, max_bytes=2 * SIZE_BYTES)
    first, second, third = (published(web, letter) for letter in "abc")
    with store.held([first[0], second[0]], [first[1], second[1]], nobody):
        with pytest.raises(DownloadError, match="no room for the LoRA c") as caught:
            bring(store, third)
        assert "worker.lora_bytes" in caught.value.hint
    bring(store, third)
    assert lora_path(folder, third[0]).exists()


def test_a_full_disk_is_told(
    web: FileServer, store: LoraStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sdq.worker.fetch import many

    monkeypatch.setattr(many, "SPARE_BYTES", 2**62)
    with pytest.raises(DownloadError, match="not enough room"):
        bring(store, published(web, "a"))
    assert web.requests == []


def test_closing_ends_what_is_under_way(web: FileServer, store: LoraStore, wait_for: Wait) -> None:
    pair = published(web, "a")
    web.always["/a.safetensors"] = Fault(stall_seconds=0.5)
    closing = threading.Event()

    def look() -> None:
        if closing.is_set():
            stop()

    def begin() -> None:
        with pytest.raises(Cancelled), store.held([pair[0]], [pair[1]], look):
            pass

    job = threading.Thread(target=begin)
    job.start()
    wait_for(lambda: web.requests)
    closing.set()
    store.close()
    job.join(10)
    assert not [thread for thread in threading.enumerate() if thread.name == "sdq-lora"]
