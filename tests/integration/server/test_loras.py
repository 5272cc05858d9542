"""A LoRA from the client's word to the task of a worker, and to the picture's own spec."""

import asyncio
from asyncio import to_thread

import pytest

from sdq.client.client import Client
from sdq.config import Settings
from sdq.errors import InvalidSpec, UnknownLora, UsageError
from sdq.protocol.messages import Origin, Picture
from sdq.protocol.model import LoraManifest, ModelFile
from sdq.server.server import Server
from sdq.spec import Lora, LoraChoice, SpecDraft
from sdq.testing.handwork import HandWorker
from sdq.testing.rig import png

FILE = ModelFile("glow.safetensors", 1_000, "ab" * 32, ("https://example.org/glow.safetensors",))
GLOW = LoraManifest("glow", "Neon light", "MIT", ("shapes",), FILE, 0.8, "glow light")


def draft(*loras: LoraChoice) -> SpecDraft:
    return SpecDraft("a cat", seed=3, loras=loras)


async def ask(client: Client, wanted: SpecDraft) -> Picture:
    news = [one async for one in client.watch(wanted)]
    (picture,) = [one for one in news if isinstance(one, Picture)]
    return picture


async def drawn(client: Client, wanted: SpecDraft, worker: HandWorker) -> Picture:
    """The picture, drawn by the worker, which was told where the LoRA is to be had."""
    request = asyncio.create_task(ask(client, wanted))
    task = await to_thread(worker.take)
    assert task.loras == ((FILE,) if task.spec.loras else ())
    await to_thread(worker.begin, task)
    await to_thread(worker.deliver, task, png())
    return await request


async def test_a_lora_is_added_drawn_with_and_part_of_the_key(
    settings: Settings, redis_url: str, worker: HandWorker
) -> None:
    worker.beat()
    server = await Server.start(settings, redis_url=redis_url)
    try:
        async with await Client.connect(f"127.0.0.1:{server.port}") as client:
            assert (await client.put_lora(GLOW)).model_id == "glow"
            with pytest.raises(UsageError, match="'glow' already"):
                await client.put_lora(GLOW)
            assert GLOW in await client.loras()
            assert GLOW in await client.loras("shapes")

            usual = await drawn(client, draft(LoraChoice("glow")), worker)
            assert usual.spec.loras == (Lora("glow", "ab" * 32, 0.8),)
            plain = await drawn(client, draft(), worker)
            assert plain.spec.loras == ()
            assert plain.key != usual.key
            for again, first in (
                (draft(LoraChoice("glow", 0.8)), usual),
                (draft(LoraChoice("glow", 0.0)), plain),
            ):
                hit = await ask(client, again)
                assert (hit.cache, hit.key) == (Origin.HIT, first.key)

            for wanted, kind, words in (
                (draft(LoraChoice("glov")), UnknownLora, "did you mean 'glow'"),
                (draft(LoraChoice("glow"), LoraChoice("glow")), InvalidSpec, "twice"),
            ):
                with pytest.raises(kind, match=words):
                    await ask(client, wanted)
            assert (await client.remove_lora("glow")).cancelled == 0
            assert GLOW not in await client.loras()
    finally:
        await server.close()
