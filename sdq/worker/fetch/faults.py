"""Why a link did not give its file, by what is to be done next."""

from sdq.errors import DownloadError


class Unreachable(DownloadError):
    """This link does not give the file; another one may."""

    code = "link"


class WrongContent(Unreachable):
    """The link gives a file, but not the one that the manifest names."""

    code = "wrong_content"


class Interrupted(Exception):
    """The line broke or the server is busy: worth another try at the same link.

    ``after_seconds``: how long the server asked us to stay away.
    """

    def __init__(self, reason: str, after_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.after_seconds = after_seconds


class Halted(Exception):
    """We were told to stop; what has arrived stays."""
