"""What all messages are made of: ids, bounds, words, and the two bases.

A message is a msgpack map whose ``type`` names the struct. Every request carries a
``request_id`` that the client chose (unique among its requests under way), and so does
all that the server says about it. Bounds are checked when a message is decoded.
"""

from enum import StrEnum
from typing import Annotated

import msgspec

from sdq.protocol.constants import MAX_COUNT
from sdq.protocol.model import Sha256

RequestId = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Key = Sha256
KeyPrefix = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{4,64}\Z")]
AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
Count = Annotated[int, msgspec.Meta(ge=1, le=MAX_COUNT)]
FirstIndex = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class CachePolicy(StrEnum):
    """How a request may use the library."""

    PREFER = "prefer"  # answer from it, else draw and keep
    ONLY = "only"  # answer from it or not at all
    REFRESH = "refresh"  # draw again and keep the new one
    OFF = "off"  # draw, and keep nothing


class Priority(StrEnum):
    """The order among one's own jobs; it changes nothing for anybody else's."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Origin(StrEnum):
    """Where a picture of a reply comes from."""

    HIT = "hit"  # it was in the library
    MADE = "made"  # drawn for this request
    JOINED = "joined"  # drawn for an equal request that was already under way


class BaseMessage(msgspec.Struct, frozen=True, tag_field="type", tag=str.lower):
    """Base: the tag is the name of the struct in lower case.

    Unknown fields are ignored, so that a newer peer may say more than we understand.
    """


class BaseRequest(BaseMessage, frozen=True, forbid_unknown_fields=True):
    """Base of what a client asks: a field that would be ignored is refused instead."""

    request_id: RequestId
