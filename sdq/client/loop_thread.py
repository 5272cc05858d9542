"""An event loop in a thread of its own, for callers that have none or are inside another."""

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from sdq.errors import ConnectionFailed, UsageError

T = TypeVar("T")
_Awaited = Coroutine[Any, Any, T]

Post = SimpleQueue[Callable[[], None] | None]
"""What the loop wants done by the thread that waits for it; ``None``: it need not wait any more."""

LEAVE_SECONDS = 3.0
"""How long a call that is interrupted waits until what it had begun is taken back: a second for
the server's word, and some. A second Ctrl-C does not wait."""

JOIN_SECONDS = 10.0
"""How long the end waits for the thread."""


class LoopThread:
    """Runs coroutines for other threads, any number at once.

    `close` ends and joins it; so does the end of the process, and the end of the last one who
    knew it. ``at_end`` runs last in its loop.
    """

    def __init__(self) -> None:
        self._inside = _Inside()
        self._end = weakref.finalize(self, self._inside.end)

    def call(self, begin: Callable[[], _Awaited[T]], post: Post | None = None) -> T:
        """What the coroutine that ``begin`` makes, in the loop, gives or raises.

        Ctrl-C, or whatever else is raised in the waiting thread, cancels it and waits
        `LEAVE_SECONDS` for it to end. ``post``: what the coroutine wants done meanwhile in the
        waiting thread. Raises `ConnectionFailed` after `close`.
        """
        if threading.get_ident() == self._inside.thread_id:
            raise UsageError("this client was asked from its own thread, which would wait for ever")
        call = _Call(begin, SimpleQueue() if post is None else post, self._inside.calls)
        try:
            self._inside.soon(call.begin)
            while (wish := call.post.get()) is not None:
                wish()
        except BaseException:  # Ctrl-C too must not leave it running; raised again
            call.abandon(self._inside)
            raise
        return call.result()

    def hold(self, events: AsyncGenerator[Any, None]) -> None:
        """Has `close` leave the generator, unless it is gone by then. Raises `ConnectionFailed`."""
        self._inside.soon(lambda: self._inside.generators.add(events))

    def at_end(self, last: Callable[[], _Awaited[None]]) -> None:
        self._inside.last = last

    def close(self) -> None:
        """Cancels all calls, leaves all generators, ends the thread. May be called twice."""
        self._end()


class _Call(Generic[T]):
    """One coroutine on its way through the loop."""

    def __init__(
        self, make: Callable[[], _Awaited[T]], post: Post, calls: "set[asyncio.Task[Any]]"
    ) -> None:
        self.post = post
        self._make = make
        self._calls = calls
        self._task: asyncio.Task[T] | None = None
        self._ended = threading.Event()

    def begin(self) -> None:
        """In the loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._calls.add(self._task)
        self._task.add_done_callback(self._end)

    def abandon(self, inside: "_Inside") -> None:
        """In the thread that waits no longer."""
        with suppress(ConnectionFailed):
            inside.soon(self._cancel)
            self._ended.wait(LEAVE_SECONDS)

    def result(self) -> T:
        """After the end only."""
        if self._task is None or self._task.cancelled():
            raise ConnectionFailed("this client was closed")
        return self._task.result()

    async def _run(self) -> T:
        return await self._make()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        else:
            self._end()

    def _end(self, task: "asyncio.Task[T] | None" = None) -> None:
        if task is not None:
            self._calls.discard(task)
        self._ended.set()
        self.post.put(None)


class _Inside:
    """The loop and its thread. Knows nobody outside, so that these can come to their end."""

    def __init__(self) -> None:
        self.calls: set[asyncio.Task[Any]] = set()
        self.generators: weakref.WeakSet[AsyncGenerator[Any, None]] = weakref.WeakSet()
        self.last: Callable[[], _Awaited[None]] | None = None
        self._loop = asyncio.new_event_loop()
        self._is_ending = False
        self._lock = threading.Lock()  # nothing gets behind the loop's last callback
        self._thread = threading.Thread(target=self._run, name="sdq client", daemon=True)
        self._thread.start()

    @property
    def thread_id(self) -> int | None:
        return self._thread.ident

    def soon(self, callback: Callable[[], None]) -> None:
        """Runs it in the loop. Raises `ConnectionFailed` when that has come to its end."""
        with self._lock:
            if self._is_ending:
                raise ConnectionFailed("this client was closed")
            self._loop.call_soon_threadsafe(callback)

    def end(self) -> None:
        with self._lock:
            if not self._is_ending:
                self._is_ending = True
                self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:  # the collector runs in any thread
            self._thread.join(JOIN_SECONDS)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._leave())
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()

    async def _leave(self) -> None:
        """Takes back on the server what is under way, before its connection is closed."""
        for task in self.calls:
            task.cancel()
        await asyncio.gather(*self.calls, return_exceptions=True)
        left = [events.aclose() for events in self.generators]
        await asyncio.gather(*left, return_exceptions=True)
        if self.last is not None:
            await self.last()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
