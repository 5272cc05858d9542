"""Two ends of a real loopback connection, and a server that follows a script."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from sdq.protocol.connection import ClientConnection, ServerConnection
from sdq.protocol.messages import (
    Accepted,
    Cancel,
    CancelReply,
    ClientMessage,
    ErrorReply,
    Generate,
    Hello,
    Limits,
    Origin,
    Picture,
    Ping,
    PlannedPicture,
    Pong,
    Progress,
    ServerMessage,
)
from sdq.protocol.states import JobState
from sdq.protocol.stream import Stream
from sdq.spec import ImageSpec, key_of, seed_at

LIMITS = Limits(
    max_request_bytes=1024 * 1024,
    max_reply_bytes=64 * 1024 * 1024,
    max_prompt_characters=2_000,
    max_count=10,
    max_requests_in_flight=100,
    idle_timeout_seconds=60.0,
)

Serve = Callable[[Stream[ClientMessage], ServerConnection], Awaitable[None]]
Listen = Callable[..., Awaitable[int]]
Join = Callable[..., Awaitable[tuple[Stream[ServerMessage], Stream[ClientMessage]]]]


@pytest.fixture
async def listen() -> AsyncIterator[Listen]:
    """Starts a server on a free port of loopback that runs ``serve`` for each connection."""
    listeners: list[asyncio.Server] = []
    running: set[asyncio.Task[None]] = set()

    async def start(serve: Serve, **stream_options: float) -> int:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            running.add(task)
            connection = ServerConnection(LIMITS)
            stream = Stream(connection, reader, writer, **stream_options)
            try:
                await serve(stream, connection)
            except asyncio.CancelledError:
                stream.abort()
            finally:
                running.discard(task)
                await stream.close()

        listener = await asyncio.start_server(connected, "127.0.0.1", 0)
        listeners.append(listener)
        port: int = listener.sockets[0].getsockname()[1]
        return port

    yield start
    for listener in listeners:
        listener.close()
    for task in list(running):
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    for listener in listeners:
        await listener.wait_closed()


@pytest.fixture
async def join(listen: Listen) -> AsyncIterator[Join]:
    """A connected client and server, before their greeting, for a test to drive both."""
    ends: list[Stream[ServerMessage]] = []
    done = asyncio.Event()

    async def start(
        *, server_options: dict[str, float] | None = None, greeted: bool = True
    ) -> tuple[Stream[ServerMessage], Stream[ClientMessage]]:
        arrived: asyncio.Future[Stream[ClientMessage]] = asyncio.get_running_loop().create_future()

        async def hand_over(stream: Stream[ClientMessage], _: ServerConnection) -> None:
            arrived.set_result(stream)
            await done.wait()

        port = await listen(hand_over, **(server_options or {}))
        client: Stream[ServerMessage] = Stream(
            ClientConnection(), *await asyncio.open_connection("127.0.0.1", port)
        )
        ends.append(client)
        server = await arrived
        if greeted:
            await greet(client, server)
        return client, server

    yield start
    done.set()
    for client in ends:
        await client.close()


async def greet(client: Stream[ServerMessage], server: Stream[ClientMessage]) -> None:
    assert isinstance(client.connection, ClientConnection)
    assert isinstance(server.connection, ServerConnection)
    client.send_bytes(client.connection.hello("test"))
    assert isinstance(await server.receive(5), Hello)
    server.send_bytes(server.connection.welcome("test"))
    await client.receive(5)


PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c49444154789c63f8cfc000000301010018dd8db00000000049454e44ae426082"
)
"""One red pixel."""


def resolved(message: Generate, index: int) -> ImageSpec:
    draft = message.draft
    spec = ImageSpec(
        prompt=draft.prompt,
        negative_prompt=draft.negative_prompt,
        model=draft.model or "shapes",
        width=draft.width or 64,
        height=draft.height or 64,
        num_inference_steps=draft.num_inference_steps or 20,
        guidance_scale=draft.guidance_scale if draft.guidance_scale is not None else 5.0,
        scheduler=draft.scheduler or "ddim",
        seed=0,
    )
    fields = {name: getattr(spec, name) for name in spec.__struct_fields__}
    return ImageSpec(**fields | {"seed": seed_at(spec, draft.seed, index)})


def script(message: ClientMessage) -> list[ServerMessage]:
    """The whole answer to a message; a picture whose prompt begins with "hit" is a hit."""
    match message:
        case Ping(number=number):
            return [Pong(number)]
        case Cancel(request_id=request_id):
            return [CancelReply(request_id, cancelled=1, kept=0)]
        case Generate():
            return _generated(message)
        case Hello() | Pong():
            return []
        case other:
            return [ErrorReply(other.request_id, "not_allowed", "not in this script")]


def _generated(message: Generate) -> list[ServerMessage]:
    hit = message.draft.prompt.startswith("hit")
    origin = Origin.HIT if hit else Origin.MADE
    indices = range(message.first_index, message.first_index + message.count)
    specs = {index: resolved(message, index) for index in indices}
    keys = {index: key_of(spec, "f" * 64) for index, spec in specs.items()}
    answer: list[ServerMessage] = []
    if not hit:
        planned = [PlannedPicture(i, keys[i], specs[i], origin, f"job{i}") for i in indices]
        answer.append(Accepted(message.request_id, tuple(planned)))
        answer += [
            Progress(message.request_id, i, f"job{i}", JobState.RUNNING, step=10, steps=20)
            for i in indices
        ]
    left = message.count
    for i in indices:
        left -= 1
        answer.append(Picture(message.request_id, i, left, keys[i], specs[i], origin, 0.5, PNG))
    return answer


@pytest.fixture
async def scripted_port(listen: Listen) -> int:
    """The port of a server that greets and answers by `script`."""

    async def serve(stream: Stream[ClientMessage], connection: ServerConnection) -> None:
        while (event := await stream.receive(5)) is not None:
            if isinstance(event, Hello):
                stream.send_bytes(connection.welcome("scripted"))
            elif isinstance(event, Exception):
                request_id = getattr(event, "request_id", None)
                stream.send_error(ErrorReply(request_id, event.code, event.message, event.hint))
            else:
                for reply in script(event):
                    stream.send(reply)
            await stream.drained()

    return await listen(serve)
