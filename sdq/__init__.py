"""sdq: draw pictures with another computer's GPU.

The public names are loaded on first use, so that ``import sdq`` costs nothing::

    from sdq import connect

    async with connect("127.0.0.1:7433") as client:
        picture = await client.generate("a red circle on a blue background")
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdq.client.client import Client as Client
    from sdq.client.connecting import connect as connect
    from sdq.errors import SdqError as SdqError
    from sdq.spec import ImageSpec as ImageSpec
    from sdq.spec import SpecDraft as SpecDraft

__version__ = "0.1.0"
__all__ = ["Client", "ImageSpec", "SdqError", "SpecDraft", "__version__", "connect"]

_HOMES = {
    "Client": "sdq.client.client",
    "ImageSpec": "sdq.spec",
    "SpecDraft": "sdq.spec",
    "SdqError": "sdq.errors",
    "connect": "sdq.client.connecting",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sdq' has no attribute {name!r}")
