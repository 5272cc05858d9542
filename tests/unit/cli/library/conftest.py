"""A real library behind a scripted server in a thread; the commands run in the test's own."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from sdq.cli.main import main
from sdq.errors import SdqError
from sdq.protocol.job_messages import Jobs, ListJobs
from sdq.protocol.library_messages import FetchPicture, FindPictures, PinPictures, RemovePictures
from sdq.protocol.messages import (
    ClientMessage,
    ErrorReply,
    Generate,
    ListModels,
    Models,
)
from sdq.protocol.model import ModelDefaults, ModelInfo, ModelLimits
from sdq.server.library.library import Library
from sdq.server.requests.library_requests import LibraryRequests
from sdq.spec import ImageSpec, SpecDraft, key_of
from sdq.testing.shelf import Shelf
from sdq.testing.transport import (
    FINGERPRINT,
    ScriptedPeer,
    ScriptedServer,
    drawn,
    pictures_of,
    resolved,
)

MODEL = ModelInfo(
    model_id="shapes",
    title="Shapes",
    license="MIT",
    defaults=ModelDefaults(64, 64, 20, 4.0, "ddim"),
    limits=ModelLimits(8, 128, 128 * 128, 100, ("ddim",)),
    fingerprint=FINGERPRINT,
    size_bytes=None,
    is_default=True,
    workers_online=1,
)

Ask = Callable[..., tuple[int, str, str]]


@dataclass
class Shop:
    """What the server has, and how it draws."""

    keys: list[str] = field(default_factory=list)  # oldest first
    specs: list[ImageSpec] = field(default_factory=list)
    paint: Callable[[ImageSpec], bytes] = drawn
    fingerprint: str = FINGERPRINT
    jobs: Jobs = field(default_factory=lambda: Jobs(0, ()))
    heard: list[ClientMessage] = field(default_factory=list)

    async def stock(self, shelf: Shelf, library: Library) -> None:
        for number, prompt in enumerate(
            ["a red circle", "a blue circle", "a red square", "</script><b>é\x1b[31m&\"'"]
        ):
            spec = resolved(SpecDraft(prompt=prompt, seed=number))
            self.specs.append(spec)
            self.keys.append(key_of(spec, FINGERPRINT))
            shelf.clock.now += 10
            await library.put(self.keys[-1], spec, drawn(spec), 0.5)

    async def answer(
        self, requests: LibraryRequests, peer: ScriptedPeer, message: ClientMessage
    ) -> None:
        self.heard.append(message)
        request_id = getattr(message, "request_id", 0)
        match message:
            case FindPictures() | FetchPicture() | PinPictures() | RemovePictures():
                try:
                    peer.send(await requests.answer(message))
                except SdqError as error:
                    peer.send(ErrorReply(request_id, error.code, error.message, error.hint))
            case ListModels():
                model = msgspec.structs.replace(MODEL, fingerprint=self.fingerprint)
                peer.send(Models(request_id, (model,)))
            case ListJobs():
                peer.send(msgspec.structs.replace(self.jobs, request_id=request_id))
            case Generate():
                for picture in pictures_of(message):
                    image = self.paint(picture.spec)
                    peer.send(msgspec.structs.replace(picture, image=image))


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A server with four pictures, in a thread; it is the configured one."""
    shop, shelf = Shop(), Shelf(tmp_path / "server")
    (tmp_path / "server").mkdir()
    ready: list[str] = []
    started, stop, loop = threading.Event(), asyncio.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        async with shelf.open(memory_bytes=0) as library:
            await shop.stock(shelf, library)
            requests = LibraryRequests(library)

            async def answer(peer: ScriptedPeer, message: ClientMessage) -> None:
                await shop.answer(requests, peer, message)

            async with ScriptedServer(answer) as server:
                ready.append(server.address)
                started.set()
                await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(10)
    monkeypatch.setenv("SDQ_SERVER", ready[0])
    yield shop
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


@pytest.fixture
def ask(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ask:
    """Runs ``sdq ARGUMENTS`` in a folder of its own: exit code, standard output, standard error."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments))
        return code, *capfd.readouterr()

    return run
