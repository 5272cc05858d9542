"""A trouble that lasts: told when it begins, when it changes and when it is over, not each time."""

import logging


class Trouble:
    """Something that is tried again and again; ``about`` names it, for the log."""

    def __init__(self, log: logging.Logger, about: str) -> None:
        self._log = log
        self._about = about
        self._told = ""

    def met(self, error: BaseException, *, is_defect: bool = False) -> None:
        """It failed. ``is_defect``: of ours, so that the log shows where."""
        words = f"{type(error).__name__}: {error}" if is_defect else str(error)
        if words != self._told:
            self._told = words
            self._log.error("%s: %s", self._about, words, exc_info=error if is_defect else None)

    def over(self) -> None:
        """It went well."""
        if self._told:
            self._told = ""
            self._log.info("%s: all is well again", self._about)
