"""Pictures in memory, for answers without the disk: least recently used out first."""

from collections import OrderedDict
from typing import NamedTuple

from sdq.spec import ImageSpec

MAX_ENTRIES = 10_000
"""Also bounds how many last-used times can wait between two writes to the database."""

ENTRY_OVERHEAD_BYTES = 2_048
"""What an entry weighs besides its picture and its prompts: key, spec, bookkeeping; generous."""


class StoredImage(NamedTuple):
    """A picture as the library holds it; ``image`` is PNG."""

    key: str
    spec: ImageSpec
    image: bytes
    draw_seconds: float


class _Entry:
    __slots__ = ("stored", "used_at", "weight_bytes")

    def __init__(self, stored: StoredImage, weight_bytes: int, used_at: float) -> None:
        self.stored = stored
        self.weight_bytes = weight_bytes
        self.used_at = used_at


def weight_of(stored: StoredImage) -> int:
    """Bytes that an entry counts for. A character of a prompt counts four, the most it can take."""
    characters = len(stored.spec.prompt) + len(stored.spec.negative_prompt)
    return len(stored.image) + 4 * characters + ENTRY_OVERHEAD_BYTES


class MemoryCache:
    """At most ``max_bytes`` and `MAX_ENTRIES`; nothing stays unused for ``max_idle_seconds``."""

    def __init__(self, max_bytes: int, max_idle_seconds: float) -> None:
        self.bytes = 0
        self._max_bytes = max_bytes
        self._max_idle_seconds = max_idle_seconds
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str, now: float) -> StoredImage | None:
        """The picture, now the most recently used one; ``None`` when absent or idle too long."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now - entry.used_at > self._max_idle_seconds:
            self.discard(key)
            return None
        entry.used_at = now
        self._entries.move_to_end(key)
        return entry.stored

    def add(self, stored: StoredImage, now: float) -> None:
        """Takes the picture in, or leaves it out when it alone is over the limit."""
        self.discard(stored.key)
        weight = weight_of(stored)
        if weight > self._max_bytes:
            return
        self._entries[stored.key] = _Entry(stored, weight, now)
        self.bytes += weight
        while self.bytes > self._max_bytes or len(self._entries) > MAX_ENTRIES:
            _, oldest = self._entries.popitem(last=False)
            self.bytes -= oldest.weight_bytes

    def discard(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= entry.weight_bytes
