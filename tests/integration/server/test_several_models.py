"""A worker of two models with room for one: nothing is lost when it is killed between them."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from importlib import resources
from pathlib import Path

import pytest

import sdq
from sdq import metadata
from sdq.client.client import Client
from sdq.config import Settings
from sdq.protocol.messages import Accepted, Picture, Progress, Status
from sdq.protocol.model import ModelManifest
from sdq.server.server import Server
from sdq.spec import SpecDraft

COUNT = 8
Eventually = Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]
Start = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def two_models(settings: Settings) -> None:
    """The built-in files under a second id."""
    shipped = resources.files("sdq.server").joinpath("catalog.toml").read_text("utf-8")
    own = shipped[shipped.index("[models.shapes]") :]
    end = own.find("\n# ")
    own = own[:end] if end > 0 else own
    folder = settings.home.root / "server"
    folder.mkdir(parents=True)
    (folder / "catalog.toml").write_text(own.replace("models.shapes", "models.again"))


@pytest.fixture
def start_worker(redis_url: str, shapes: ModelManifest, tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def start() -> "subprocess.Popen[bytes]":
        arguments = [str(tmp_path / "worker"), "--redis", redis_url, "--at-once", "2"]
        arguments += ["--model", "shapes", "--model", "again", "--fit-in-memory", "1"]
        arguments += ["--fingerprint", shapes.fingerprint, "--load-seconds", "0.2"]
        arguments += ["--seconds-per-step", "0.02", "--concurrency", "0"]
        process = subprocess.Popen(
            [sys.executable, "-m", "sdq.testing.worker", *arguments],
            cwd=Path(sdq.__file__).parents[1],
            stderr=subprocess.DEVNULL,
            env={**os.environ, "SDQ_HOME": str(tmp_path / "worker")},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


class Asker:
    """One `sdq generate` of several pictures, and what it was told."""

    def __init__(self, client: Client, model_id: str) -> None:
        self._client, self.model_id = client, model_id
        self.is_accepted = False
        self.pictures: list[Picture] = []
        self.notes: set[str] = set()

    async def ask(self) -> None:
        draft = SpecDraft("a cat", model=self.model_id, num_inference_steps=10)
        async for one in self._client.watch(draft, count=COUNT):
            self.is_accepted |= isinstance(one, Accepted)
            if isinstance(one, Picture):
                self.pictures.append(one)
            elif isinstance(one, Progress):
                self.notes.add(one.note)

    def is_complete(self) -> bool:
        """Each picture once, each drawn with the right model."""
        drawn = [metadata.read(one.image) for one in self.pictures]
        return len({one.spec.seed for one in drawn if one}) == COUNT == len(drawn) and all(
            one is not None and one.spec.model == self.model_id for one in drawn
        )


@pytest.mark.usefixtures("two_models")
async def test_killed_between_two_models(
    settings: Settings, redis_url: str, start_worker: Start, eventually: Eventually
) -> None:
    server = await Server.start(settings, redis_url=redis_url)
    address = f"127.0.0.1:{server.port}"
    worker = start_worker()
    try:
        async with await Client.connect(address) as one, await Client.connect(address) as two:
            askers = [Asker(one, "shapes"), Asker(two, "again")]
            asking = [asyncio.create_task(asker.ask()) for asker in askers]

            async def status() -> Status:
                return await one.status()

            async def is_in_the_middle() -> bool:
                return 2 <= sum(len(asker.pictures) for asker in askers) < 2 * COUNT

            await eventually(is_in_the_middle)
            (seen,) = (await status()).workers
            assert seen.models == ("shapes", "again")
            assert len(seen.loaded) <= 1
            worker.kill()
            worker.wait()
            start_worker()
            async with asyncio.timeout(60):
                await asyncio.gather(*asking)
            assert [asker.is_complete() for asker in askers] == [True, True]
            notes = set.union(*(asker.notes for asker in askers))
            assert any("not in memory on any worker" in note for note in notes), notes
            left = await status()
            assert (left.queued, left.dispatched, left.running) == (0, 0, 0)
    finally:
        await server.close()
