"""A `ScriptedServer`'s handler that foresees and draws, with a library that remembers.

::

    house = ScriptedHouse()
    async with ScriptedServer(house.handle) as server:
        ...
    assert house.drawn == ["a red circle"]
"""

import asyncio

import msgspec

from sdq.protocol.job_messages import Foresee, Foreseen, Intent, Outlook, PlannedPicture
from sdq.protocol.messages import ClientMessage, ErrorReply, Failure, Generate, Origin
from sdq.spec import key_of
from sdq.testing.transport import FINGERPRINT, ScriptedPeer, pictures_of, resolved


class ScriptedHouse:
    """``breaks``: the prompts whose pictures fail, and how often each (-1: always).

    ``most_asked``: how many requests were under way at once, at most. While ``is_open`` is not
    set, no request comes to its end.
    """

    def __init__(
        self, *, breaks: dict[str, int] | None = None, picture_seconds: float | None = 0.5
    ) -> None:
        self.library: set[str] = set()
        self.drawn: list[str] = []
        self.breaks = dict(breaks or {})
        self.picture_seconds = picture_seconds
        self.asked = 0
        self.most_asked = 0
        self.step_seconds = 0.0
        self.is_open = asyncio.Event()
        self.is_open.set()

    async def handle(self, peer: ScriptedPeer, message: ClientMessage) -> None:
        """Answers `Foresee` and `Generate`, and refuses all else."""
        match message:
            case Foresee():
                outlooks = tuple(map(self._outlook, message.intents))
                peer.send(Foreseen(message.request_id, outlooks))
            case Generate():
                self.asked += 1
                self.most_asked = max(self.most_asked, self.asked)
                try:
                    await self._draw(peer, message)
                finally:
                    self.asked -= 1
            case _:
                request_id = getattr(message, "request_id", None)
                peer.send(ErrorReply(request_id, "error", "not in this script"))

    async def _draw(self, peer: ScriptedPeer, message: Generate) -> None:
        await asyncio.sleep(self.step_seconds)
        await self.is_open.wait()
        prompt = message.draft.prompt
        if left := self.breaks.get(prompt, 0):
            self.breaks[prompt] = left - 1
            for number in range(message.count):
                index, remaining = message.first_index + number, message.count - 1 - number
                failure = Failure(
                    message.request_id, index, remaining, "generation_failed", "it broke", "again"
                )
                peer.send(failure)
            return
        for picture in pictures_of(message):
            is_hit = picture.key in self.library
            if not is_hit:
                self.library.add(picture.key)
                self.drawn.append(prompt)
            origin = Origin.HIT if is_hit else Origin.MADE
            peer.send(msgspec.structs.replace(picture, cache=origin))

    def _outlook(self, intent: Intent) -> Outlook:
        if intent.draft.model == "nosuch":
            return Outlook(code="unknown_model", message="no such model", hint="`sdq model list`")
        return Outlook(
            tuple(self._planned(intent, intent.first_index + i) for i in range(intent.count)),
            workers=2,
            picture_seconds=self.picture_seconds,
        )

    def _planned(self, intent: Intent, index: int) -> PlannedPicture:
        spec = resolved(intent.draft, index)
        key = key_of(spec, FINGERPRINT)
        origin = Origin.HIT if key in self.library else Origin.MADE
        return PlannedPicture(index, key, spec, origin, None)
