"""The client's side: one connection to a server, and the library for scripts on top of it.

The public names are loaded on first use, so that ``import sdq.client`` costs nothing::

    from sdq.client import connect

    async with connect("gpu-box:7433") as client:
        picture = await client.generate("a red circle on a blue background")
        picture.save("circle.png")
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdq.client.batch import Done as Done
    from sdq.client.blocking import BlockingClient as BlockingClient
    from sdq.client.blocking import connect_blocking as connect_blocking
    from sdq.client.client import Client as Client
    from sdq.client.connecting import connect as connect
    from sdq.client.news import PictureMessage as PictureMessage
    from sdq.client.news import Reconnected as Reconnected
    from sdq.client.news import Reconnecting as Reconnecting
    from sdq.client.pictures import Picture as Picture
    from sdq.protocol.messages import Accepted as Accepted
    from sdq.protocol.messages import Failure as Failure
    from sdq.protocol.messages import Progress as Progress
    from sdq.spec import SpecDraft as SpecDraft

_HOMES = {
    "Accepted": "sdq.protocol.messages",
    "BlockingClient": "sdq.client.blocking",
    "Client": "sdq.client.client",
    "Done": "sdq.client.batch",
    "Failure": "sdq.protocol.messages",
    "Picture": "sdq.client.pictures",
    "PictureMessage": "sdq.client.news",
    "Progress": "sdq.protocol.messages",
    "Reconnected": "sdq.client.news",
    "Reconnecting": "sdq.client.news",
    "SpecDraft": "sdq.spec",
    "connect": "sdq.client.connecting",
    "connect_blocking": "sdq.client.blocking",
}

__all__ = [
    "Accepted",
    "BlockingClient",
    "Client",
    "Done",
    "Failure",
    "Picture",
    "PictureMessage",
    "Progress",
    "Reconnected",
    "Reconnecting",
    "SpecDraft",
    "connect",
    "connect_blocking",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sdq.client' has no attribute {name!r}")
