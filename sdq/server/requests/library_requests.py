"""The messages about stored pictures."""

from sdq.errors import NotInLibrary, UsageError
from sdq.protocol.library_messages import (
    FetchPicture,
    FindPictures,
    FoundPictures,
    Pinned,
    PinPictures,
    Removed,
    RemovePictures,
)
from sdq.protocol.messages import Origin, Picture
from sdq.server.library.library import Library, Question

LibraryMessage = FindPictures | FetchPicture | PinPictures | RemovePictures
LibraryReply = FoundPictures | Picture | Pinned | Removed


class LibraryRequests:
    """Finds, fetches, pins and removes pictures."""

    def __init__(self, library: Library) -> None:
        self._library = library

    async def answer(self, message: LibraryMessage) -> LibraryReply:
        """The one reply to a message. Raises `SdqError`."""
        match message:
            case FindPictures():
                pictures, more = await self._library.find(question_of(message))
                return FoundPictures(message.request_id, tuple(pictures), more)
            case FetchPicture():
                return await self._fetch(message)
            case PinPictures():
                keys = await self._resolve(message.keys)
                changed = await self._library.pin(keys, pinned=message.pinned)
                return Pinned(message.request_id, tuple(keys), len(changed))
            case RemovePictures():
                keys = await self._resolve(message.keys)
                return Removed(message.request_id, *await self._library.remove(keys))

    async def _resolve(self, prefixes: tuple[str, ...]) -> list[str]:
        """Whole keys, each once. Raises `UsageError`: then nothing is done."""
        return list(dict.fromkeys([await self._library.resolve(prefix) for prefix in prefixes]))

    async def _fetch(self, message: FetchPicture) -> Picture:
        stored = await self._library.get(await self._library.resolve(message.key))
        if stored is None:
            raise NotInLibrary(f"the file of picture {message.key} is gone")
        return Picture(
            request_id=message.request_id,
            index=0,
            remaining=0,
            key=stored.key,
            spec=stored.spec,
            cache=Origin.HIT,
            draw_seconds=stored.draw_seconds,
            image=stored.image,
        )


def question_of(message: FindPictures) -> Question:
    """What the library is asked. Raises `UsageError` for half a size."""
    size = None
    if message.width is not None and message.height is not None:
        size = message.width, message.height
    elif message.width is not None or message.height is not None:
        raise UsageError("a width without a height, or the other way round", hint="give both")
    return Question(
        words=message.words,
        negative=message.negative,
        model=message.model,
        size=size,
        since=message.since,
        until=message.until,
        seed=message.seed,
        lora=message.lora,
        pinned=message.pinned,
        before=message.before,
        limit=message.limit,
    )
