"""What slow readers have left unread, over all connections: bounded for the server as a whole."""

import logging
from typing import Protocol

from sdq.protocol.constants import MAX_OUTBOX_BYTES

log = logging.getLogger(__name__)

MAX_UNREAD_BYTES = 8 * MAX_OUTBOX_BYTES
"""In the outboxes of all connections; a single one may hold `MAX_OUTBOX_BYTES`."""

SMALL_BYTES = 256 * 1024
"""An outbox with less than this costs no look at the others."""


class Outbox(Protocol):
    """A connection, as far as its unread bytes go."""

    @property
    def peer(self) -> str: ...

    @property
    def unread_bytes(self) -> int: ...

    def abort(self) -> None: ...


class Outboxes:
    """All of them. Each is looked at after something was put into it."""

    def __init__(self, max_unread_bytes: int = MAX_UNREAD_BYTES) -> None:
        self._max_unread_bytes = max_unread_bytes
        self._all: set[Outbox] = set()

    def add(self, outbox: Outbox) -> None:
        self._all.add(outbox)

    def discard(self, outbox: Outbox) -> None:
        self._all.discard(outbox)

    def check(self, written: Outbox) -> None:
        """Cuts whoever has the most unread, until all of it together is within the bound."""
        if written.unread_bytes < SMALL_BYTES:
            return
        unread = {outbox: outbox.unread_bytes for outbox in self._all}
        total = sum(unread.values())
        while total > self._max_unread_bytes and unread:
            slowest = max(unread, key=unread.__getitem__)
            total -= unread.pop(slowest)
            log.warning("%s reads too slowly, and memory is needed: cut off", slowest.peer)
            slowest.abort()
