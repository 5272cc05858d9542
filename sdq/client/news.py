"""What a request that waits tells whoever reads it."""

import msgspec

from sdq.protocol.messages import Accepted, Failure, Picture, Progress


class Reconnecting(msgspec.Struct, frozen=True):
    """The server is lost, and is being looked for. Never on the wire."""

    reason: str


class Reconnected(msgspec.Struct, frozen=True):
    """It is back, and was asked for what is still missing. Never on the wire."""


News = Accepted | Progress | Picture | Failure | Reconnecting | Reconnected
