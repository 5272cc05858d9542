"""A client on the SDK, as a process, that notes each job id at the moment it is told.

``python -m sdq.testing.chaos.person FILE`` where FILE is an `Errand` as JSON. A line of its log is
``told JOB KEY``, ``got KEY`` or ``failed CODE MESSAGE``; it ends with 0 when all pictures are
there, 3 when nobody answered at the door, else 1.
"""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import msgspec

from sdq.client.client import Client
from sdq.client.news import News
from sdq.errors import ConnectionFailed, SdqError
from sdq.protocol.job_messages import Submitted
from sdq.protocol.messages import Accepted, Failure, Picture
from sdq.spec import SpecDraft

EXIT_NOBODY_THERE = ConnectionFailed.exit_code
SUBMIT_SECONDS = 60.0
_SUBMIT_AGAIN_SECONDS = 0.3


class Errand(msgspec.Struct, frozen=True):
    """``submit``: hand in and leave. ``job_ids`` not empty: wait for these in place of asking."""

    address: str
    folder: str  # for the pictures, ``KEY.png``
    log: str
    prompts: tuple[str, ...] = ()
    count: int = 1
    submit: bool = False
    job_ids: tuple[str, ...] = ()


class Person:
    def __init__(self, errand: Errand) -> None:
        self._errand = errand
        self._folder = Path(errand.folder)
        # Unbuffered: what was told is noted before the next thing can happen.
        self._log = Path(errand.log).open("ab", buffering=0)  # noqa: SIM115 - closed by `run`

    async def run(self) -> int:
        """The exit code."""
        with self._log:
            try:
                client = await Client.connect(self._errand.address)
            except ConnectionFailed as error:
                self._note("refused", error.message)
                return EXIT_NOBODY_THERE
            async with client:
                if self._errand.job_ids:
                    works = [self._follow(client.attach(self._errand.job_ids))]
                elif self._errand.submit:
                    works = [self._submit(client, prompt) for prompt in self._errand.prompts]
                else:
                    works = [self._generate(client, prompt) for prompt in self._errand.prompts]
                done = await asyncio.gather(*works, return_exceptions=True)
        for result in done:
            if isinstance(result, BaseException) and not isinstance(result, SdqError):
                raise result
        return 0 if all(result is True for result in done) else 1

    async def _generate(self, client: Client, prompt: str) -> bool:
        draft = SpecDraft(prompt=prompt)
        return await self._follow(client.watch(draft, count=self._errand.count))

    async def _submit(self, client: Client, prompt: str) -> bool:
        submitted = await self._submitted(client, SpecDraft(prompt=prompt))
        for planned in submitted.pictures:
            self._note("told", str(planned.job_id), planned.key)
        return True

    async def _submitted(self, client: Client, draft: SpecDraft) -> Submitted:
        """Again and again when the connection is lost before the answer: that is harmless."""
        deadline = time.monotonic() + SUBMIT_SECONDS
        while True:
            try:
                return await client.submit(draft, count=self._errand.count)
            except SdqError as error:
                self._note("failed", error.code, error.message)
                if not isinstance(error, ConnectionFailed) or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(_SUBMIT_AGAIN_SECONDS)

    async def _follow(self, news: AsyncGenerator[News, None]) -> bool:
        """Notes what is told, keeps what comes; whether nothing failed."""
        is_well = True
        try:
            async with aclosing(news):
                async for item in news:
                    if isinstance(item, Accepted):
                        for planned in item.pictures:
                            if planned.job_id is not None:
                                self._note("told", planned.job_id, planned.key)
                    elif isinstance(item, Picture):
                        self._keep(item)
                    elif isinstance(item, Failure):
                        self._note("failed", item.code, item.message)
                        is_well = False
        except SdqError as error:
            self._note("failed", error.code, error.message)
            raise
        return is_well

    def _keep(self, picture: Picture) -> None:
        part = self._folder / f"{picture.key}.part"
        part.write_bytes(picture.image)
        part.replace(self._folder / f"{picture.key}.png")
        self._note("got", picture.key)

    def _note(self, *words: str) -> None:
        self._log.write((" ".join(words).replace("\n", " ") + "\n").encode())


def main() -> int:
    errand = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Errand)
    return asyncio.run(Person(errand).run())


if __name__ == "__main__":
    sys.exit(main())
