"""A server that says what a test tells it to, over a real socket on the loopback.

::

    async with ScriptedServer(draws(steps=3)) as server:
        client = await Client.connect(server.address)
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType

import msgspec

from sdq.errors import ConnectionFailed, ProtocolError
from sdq.metadata import Provenance, png_bytes
from sdq.protocol.connection import ServerConnection
from sdq.protocol.job_messages import PlannedPicture
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
    Pong,
    Progress,
)
from sdq.protocol.states import JobState
from sdq.protocol.stream import Stream
from sdq.spec import ImageSpec, SpecDraft, key_of, seed_at

FINGERPRINT = "f" * 64

LIMITS = Limits(
    max_request_bytes=1024 * 1024,
    max_reply_bytes=64 * 1024 * 1024,
    max_prompt_characters=2_000,
    max_count=100,
    max_requests_in_flight=100,
    idle_timeout_seconds=60.0,
)


@dataclass
class ScriptedPeer:
    """The server's end of one connection, in a test's hands."""

    stream: Stream[ClientMessage]
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def send(self, message: msgspec.Struct) -> None:
        self.stream.send(message)

    def hang_up(self) -> None:
        """Ends the connection without a word."""
        self.stream.abort()


Handler = Callable[[ScriptedPeer, ClientMessage], Awaitable[None]]
"""Called once for each request, as a task of its own: it may take its time."""


class ScriptedServer:
    """Greets, answers pings, keeps all it hears in ``heard``, hands requests to ``handler``.

    ``answers_cancel``: `Cancel` is answered here, or not at all; ``None``: by the handler.
    """

    def __init__(
        self, handler: Handler, *, limits: Limits = LIMITS, answers_cancel: bool | None = True
    ) -> None:
        self.handler = handler
        self.limits = limits
        self.answers_cancel = answers_cancel
        self.heard: list[ClientMessage] = []
        self.address = ""
        self.connections = 0
        self._news = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._peers: dict[asyncio.Task[None], ScriptedPeer] = {}

    async def __aenter__(self) -> "ScriptedServer":
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listens: on a free port at first, on the same one after `stop`."""
        port = int(self.address.rpartition(":")[2] or 0)
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self, *, word: ErrorReply | None = None) -> None:
        """Dies: nobody listens any more, every connection is cut, after ``word`` if given."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        for peer in list(self._peers.values()):
            if word is not None:
                peer.send(word)
                peer.stream.hang_up()
            else:
                peer.hang_up()
        tasks = list(self._peers)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()

    def heard_of(self, kind: type[msgspec.Struct]) -> list[msgspec.Struct]:
        """The messages of one type, in order."""
        return [message for message in self.heard if isinstance(message, kind)]

    async def heard_enough(self, is_enough: Callable[[], bool], timeout_seconds: float = 5) -> None:
        """Waits until what was heard satisfies a condition; `TimeoutError` if it never does."""
        async with asyncio.timeout(timeout_seconds):
            while not is_enough():
                self._news.clear()
                await self._news.wait()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = ServerConnection(self.limits)
        peer = ScriptedPeer(Stream(connection, reader, writer))
        task = asyncio.create_task(self._serve(peer, connection))
        self._peers[task] = peer
        task.add_done_callback(lambda done: self._peers.pop(done, None))

    async def _serve(self, peer: ScriptedPeer, connection: ServerConnection) -> None:
        try:
            while event := await peer.stream.receive():
                if isinstance(event, ProtocolError):
                    peer.stream.send_error(ErrorReply(None, event.code, event.message, event.hint))
                    await peer.stream.linger()
                    return
                self._hear(event, peer, connection)
        except ConnectionFailed:
            pass
        finally:
            for task in peer.tasks:
                task.cancel()
            await asyncio.gather(*peer.tasks, return_exceptions=True)
            await peer.stream.close()

    def _hear(
        self, message: ClientMessage, peer: ScriptedPeer, connection: ServerConnection
    ) -> None:
        self.heard.append(message)
        self._news.set()
        if isinstance(message, Hello):
            peer.stream.send_bytes(connection.welcome("scripted"))
        elif isinstance(message, Ping):
            peer.send(Pong(message.number))
        elif not isinstance(message, Pong):
            task = asyncio.create_task(self._answer(peer, message))
            peer.tasks.add(task)

    async def _answer(self, peer: ScriptedPeer, message: ClientMessage) -> None:
        if not isinstance(message, Cancel) or self.answers_cancel is None:
            await self.handler(peer, message)
        elif self.answers_cancel:
            peer.send(CancelReply(message.request_id, cancelled=1, kept=0))


def resolved(draft: SpecDraft, index: int = 0) -> ImageSpec:
    """A draft with the gaps filled in, as a server with the model ``shapes`` would."""
    spec = ImageSpec(
        prompt=draft.prompt.strip(),
        negative_prompt=draft.negative_prompt,
        model=draft.model or "shapes",
        width=draft.width or 64,
        height=draft.height or 64,
        num_inference_steps=draft.num_inference_steps or 20,
        guidance_scale=draft.guidance_scale if draft.guidance_scale is not None else 4.0,
        scheduler=draft.scheduler or "ddim",
        seed=0,
    )
    return msgspec.structs.replace(spec, seed=seed_at(spec, draft.seed, index))


def drawn(spec: ImageSpec) -> bytes:
    """A PNG of one colour, of the size and with the texts of a real one."""
    from PIL import Image

    key = key_of(spec, FINGERPRINT)
    colour = tuple(bytes.fromhex(key[:6]))
    provenance = Provenance(spec, key, FINGERPRINT, "f" * 10, "cpu", {"sdq": "test"})
    return png_bytes(Image.new("RGB", (spec.width, spec.height), colour), provenance)


def pictures_of(request: Generate, cache: Origin = Origin.MADE) -> list[Picture]:
    """The replies that a request asks for, in order."""
    replies = []
    for number in range(request.count):
        index = request.first_index + number
        spec = resolved(request.draft, index)
        replies.append(
            Picture(
                request_id=request.request_id,
                index=index,
                remaining=request.count - 1 - number,
                key=key_of(spec, FINGERPRINT),
                spec=spec,
                cache=cache,
                draw_seconds=0.5,
                image=drawn(spec),
            )
        )
    return replies


def accepted(request: Generate, cache: Origin = Origin.MADE) -> Accepted:
    """The server's promise of those pictures."""
    planned = tuple(
        PlannedPicture(picture.index, picture.key, picture.spec, cache, f"job{picture.index}")
        for picture in pictures_of(request, cache)
    )
    return Accepted(request.request_id, planned)


def stepping(request: Generate, index: int, step: int, steps: int) -> Progress:
    """News of a picture that is being drawn."""
    return Progress(
        request.request_id, index, f"job{index}", JobState.RUNNING, step=step, steps=steps
    )


def hits() -> Handler:
    """Every picture is in the library already."""

    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        assert isinstance(message, Generate)
        for picture in pictures_of(message, Origin.HIT):
            peer.send(picture)

    return handle


def draws(steps: int = 3, step_seconds: float = 0.0, preview: bytes = b"") -> Handler:
    """Every picture is drawn, one after the other. ``preview``: of each step, for those who ask."""

    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        assert isinstance(message, Generate)
        peer.send(accepted(message))
        for picture in pictures_of(message):
            for step in range(1, steps + 1):
                news = stepping(message, picture.index, step, steps)
                seen = preview if message.preview else b""
                peer.send(msgspec.structs.replace(news, preview=seen))
                await asyncio.sleep(step_seconds)
            peer.send(picture)

    return handle


def refuses(code: str, message: str, hint: str = "") -> Handler:
    """Every request ends in this error."""

    async def handle(peer: ScriptedPeer, request: ClientMessage) -> None:
        peer.send(ErrorReply(getattr(request, "request_id", None), code, message, hint))

    return handle


def stays_silent() -> Handler:
    """Takes every request and never answers."""

    async def handle(peer: ScriptedPeer, message: ClientMessage) -> None:
        if isinstance(message, Generate):
            peer.send(accepted(message))

    return handle
