"""Many pictures, a few at a time: what `Client.batch` does."""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Iterable,
)
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, TypeVar

from sdq.client.pictures import Picture
from sdq.errors import SdqError

ItemT = TypeVar("ItemT")
"""Any type, so that a list may hold both prompts and mappings; `draft_of` says what is none."""

ItemT_co = TypeVar("ItemT_co", covariant=True)


@dataclass(frozen=True)
class Done(Generic[ItemT_co]):
    """The end of one item of a batch: a picture, or the error that came instead."""

    index: int
    """Its place in the input, from 0."""
    item: ItemT_co
    """As it was in the input."""
    picture: Picture | None
    error: SdqError | None


class Batch(Generic[ItemT]):
    """Draws the items of an input, at most ``jobs`` at once.

    An item is taken from the input when there is room for it, and there is room again when what
    came of another was read: however long the input is and however slow the reader, no more than
    ``jobs`` and the one that is being read are in memory.
    """

    def __init__(
        self,
        items: Iterable[ItemT] | AsyncIterable[ItemT],
        draw: Callable[[ItemT], Awaitable[Picture]],
        jobs: int,
    ) -> None:
        self._items = items
        self._draw = draw
        self._room = asyncio.Semaphore(jobs)
        self._drawing: set[asyncio.Task[Done[ItemT]]] = set()
        self._ended: asyncio.Queue[asyncio.Task[Done[ItemT]] | None] = asyncio.Queue()

    async def follow(self) -> AsyncGenerator[Done[ItemT], None]:
        """What came of each item, as they end. Leaving early cancels all that is under way.

        Raises what the input raises.
        """
        taking = asyncio.create_task(self._take(), name="sdq client: input of a batch")
        taking.add_done_callback(lambda _: self._ended.put_nowait(None))
        try:
            while not taking.done() or self._drawing:
                task = await self._ended.get()
                if task is None:
                    taking.result()
                    continue
                self._drawing.discard(task)
                done = task.result()
                self._room.release()
                yield done
            taking.result()
        finally:
            tasks = (taking, *self._drawing)
            for unfinished in tasks:
                unfinished.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _take(self) -> None:
        """Begins one item after the other, each when there is room."""
        index = 0
        async with aclosing(_one_by_one(self._items)) as items:
            while True:
                await self._room.acquire()
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    return
                task = asyncio.create_task(self._finish(index, item))
                self._drawing.add(task)
                task.add_done_callback(self._ended.put_nowait)
                index += 1

    async def _finish(self, index: int, item: ItemT) -> Done[ItemT]:
        try:
            return Done(index, item, await self._draw(item), None)
        except SdqError as error:
            return Done(index, item, None, error)


async def _one_by_one(
    items: Iterable[ItemT] | AsyncIterable[ItemT],
) -> AsyncGenerator[ItemT, None]:
    """The items of either kind of input, each taken when it is asked for."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
