"""Every error that sdq raises on purpose.

::

    SdqError
    ├── UsageError               2  wrong usage: a flag, a setting, a file
    │   ├── InvalidSpec             a parameter of a picture is out of its range
    │   ├── UnknownModel            no such model in the catalog
    │   └── OutputError             a file cannot be written
    ├── ConnectionFailed         3  the server cannot be reached, or hung up
    │   └── ProtocolMismatch        it answers, but speaks something else
    ├── NotAllowed               4  token, role or quota
    ├── NotInLibrary             5  ``--cache only`` and the picture is not there
    ├── NobodyCanDoIt            6  no worker online holds the model
    ├── DeadlinePassed           7  ``--timeout`` ran out
    ├── ServerBusy               1  a limit of the server was reached: try again
    ├── GenerationFailed         1  a worker took the job and could not finish it
    │   └── Cancelled               somebody asked for that
    ├── ModelError               1  a model's files are missing, changed or broken
    │   └── DownloadError           they could not be fetched
    ├── StackError               1  a part (Redis, server, worker) does not run
    └── ProtocolError            1  the peer broke the protocol
        └── LocalProtocolError      we did: a defect in sdq

The number is the exit code of the command line. ``code`` is the word that travels on
the wire; `from_code` turns it back into the same class on the other side, so a script
sees one error whether it happened here or on the server.
"""

from typing import ClassVar


class SdqError(Exception):
    """Base of all. ``message`` says what went wrong, ``hint`` what to do next."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class UsageError(SdqError):
    code = "usage"
    exit_code = 2


class InvalidSpec(UsageError):
    code = "invalid_spec"


class UnknownModel(UsageError):
    code = "unknown_model"


class OutputError(UsageError):
    code = "output"


class ConnectionFailed(SdqError):
    code = "unreachable"
    exit_code = 3


class ProtocolMismatch(ConnectionFailed):
    code = "protocol_mismatch"


class NotAllowed(SdqError):
    code = "not_allowed"
    exit_code = 4


class NotInLibrary(SdqError):
    code = "not_in_library"
    exit_code = 5


class NobodyCanDoIt(SdqError):
    code = "no_worker"
    exit_code = 6


class DeadlinePassed(SdqError):
    code = "deadline"
    exit_code = 7


class ServerBusy(SdqError):
    code = "busy"


class GenerationFailed(SdqError):
    code = "generation_failed"


class Cancelled(GenerationFailed):
    code = "cancelled"


class ModelError(SdqError):
    code = "model"


class DownloadError(ModelError):
    code = "download"


class StackError(SdqError):
    code = "stack"


class ProtocolError(SdqError):
    """The peer sent something that the protocol does not allow."""

    code = "protocol"


class LocalProtocolError(ProtocolError):
    """We were about to send something that the protocol does not allow."""

    code = "local_protocol"


def _tree(root: type[SdqError]) -> dict[str, type[SdqError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


def from_code(code: str, message: str, hint: str = "") -> SdqError:
    """The error that a peer named by its ``code``; an unknown code gives a plain `SdqError`."""
    return _tree(SdqError).get(code, SdqError)(message, hint=hint)
