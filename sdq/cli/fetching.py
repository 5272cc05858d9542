"""Pictures of the library, a few at once, in the order of their keys."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from sdq.cli.files import Named, Outputs
from sdq.cli.output import print_data, print_json, tell_error
from sdq.client.client import Client
from sdq.client.pictures import Picture
from sdq.errors import ConnectionFailed, SdqError

AT_ONCE = 4
"""Pictures asked for before the first of them is done with."""


async def in_order(
    client: Client, keys: Sequence[str]
) -> AsyncGenerator[tuple[str, Picture | SdqError], None]:
    """Each key with its picture, or with why there is none. Raises `ConnectionFailed`.

    Leave it early with ``aclose``; what is on its way is cancelled and awaited.
    """
    under_way: deque[tuple[str, asyncio.Task[Picture]]] = deque()
    rest = iter(keys)
    try:
        while True:
            while len(under_way) < AT_ONCE and (key := next(rest, None)) is not None:
                under_way.append((key, asyncio.create_task(client.fetch(key))))
            if not under_way:
                return
            key, task = under_way[0]
            try:
                found: Picture | SdqError = await task
            except ConnectionFailed:
                raise  # the next one would not fare better
            except SdqError as error:
                found = error
            under_way.popleft()
            yield key, found
    finally:
        for _, task in under_way:
            task.cancel()
        await asyncio.gather(*(task for _, task in under_way), return_exceptions=True)


class Fetching:
    """What `sdq fetch` does once its keys are known. `code`: the exit code, that of the first
    picture that is not there."""

    def __init__(self, outputs: Outputs, *, as_json: bool) -> None:
        self.code = 0
        self._outputs = outputs
        self._as_json = as_json

    async def run(self, client: Client, keys: list[str]) -> None:
        """Raises `OutputError`, `ConnectionFailed`, and what is wrong with the only key."""
        index = 0
        async with aclosing(in_order(client, keys)) as pictures:
            async for key, found in pictures:
                if isinstance(found, Picture):
                    self._write(index, found)
                elif len(keys) == 1:
                    raise found
                else:
                    tell_error(found, about=key)
                    self.code = self.code or found.exit_code
                index += 1

    def _write(self, index: int, picture: Picture) -> None:
        path = self._outputs.write(Named(1, index, picture.spec, picture.key), picture.png)
        if self._as_json:
            print_json({"path": str(path), "key": picture.key})
        elif path is not None:
            print_data(str(path))
