"""Async generators as plain iterators."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from sdq.client.loop_thread import LoopThread, Post
from sdq.errors import ConnectionFailed

T = TypeVar("T")


class Stream(Iterator[T], Generic[T]):
    """An iterator over what a request brings. Close it to leave that early::

        with client.watch("a red circle") as events:
            for event in events:
                ...

    For one reader at a time; any thread may close it. Without ``with``, a ``break`` is noticed
    when Python frees the iterator: at once, unless somebody else knows it too.
    """

    def __init__(
        self, thread: LoopThread, events: AsyncGenerator[T, None], post: Post | None = None
    ) -> None:
        self._thread = thread
        self._events = events
        self._post = post
        self._reading: asyncio.Task[list[T]] | None = None
        self._is_over = False
        thread.hold(events)

    def __next__(self) -> T:
        if self._is_over:
            raise StopIteration
        try:
            events = self._thread.call(self._read, self._post)
        except Exception:
            if self._is_over:  # it was closed meanwhile
                raise StopIteration from None
            self._is_over = True
            raise
        except BaseException:  # Ctrl-C too must not leave it under way; raised again
            self.close()
            raise
        if not events:
            self._is_over = True
            raise StopIteration
        return events[0]

    def close(self) -> None:
        """Leaves it: what is under way is cancelled on the server. May be called twice."""
        if not self._is_over:
            self._is_over = True
            with suppress(ConnectionFailed):
                self._thread.call(self._leave)

    async def _read(self) -> list[T]:
        """The next event, as a list of it; an empty one after the last."""
        self._reading = asyncio.current_task()
        async for event in self._events:
            return [event]
        return []

    async def _leave(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        await self._events.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Feed(Generic[T]):
    """A plain iterator as an async one: each item is taken by the thread that reads the stream,
    while it waits there. So the iterator may block, or ask the same client."""

    def __init__(self, items: Iterable[T]) -> None:
        self.post: Post = SimpleQueue()
        self._items = iter(items)

    async def follow(self) -> AsyncGenerator[T, None]:
        loop = asyncio.get_running_loop()
        while True:
            answer: asyncio.Future[list[T]] = loop.create_future()
            self.post.put(lambda answer=answer: self._take(loop, answer))  # type: ignore[misc]
            items = await answer
            if not items:
                return
            yield items[0]

    def _take(self, loop: asyncio.AbstractEventLoop, answer: "asyncio.Future[list[T]]") -> None:
        """In the reader's thread."""
        settle: Callable[[Any], None]
        try:
            value: Any = list(islice(self._items, 1))
            settle = answer.set_result
        except Exception as error:  # noqa: BLE001 - it belongs to whoever reads the batch
            value, settle = error, answer.set_exception

        def tell() -> None:
            if not answer.done():
                settle(value)

        with suppress(RuntimeError):  # the client was closed meanwhile
            loop.call_soon_threadsafe(tell)
