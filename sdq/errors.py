"""Every error that sdq raises on purpose.

::

    SdqError
    ├── UsageError               2  wrong usage: a flag, a setting, a file
    │   ├── InvalidSpec             a parameter of a picture is out of its range
    │   ├── UnknownModel            no such model in the catalog
    │   ├── UnknownLora             no such LoRA in the catalog
    │   ├── UnknownJob              no such job, or forgotten long after its end
    │   ├── UnknownWorker           no such worker online
    │   └── OutputError             a file cannot be written
    ├── ConnectionFailed         3  the server cannot be reached, or hung up
    │   ├── ServerLeaving           it is being stopped or started again: connect anew
    │   └── ProtocolMismatch        it answers, but speaks something else
    ├── NotAllowed               4  token, role or quota
    ├── NotInLibrary             5  ``--cache only`` and the picture is not there
    ├── NobodyCanDoIt            6  no worker online holds the model
    ├── DeadlinePassed           7  ``--timeout`` ran out
    ├── ServerBusy               1  a limit of the server was reached: try again
    ├── GenerationFailed         1  a worker took the job and could not finish it
    │   ├── Cancelled               somebody asked for that
    │   └── OutOfMemory             the device is too small for the picture
    ├── ModelError               1  a model's files are missing, changed or broken
    │   └── DownloadError           they could not be fetched
    ├── StackError               1  a part (Redis, server, worker) does not run
    └── ProtocolError            1  the peer broke the protocol
        ├── InvalidMessage          one message is not allowed; the connection lives
        ├── FrameTooLarge           a length over the limit; the connection ends
        └── LocalProtocolError      we did: a defect in sdq

The number is the exit code of the command line. ``code`` is the word that travels on
the wire; `from_code` turns it back into the same class on the other side, so a script
sees one error whether it happened here or on the server.
"""


class SdqError(Exception):
    """Base of all. ``message`` says what went wrong, ``hint`` what to do next."""

    code: str = "error"
    exit_code: int = 1

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


class UnknownLora(UsageError):
    code = "unknown_lora"


class UnknownJob(UsageError):
    code = "unknown_job"


class UnknownWorker(UsageError):
    code = "unknown_worker"


class OutputError(UsageError):
    code = "output"


class ConnectionFailed(SdqError):
    code = "unreachable"
    exit_code = 3


class ServerLeaving(ConnectionFailed):
    code = "leaving"


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


class OutOfMemory(GenerationFailed):
    code = "out_of_memory"


class ModelError(SdqError):
    code = "model"


class DownloadError(ModelError):
    code = "download"


class StackError(SdqError):
    code = "stack"


class ProtocolError(SdqError):
    """The peer sent something that the protocol does not allow."""

    code = "protocol"


_MESSAGES_HINT = "docs/protocol.md lists the messages and their fields"


class InvalidMessage(ProtocolError):
    """The bytes are no message that is allowed here. ``request_id`` as far as it was readable."""

    code = "invalid_message"

    def __init__(self, message: str, *, hint: str = "", request_id: int | None = None) -> None:
        super().__init__(message, hint=hint or _MESSAGES_HINT)
        self.request_id = request_id


class FrameTooLarge(ProtocolError):
    """A frame over the limit. Nothing was read of it; the stream cannot go on.

    ``foreign`` names the protocol that the other side seems to speak instead, if any.
    """

    code = "frame_too_large"

    def __init__(self, message: str, *, hint: str = "", foreign: str = "") -> None:
        super().__init__(message, hint=hint)
        self.foreign = foreign


class LocalProtocolError(ProtocolError):
    """We were about to send something that the protocol does not allow."""

    code = "local_protocol"


def _tree(root: type[SdqError]) -> dict[str, type[SdqError]]:
    """The classes of this module by code; a subclass elsewhere has its own constructor."""
    found = {root.code: root}
    for child in root.__subclasses__():
        if child.__module__ == __name__:
            found |= _tree(child)
    return found


def from_code(code: str, message: str, hint: str = "") -> SdqError:
    """The error that a peer named by its ``code``.

    A code of a newer peer gives a plain `SdqError` that keeps the code.
    """
    known = _tree(SdqError).get(code)
    if known is not None:
        return known(message, hint=hint)
    error = SdqError(message, hint=hint)
    error.code = code
    return error
