"""The client for scripts and notebooks that know nothing of asyncio."""

from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack

from sdq.client.batch import Done, ItemT
from sdq.client.client import Client
from sdq.client.connecting import connect
from sdq.client.drafts import Parameters
from sdq.client.loop_thread import LoopThread
from sdq.client.stream import Feed, Stream
from sdq.protocol.messages import CachePolicy, Welcome
from sdq.protocol.vocabulary import Priority

P = ParamSpec("P")
T = TypeVar("T")


def _asked(
    method: Callable[Concatenate[Client, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["BlockingClient", P], T]:
    """The method that waits for the answer."""

    @wraps(method)
    def ask(self: "BlockingClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._thread.call(lambda: method(self._client, *args, **kwargs))

    return ask


def _streamed(
    method: Callable[Concatenate[Client, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate["BlockingClient", P], Stream[T]]:
    """The method that gives an iterator."""

    @wraps(method)
    def stream(self: "BlockingClient", /, *args: P.args, **kwargs: P.kwargs) -> Stream[T]:
        return Stream(self._thread, method(self._client, *args, **kwargs))

    return stream


class BlockingClient:
    """`Client` with plain methods: the same names, parameters and errors.

    A thread of its own talks to the server, so it works inside a running event loop (a notebook)
    and may be used from several threads. Ctrl-C cancels on the server what the main thread waits
    for, and raises `KeyboardInterrupt`. `close` it, or use it in ``with``: that cancels what is
    under way, ends the thread and joins it; the end of the process does so too.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        connect_timeout_seconds: float = 10,
        reconnect_seconds: float | None = None,
    ) -> None:
        """Connects, as `connect` does."""
        connecting = connect(
            server,
            connect_timeout_seconds=connect_timeout_seconds,
            reconnect_seconds=reconnect_seconds,
        )
        self._thread = LoopThread()
        try:
            self._client: Client = self._thread.call(connecting.open)
        except BaseException:  # Ctrl-C too must not leave the thread; raised again
            self._thread.close()
            raise
        self._thread.at_end(self._client.close)

    @property
    def welcome(self) -> Welcome:
        """What the server said at the beginning: its version and its limits."""
        return self._client.welcome

    def close(self) -> None:
        """Cancels what is under way, ends the connection and the thread. May be called twice."""
        self._thread.close()

    def __enter__(self) -> "BlockingClient":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def batch(
        self,
        items: Iterable[ItemT],
        *,
        jobs: int = 8,
        cache: CachePolicy | str = CachePolicy.PREFER,
        wait: bool = True,
        priority: Priority | str = Priority.NORMAL,
        timeout_seconds: float | None = None,
        **parameters: Unpack[Parameters],
    ) -> Stream[Done[ItemT]]:
        """As `Client.batch`. The items are taken in the thread that reads, while it waits for the
        next picture, so ``items`` may block and may ask this client."""
        feed = Feed(items)
        ends = self._client.batch(
            feed.follow(), jobs=jobs, cache=cache, wait=wait, priority=priority,
            timeout_seconds=timeout_seconds, **parameters,
        )  # fmt: skip
        return Stream(self._thread, ends, feed.post)

    generate = _asked(Client.generate)
    pictures = _streamed(Client.pictures)
    watch = _streamed(Client.watch)
    attach = _streamed(Client.attach)
    submit = _asked(Client.submit)

    jobs = _asked(Client.jobs)
    cancel_jobs = _asked(Client.cancel_jobs)
    status = _asked(Client.status)
    activity = _asked(Client.activity)
    foresee = _asked(Client.foresee)
    drain = _asked(Client.drain)

    find = _asked(Client.find)
    fetch = _asked(Client.fetch)
    remove = _asked(Client.remove)
    prune = _asked(Client.prune)
    find_each = _streamed(Client.find_each)
    pin = _asked(Client.pin)

    models = _asked(Client.models)
    model = _asked(Client.model)
    put_model = _asked(Client.put_model)
    remove_model = _asked(Client.remove_model)
    set_default_model = _asked(Client.set_default_model)
    loras = _asked(Client.loras)
    put_lora = _asked(Client.put_lora)
    remove_lora = _asked(Client.remove_lora)
    worker_setup = _asked(Client.worker_setup)


def connect_blocking(
    server: str | None = None,
    *,
    connect_timeout_seconds: float = 10,
    reconnect_seconds: float | None = None,
) -> BlockingClient:
    """A connection for code without asyncio, tried once; parameters and errors of `connect`::

    with connect_blocking("gpu-box:7433") as client:
        picture = client.generate("a red circle")
        picture.save("circle.png")
    """
    return BlockingClient(
        server,
        connect_timeout_seconds=connect_timeout_seconds,
        reconnect_seconds=reconnect_seconds,
    )
