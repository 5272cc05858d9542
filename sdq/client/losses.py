"""Which errors of a connection may be over after a while."""

from sdq.errors import ConnectionFailed, ProtocolMismatch, SdqError


class HungUp(ProtocolMismatch):
    """It took the connection and closed it before it said anything: a server that is just
    ending, or a tunnel to one that is not there, does that too."""


def may_pass(error: SdqError) -> bool:
    """Whether what ended a connection, or refused one, may be over after a while.

    A cut frame and the server's word that it heard nothing for too long (a laptop that slept)
    are ``protocol``; a server of another version stays what it is.
    """
    if isinstance(error, ProtocolMismatch):
        return isinstance(error, HungUp)
    return isinstance(error, ConnectionFailed) or error.code in ("protocol", "busy")
