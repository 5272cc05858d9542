"""What a request that waits tells whoever reads it."""

import msgspec

from sdq.protocol import messages
from sdq.protocol.messages import Accepted, Failure, Progress

PictureMessage = messages.Picture
"""A picture on the wire, among the news; `sdq.client.pictures.Picture.of` makes more of it."""


class Reconnecting(msgspec.Struct, frozen=True):
    """The server is lost, and is being looked for. Never on the wire."""

    reason: str


class Reconnected(msgspec.Struct, frozen=True):
    """It is back, and was asked for what is still missing. Never on the wire."""


News = Accepted | Progress | PictureMessage | Failure | Reconnecting | Reconnected
