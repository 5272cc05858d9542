"""What `sdq fetch` does once its keys are known: a few at once, written in their order."""

import asyncio
from collections import deque

from sdq.cli.files import Named, Outputs
from sdq.cli.output import print_data, print_json, tell_error
from sdq.client.client import Client
from sdq.client.pictures import Picture
from sdq.errors import ConnectionFailed, OutputError, SdqError

AT_ONCE = 4
"""Pictures asked for before the first of them is written."""


class Fetching:
    """Several pictures, some of which may not be there: `code` is the exit code then."""

    def __init__(self, outputs: Outputs, *, as_json: bool) -> None:
        self.code = 0
        self._outputs = outputs
        self._as_json = as_json

    async def run(self, client: Client, keys: list[str]) -> None:
        """A few are on their way while one is written, in the order of the keys."""
        under_way: deque[tuple[int, str, asyncio.Task[Picture]]] = deque()
        rest = iter(enumerate(keys))
        try:
            while True:
                for index, key in rest:
                    under_way.append((index, key, asyncio.create_task(client.fetch(key))))
                    if len(under_way) >= AT_ONCE:
                        break
                if not under_way:
                    return
                await self._finish(*under_way[0], alone=len(keys) == 1)
                under_way.popleft()
        finally:
            for _, _, task in under_way:
                task.cancel()
            await asyncio.gather(*(task for _, _, task in under_way), return_exceptions=True)

    async def _finish(
        self, index: int, key: str, task: asyncio.Task[Picture], *, alone: bool
    ) -> None:
        try:
            self._write(index, await task)
        except (ConnectionFailed, OutputError):
            raise  # the next one would not fare better
        except SdqError as error:
            if alone:
                raise
            tell_error(error, about=key)
            self.code = self.code or error.exit_code

    def _write(self, index: int, picture: Picture) -> None:
        path = self._outputs.write(Named(1, index, picture.spec, picture.key), picture.png)
        if self._as_json:
            print_json({"path": str(path), "key": picture.key})
        elif path is not None:
            print_data(str(path))
